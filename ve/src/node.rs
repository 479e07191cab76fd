//! The host, and one VE on it, as a verb sees them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use templates::cache::Cache;
use templates::layout::{self, Layout};
use vzconf::{Config, Ctid, Exit, Lock, Paths, Status};
use vzsys::mount::is_mount_point;

use crate::error::{Error, Result};
use crate::state::State;

/// How long a verb waits for the end of the VE before to be tidied up (or restarted, after a reboot).
const TIDIED: Duration = Duration::from_secs(30);

/// Takes a line of progress: its level (0 is shown by default, 1 with `--verbose`, -1 is a warning that
/// goes to standard error) and its text.
pub type Say = Box<dyn Fn(i32, &str)>;

/// Is told how far something long is: what, bytes done, bytes in all (0 when nobody knows).
pub type Progress = Box<dyn Fn(&str, u64, u64)>;

/// The host.
pub struct Node {
    /// Where everything lies.
    pub paths: Paths,
    /// `vz.conf`.
    pub global: Config,
    /// This program, which monitors execute when their VE has ended.
    pub vzctl: PathBuf,
    /// The monitor program.
    pub vzmon: PathBuf,
    /// Where lines of progress go.
    pub say: Say,
    /// Where progress goes; nowhere unless set.
    pub progress: Progress,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("paths", &self.paths).field("vzmon", &self.vzmon).finish_non_exhaustive()
    }
}

impl Node {
    /// This host. `vzmon` is found beside `vzctl`, or where `make install` puts it.
    ///
    /// # Errors
    /// Exit 10 without a readable `vz.conf`.
    pub fn open(paths: Paths, say: Say) -> Result<Self> {
        let global = Config::global(&paths)?;
        // Monitors execute vzctl, whichever of its neighbours we are.
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/vzctl"));
        let beside = own.with_file_name("vzctl");
        let vzctl = if beside.is_file() { beside } else { own };
        let vzmon = helper(&vzctl, "vzmon");
        Ok(Self { paths, global, vzctl, vzmon, say, progress: Box::new(|_, _, _| {}) })
    }

    /// The number of a VE by number or name.
    ///
    /// # Errors
    /// Exit 21 for what is neither.
    pub fn find(&self, word: &str) -> Result<Ctid> {
        Ok(vzconf::names::resolve(&self.paths, word)?)
    }

    /// Takes a VE's lock for as long as the value lives. What is read of the VE before that may be out of
    /// date: its configuration is read once the lock is held.
    ///
    /// # Errors
    /// Exit 9 when somebody has it.
    pub fn lock(&self, ctid: Ctid, doing: &str) -> Result<Lock> {
        let dir = self.global.lock_dir();
        match Lock::acquire_as(&dir, ctid, doing) {
            // A VE that has just ended is being tidied up, or let go on after a killed checkpoint; that is over in a
            // moment, and nobody's doing.
            Err(vzconf::Error::Locked { holder: Some(holder), .. })
                if ["__ended", "__mend"].iter().any(|word| holder.cmdline.contains(word)) =>
            {
                Ok(Lock::wait(&dir, ctid, Instant::now() + TIDIED)?)
            }
            done => {
                let lock = done?;
                if lock.removed_stale() {
                    (self.say)(0, &format!("Removing stale lock file {}", lock.path().display()));
                }
                Ok(lock)
            }
        }
    }

    /// A VE by number.
    ///
    /// # Errors
    /// When its config cannot be read.
    pub fn ve(&self, ctid: Ctid) -> Result<Ve<'_>> {
        Ok(Ve { node: self, ctid, config: self.global.for_ve(ctid)? })
    }

    /// `TEMPLATE/base`: unpacked templates.
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.global.template_dir().join("base")
    }
}

/// A program that is not for people: beside `program`, or where `make install` puts such.
#[must_use]
pub fn helper(program: &Path, name: &str) -> PathBuf {
    let dir = program.parent().unwrap_or(Path::new("/usr/sbin"));
    let beside = [dir.join(name), dir.join("../lib/vz").join(name), dir.join("../libexec/vz").join(name)];
    let known = ["/usr/lib/vz", "/usr/libexec/vz"].map(|dir| Path::new(dir).join(name));
    beside.iter().chain(&known).find(|path| path.is_file()).unwrap_or(&known[0]).clone()
}

/// The layout of the private area of a VE that has this configuration.
pub(crate) fn layout_of(config: &Config, ctid: Ctid, private: &Path) -> Result<Layout> {
    use templates::layout::Wish;
    match config.own("VE_LAYOUT").map(str::parse::<Wish>) {
        Some(Ok(Wish::Only(layout))) => Ok(layout),
        Some(Err(error)) => Err(Error::refused(Exit::InvalidValue, error.to_string())),
        Some(Ok(Wish::Auto)) | None => {
            let cache = Cache::open(&config.template_dir());
            Ok(layout::detect(private, |base| cache.users(base).contains(&ctid))?)
        }
    }
}

/// One VE.
#[derive(Debug)]
pub struct Ve<'n> {
    /// The host.
    pub node: &'n Node,
    /// Its number.
    pub ctid: Ctid,
    /// Its configuration, all sources merged.
    pub config: Config,
}

impl<'n> Ve<'n> {
    /// The private area.
    ///
    /// # Errors
    /// Exit 23 when VE_PRIVATE is not set.
    pub fn private(&self) -> Result<PathBuf> {
        self.config.ve_private().ok_or_else(|| {
            Error::refused(Exit::VePrivateNotSet, "VE_PRIVATE is not set in the configuration")
        })
    }

    /// The private area, which must be there.
    ///
    /// # Errors
    /// Exit 23 or 43.
    pub fn existing_private(&self) -> Result<PathBuf> {
        let private = self.private()?;
        if private.is_dir() {
            return Ok(private);
        }
        let message = format!("Container private area {} does not exist", private.display());
        let hint = format!("Make it from a template with: vzctl create {}", self.ctid);
        Err(Error::advised(Exit::FsNoPrvt, message, hint))
    }

    /// Where the root is mounted.
    ///
    /// # Errors
    /// Exit 22 when VE_ROOT is not set.
    pub fn root(&self) -> Result<PathBuf> {
        self.config
            .ve_root()
            .ok_or_else(|| Error::refused(Exit::VeRootNotSet, "VE_ROOT is not set in the configuration"))
    }

    /// `/run/vz/CTID`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.node.paths.run_dir(self.ctid)
    }

    /// The state of the VE if it runs.
    #[must_use]
    pub fn running(&self) -> Option<State> {
        State::load(&self.run_dir()).filter(State::alive)
    }

    /// The same, or the refusal that everybody knows.
    ///
    /// # Errors
    /// Exit 31.
    pub fn must_run(&self) -> Result<State> {
        self.running().ok_or_else(|| Error::refused(Exit::VeNotRunning, "Container is not running"))
    }

    /// Whether its root is mounted.
    #[must_use]
    pub fn mounted(&self) -> bool {
        self.config.ve_root().is_some_and(|root| is_mount_point(&root))
    }

    /// The layout of its private area: what its own configuration says, else what the host knows of it.
    /// `VE_LAYOUT` of `vz.conf` is a wish for new VEs and says nothing about this one.
    ///
    /// # Errors
    /// Exit 21 for a word that is none, 50 for an area that may be one of two.
    pub fn layout(&self, private: &Path) -> Result<Layout> {
        layout_of(&self.config, self.ctid, private)
    }

    /// What `vzctl status` says.
    #[must_use]
    pub fn status(&self) -> Status {
        let private = self.config.ve_private().is_some_and(|path| path.is_dir());
        let running = self.running().is_some();
        Status {
            ctid: self.ctid,
            exists: private && self.config.exists(),
            mounted: self.mounted(),
            running,
            suspended: !running && self.config.dump_file().is_some_and(|path| path.exists()),
        }
    }

    /// A line of progress.
    pub fn say(&self, level: i32, text: &str) {
        (self.node.say)(level, text);
    }
}
