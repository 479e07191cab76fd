//! Everything that a VE may leave behind, as lines of text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::node::Node;
use crate::run::run;
use crate::wait::holds;
use crate::{ctid, inside};

/// How long background work (deletion) may go on after a verb.
const SETTLE: Duration = Duration::from_secs(20);

/// The directories that the programs keep for all VEs; they stay once they are made.
const HOMES: [&str; 27] = [
    TABLES,
    PROGRAMS,
    "/run/vz/bpf.lock",
    "/run/vz/proc.lock",
    "/run/vz/images",
    "/run/vz/overlays",
    "/run/vz/beancounters",
    "/etc/vz/names",
    "/vz/lock",
    "/vz/vztmp",
    "/vz/dump",
    "/vz/root",
    "/vz/private",
    "/var/lib/vzctl/lives",
    "/var/lib/vzctl/idmap",
    "/var/lib/vzctl/converting",
    "/var/lib/vzctl/creating",
    "/var/lib/vzctl/switching",
    "/var/lib/vzctl/veip",
    "/var/lib/vzctl/quota",
    "/var/lib/vzctl/vzubc",
    "/var/lib/vzctl/vzubc/failcnt",
    "/var/lib/vzctl/vzubc/held",
    "/vz/vztmp/rm.lck",
    "/var/lib/vzctl/migrate",
    "/var/lib/vzctl/migrate/owned",
    "/var/lib/vzctl/migrate/epochs",
];

/// Where the host's tables are served once a VE was started.
const TABLES: &str = "/run/vz/proc";
/// Where the programs are that count open files; as long.
const PROGRAMS: &str = "/run/vz/bpf";

/// A picture of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
}

impl World {
    /// The node as it is now.
    ///
    /// # Panics
    /// When it cannot be looked at.
    #[must_use]
    pub fn take(node: &Node) -> Self {
        let parts = [
            ("mounts", mounts()),
            ("links", lines("ip", &["-o", "link"])),
            ("addresses", lines("ip", &["-o", "address"])),
            ("routes", lines("ip", &["route", "show", "table", "all"])),
            ("routes6", lines("ip", &["-6", "route", "show", "table", "all"])),
            ("rules", lines("ip", &["rule"])),
            ("neighbours", lines("ip", &["neighbour", "show", "proxy"])),
            ("nftables", nftables(node)),
            (
                "cgroups",
                ctid::groups_of(node.first_ctid())
                    .iter()
                    .map(|dir| dir.display().to_string())
                    .filter(|dir| !dir.contains(&format!("/{}", inside::group_of_second(node.first_ctid()))))
                    .collect(),
            ),
            ("processes", processes()),
            ("files", files()),
        ];
        Self { parts: parts.into_iter().collect() }
    }

    /// What differs, one line each; empty when nothing does.
    #[must_use]
    pub fn diff(&self, after: &Self) -> String {
        let mut text = String::new();
        for (part, before) in &self.parts {
            let after = &after.parts[part];
            for line in before.difference(after) {
                text += &format!("  {part}: gone: {line}\n");
            }
            for line in after.difference(before) {
                text += &format!("  {part}: left: {line}\n");
            }
        }
        text
    }

    /// Waits until the node is as in this picture.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn must_return(&self, node: &Node) {
        let mut diff = String::new();
        let same = holds(SETTLE, || {
            diff = self.diff(&Self::take(node));
            diff.is_empty()
        });
        assert!(same, "the node is not as it was before:\n{diff}");
    }
}

fn lines(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let run = run(program, arguments);
    // "RTNETLINK answers: ... " of an empty table is no line of ours.
    run.out().lines().map(steady).collect()
}

/// Without what changes by itself: counters of time and generation.
fn steady(line: &str) -> String {
    let mut words = Vec::new();
    let mut skip = false;
    for word in line.split_whitespace() {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = matches!(word, "expires" | "valid_lft" | "preferred_lft");
        if !skip {
            words.push(word);
        }
    }
    words.join(" ")
}

/// The rule set. The product's own table may stay, but nothing in it of one of the node's VEs.
fn nftables(node: &Node) -> BTreeSet<String> {
    let ours = (node.first_ctid() / ctid::BLOCK).to_string();
    let text = run("nft", &["-s", "list", "ruleset"]).out();
    let mut own = false;
    let mut kept = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("table ") {
            own = line == "table inet vz {";
        }
        if !own || line.contains("elements") || line.contains(&ours) {
            kept.insert(line.trim().to_owned());
        }
    }
    kept
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = |line: &str| -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let kind = words.iter().position(|word| *word == "-")?;
        let point = words[4];
        // Templates, what the test mounted for itself, and the host's tables and programs, which stay.
        let own = ["/vz/template", "/run/scratch", TABLES, PROGRAMS].iter().any(|top| point.starts_with(top));
        (!own).then(|| format!("{point} from {} {}", words[3], words[kind + 1]))
    };
    table.lines().filter_map(line).collect()
}

/// All processes of the node but the test itself.
fn processes() -> BTreeSet<String> {
    let ours = std::process::id();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == 1 || pid == ours {
            continue;
        }
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let value = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim().to_owned()
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.trim().ends_with("vzmon proc") {
            continue;
        }
        found.insert(format!("{pid} {} ({}) [{}]", value("Name:"), value("State:"), command.trim()));
    }
    found
}

fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for top in ["/run/vz", "/var/lib/vzctl", "/etc/vz", "/vz"] {
        walk(Path::new(top), &mut found);
    }
    found
}

fn walk(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let text = path.display().to_string();
        // Templates and empty images stay; so does what `destroy` keeps for the admin.
        if text.starts_with("/vz/template")
            || text.starts_with("/run/vz/images/")
            || text.ends_with(".destroyed")
        {
            continue;
        }
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if !HOMES.contains(&text.as_str()) {
            found.insert(format!("{text} {:o}", meta.mode()));
        }
        // One line for a whole private area is enough.
        if text == TABLES || text == PROGRAMS {
            continue;
        }
        if meta.is_dir() && path.parent() != Some(Path::new("/vz/private")) {
            walk(&path, found);
        }
    }
}
