//! One VE of a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::Node;
use crate::pty::Pty;
use crate::run::{Background, Run};
use crate::wait::until;

/// How long a tiny VE may take to be usable.
const UP: Duration = Duration::from_secs(30);

/// A VE by its number; it need not exist.
#[derive(Debug, Clone)]
pub struct Ve<'n> {
    /// Its host.
    pub node: &'n Node,
    /// Its CTID.
    pub id: String,
}

impl<'n> Ve<'n> {
    pub(crate) fn new(node: &'n Node, id: String) -> Self {
        Self { node, id }
    }

    /// The arguments of `vzctl VERB CTID ...`.
    fn words<'a>(&'a self, verb: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        [verb, &self.id].into_iter().chain(rest.iter().copied()).collect()
    }

    /// Runs `vzctl VERB CTID ...`.
    #[track_caller]
    pub fn run(&self, verb: &str, rest: &[&str]) -> Run {
        self.node.vzctl(&self.words(verb, rest))
    }

    /// The same; it must succeed.
    #[track_caller]
    pub fn ok(&self, verb: &str, rest: &[&str]) -> Run {
        self.run(verb, rest).ok()
    }

    /// The same, started only, with something to read.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, verb: &str, rest: &[&str], input: &[u8]) -> Background {
        Background::spawn(self.node.command(&self.words(verb, rest)), input)
    }

    /// The same, which kills itself at a fault point if it comes by.
    #[track_caller]
    pub fn fault(&self, point: &str, verb: &str, rest: &[&str]) -> Run {
        let mut command = self.node.command(&self.words(verb, rest));
        command.env("VZ_FAULT", point);
        Background::spawn(command, &[]).finish()
    }

    /// The same at a terminal.
    #[must_use]
    pub fn at_terminal(&self, verb: &str, rest: &[&str]) -> Pty {
        Pty::spawn(&self.node.command(&self.words(verb, rest)))
    }

    /// Starts it and waits until a command can be run in it.
    #[track_caller]
    pub fn start(&self) {
        self.ok("start", &[]);
        self.wait_up();
    }

    /// Waits until a command can be run in it.
    #[track_caller]
    pub fn wait_up(&self) {
        let mut last = String::new();
        let up = crate::wait::holds(UP, || {
            let run = self.run("exec2", &["true"]);
            last = run.to_string();
            run.code == 0
        });
        assert!(up, "VE {} does not come up; the last try:\n{last}", self.id);
    }

    /// Runs a command line in it; what it prints, without the last newline. The command must succeed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.ok("exec2", &[line]).out().trim_end_matches('\n').to_owned()
    }

    /// Destroys it: stopped by force if it runs.
    #[track_caller]
    pub fn destroy(&self) {
        self.ok("stop", &["--fast"]);
        self.ok("destroy", &[]);
    }

    /// The words after `CTID <id>` of its status.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> String {
        let line = self.ok("status", &[]).out();
        let prefix = format!("CTID {} ", self.id);
        line.strip_prefix(&prefix).unwrap_or_else(|| panic!("{line:?}")).trim_end_matches('\n').to_owned()
    }

    /// Fails unless its status is this, after `CTID <id>`.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn is(&self, status: &str) {
        assert_eq!(self.status(), status, "CTID {}", self.id);
    }

    /// Waits until its status is this.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        until(&format!("CTID {} is {status}", self.id), UP, || self.status() == status);
    }

    /// Its configuration file.
    #[must_use]
    pub fn conf_path(&self) -> PathBuf {
        self.node.path("/etc/vz/conf").join(format!("{}.conf", self.id))
    }

    /// The text of its configuration.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn conf(&self) -> String {
        fs::read_to_string(self.conf_path()).unwrap()
    }

    /// Adds lines to its configuration.
    ///
    /// # Panics
    /// When it has none.
    pub fn add_conf(&self, lines: &str) {
        fs::write(self.conf_path(), format!("{}\n{lines}\n", self.conf())).unwrap();
    }

    /// The value of a key of its configuration, without quotes.
    #[must_use]
    #[track_caller]
    pub fn conf_value(&self, key: &str) -> Option<String> {
        let prefix = format!("{key}=");
        let text = self.conf();
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix))?;
        Some(value.trim_matches('"').to_owned())
    }

    /// Its private area.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.node.path("/vz/private").join(&self.id)
    }

    /// Where its root is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.node.path("/vz/root").join(&self.id)
    }

    /// Writes a file of a stopped VE, by mounting it; `path` is relative to its root.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        self.ok("mount", &[]);
        fs::write(self.root().join(path), text).unwrap();
        self.ok("umount", &[]);
    }

    /// Reads one; `None` where there is none.
    ///
    /// # Panics
    /// When the VE cannot be mounted.
    #[must_use]
    #[track_caller]
    pub fn read(&self, path: &str) -> Option<String> {
        self.ok("mount", &[]);
        let text = fs::read_to_string(self.root().join(path)).ok();
        self.ok("umount", &[]);
        text
    }

    /// What df says inside of its root: all, used and available, in KiB (`-k`) or inodes (`-i`).
    ///
    /// # Panics
    /// When it says anything else.
    #[must_use]
    #[track_caller]
    pub fn df(&self, option: &str) -> [u64; 3] {
        let line = self.sh(&format!("df {option} / | tail -n 1"));
        let words: Vec<&str> = line.split_whitespace().collect();
        // Busybox breaks the line after a long name of a device.
        let number =
            |behind: usize| words.get(words.len().wrapping_sub(behind)).and_then(|word| word.parse().ok());
        [5, 4, 3].map(|behind| number(behind).unwrap_or_else(|| panic!("{line}")))
    }

    fn state(&self) -> Option<serde_json::Value> {
        let text = fs::read(self.node.path(&format!("/run/vz/{}/state.json", self.id))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// A file of it as the host reaches it, without a process of the VE.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn from_outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init().unwrap()))
    }

    /// The processes that serve its views.
    ///
    /// # Panics
    /// When the host's processes cannot be listed.
    #[must_use]
    pub fn view_servers(&self) -> BTreeSet<i32> {
        let name = format!("vzviews {}", self.id);
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| name.starts_with(comm.trim_end()))
        };
        pids.filter(ours).collect()
    }

    /// The pid of its init on the host, if it is known.
    #[must_use]
    pub fn init(&self) -> Option<i32> {
        i32::try_from(self.state()?["init"]["pid"].as_i64()?).ok()
    }

    /// The pid of its monitor.
    #[must_use]
    pub fn monitor(&self) -> Option<i32> {
        i32::try_from(self.state()?["monitor"]["pid"].as_i64()?).ok()
    }

    /// Its cgroup of each hierarchy, and all below them. Those of other VEs may come and go meanwhile.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let (own, mut found) = (format!("vz/{}", self.id), Vec::new());
        let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = left.pop() {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            left.extend(
                entries.filter(|entry| entry.file_type().is_ok_and(|of| of.is_dir())).map(|e| e.path()),
            );
            if dir.ancestors().any(|above| above.ends_with(&own)) {
                found.push(dir);
            }
        }
        found
    }

    /// The first of its host uids; none when it is privileged or has not been started.
    #[must_use]
    pub fn base(&self) -> Option<u32> {
        u32::try_from(self.state()?["ids"]["base"].as_u64()?).ok()
    }

    /// The name of the host's end of its routed device.
    #[must_use]
    pub fn venet(&self) -> String {
        format!("venet{}", self.id)
    }
}
