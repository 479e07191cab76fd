//! A throw-away host.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ctid::BLOCK;
use crate::run::{Background, Run, command, run};
use crate::template;
use crate::ve::Ve;

/// How many lines of a node's log are shown when its test fails.
const LAST: usize = 40;

/// A host that exists for one test.
#[derive(Debug)]
pub struct Node {
    dir: PathBuf,
    first: u32,
    bin: PathBuf,
    /// The first process of a second host; none for the one that the test runs on.
    within: Option<i32>,
}

impl Node {
    pub(crate) fn new(dir: PathBuf, first: u32) -> Self {
        Self { dir, first, bin: bin_dir(), within: None }
    }

    /// Another host, entered through its first process. Its VEs have the same numbers.
    pub(crate) fn second(&self, init: i32) -> Self {
        let (dir, bin) = (self.dir.join("second"), self.bin.clone());
        Self { dir, first: self.first, bin, within: Some(init) }
    }

    /// Whether it is another host than the one that the test runs on.
    #[must_use]
    pub fn is_second(&self) -> bool {
        self.within.is_some()
    }

    /// The first process of a second host.
    pub(crate) fn first_process(&self) -> Option<i32> {
        self.within
    }

    /// Where the test finds a file of this host.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.within
            .map_or_else(|| PathBuf::from(path), |init| PathBuf::from(format!("/proc/{init}/root{path}")))
    }

    /// A program of this host with arguments, not started; one under test by its name.
    #[must_use]
    pub fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        match self.within {
            None => command(program, arguments),
            Some(init) => {
                let mut words = crate::pair::enter(init);
                words.push(program.display().to_string());
                words.extend(arguments.iter().map(|word| (*word).to_owned()));
                command(&words[0], &words[1..].iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }

    /// A directory that goes with the node, on the host's disk.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty directory for the test's own files, `/run/scratch`.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        PathBuf::from("/run/scratch")
    }

    /// The first of the node's CTIDs.
    #[must_use]
    pub fn first_ctid(&self) -> u32 {
        self.first
    }

    /// A CTID of this node; nobody else on the host uses it.
    ///
    /// # Panics
    /// When the node has no such number.
    #[must_use]
    pub fn ve(&self, number: u32) -> Ve<'_> {
        assert!(number < BLOCK);
        Ve::new(self, (self.first + number).to_string())
    }

    /// A VE of the tiny template, created.
    #[must_use]
    #[track_caller]
    pub fn tiny(&self, number: u32) -> Ve<'_> {
        template::tiny(self);
        let ve = self.ve(number);
        ve.ok("create", &["--ostemplate", "tiny"]);
        ve
    }

    /// A VE of the tiny template whose files lie in a plain directory (`simfs`), above the template (`overlay`), in an
    /// image (`ploop`), above the template in an image (`image`) or in a subvolume (`btrfs`).
    #[must_use]
    #[track_caller]
    pub fn with_layout(&self, number: u32, layout: &str) -> Ve<'_> {
        self.need_tiny();
        let ve = self.ve(number);
        // Where limits are kept by images, these two must not have any.
        self.set_conf("DISK_QUOTA", if ["overlay", "simfs"].contains(&layout) { "no" } else { "yes" });
        let word = if layout == "image" { "overlay" } else { layout };
        ve.ok("create", &["--ostemplate", "tiny", "--layout", word, "--diskspace", "128M"]);
        ve
    }

    /// Puts the tiny template into the cache.
    pub fn need_tiny(&self) {
        template::tiny(self);
    }

    /// Puts a template that `vztmpl build` makes into the cache; built once, which takes minutes. `false`,
    /// with a `SKIP:` line, when it cannot be built here.
    #[must_use]
    pub fn has_template(&self, name: &str) -> bool {
        template::built(self, name, &[])
    }

    /// The same of one that is built with these options.
    #[must_use]
    pub fn has_template_of(&self, name: &str, options: &[&str]) -> bool {
        template::built(self, name, options)
    }

    /// A program under test.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// `vzctl` with arguments, not started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("vzctl", arguments)
    }

    /// Runs `vzctl`.
    #[track_caller]
    pub fn vzctl(&self, arguments: &[&str]) -> Run {
        self.start_vzctl(arguments).finish()
    }

    /// Starts `vzctl`.
    #[must_use]
    #[track_caller]
    pub fn start_vzctl(&self, arguments: &[&str]) -> Background {
        Background::spawn(self.command(arguments), &[])
    }

    /// Runs `vzlist`.
    #[track_caller]
    pub fn vzlist(&self, arguments: &[&str]) -> Run {
        run(self.program("vzlist"), arguments)
    }

    /// Runs `vztmpl`.
    #[track_caller]
    pub fn vztmpl(&self, arguments: &[&str]) -> Run {
        run(self.program("vztmpl"), arguments)
    }

    /// Sets a parameter of vz.conf.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set_conf(&self, key: &str, value: &str) {
        let path = self.path("/etc/vz/vz.conf");
        let text = fs::read_to_string(&path).unwrap();
        let prefix = format!("{key}=");
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&prefix)).collect();
        fs::write(path, format!("{}\n{key}=\"{value}\"\n", kept.join("\n"))).unwrap();
    }

    /// Writes an executable file into `/etc/vz/conf` for the time of a value.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn script(&self, name: &str, text: &str) -> Script {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("/etc/vz/conf").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Script(path)
    }

    /// What the programs logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("/var/log/vzctl.log")).unwrap_or_default()
    }

    /// Runs a test's body; when it fails, what the node knows is printed beside it: its log is gone with it.
    pub(crate) fn witness(&self, body: impl FnOnce()) {
        let Err(cause) = catch_unwind(AssertUnwindSafe(body)) else { return };
        let states = self.vzlist(&["-a"]).to_string();
        let log = self.log();
        let last: Vec<&str> = log.lines().rev().take(LAST).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        eprintln!("the containers then: {states}\nthe end of the node's log:\n{}", last.join("\n"));
        resume_unwind(cause)
    }

    /// The CTIDs that have a configuration.
    fn configured(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("/etc/vz/conf")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".conf").map(str::to_owned)).collect()
    }

    pub(crate) fn destroy_all(&self) {
        for id in self.configured() {
            self.vzctl(&["stop", &id, "--fast"]).ok();
            let umounted = self.vzctl(&["umount", &id]);
            assert!([0, 40].contains(&umounted.code), "{umounted}");
            self.vzctl(&["destroy", &id]).ok();
        }
    }
}

/// An action script; removed on drop.
#[derive(Debug)]
pub struct Script(PathBuf);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Where the programs under test are: `VZ_BIN_DIR`, or the newer of what the profiles made.
fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("VZ_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target");
    let built = |path: &PathBuf| fs::metadata(path.join("vzctl")).and_then(|meta| meta.modified()).ok();
    let triple = target.join("x86_64-unknown-linux-gnu");
    let dirs = [triple.join("release"), triple.join("debug"), target.join("release"), target.join("debug")];
    let newest = dirs.into_iter().filter(|dir| built(dir).is_some()).max_by_key(built);
    newest.expect("the programs are built: cargo build --workspace --bins")
}
