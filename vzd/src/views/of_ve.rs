//! A VE's own files: those of ours by fixed numbers, and the host's of its processors.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use ve::monitor::Charge;
use ve::views::{PROCESSORS, Part, Processors, View, Views};

use super::files::{Bell, Files, Kind, ROOT};
use super::wire::{Attributes, S_IFDIR, S_IFLNK, S_IFREG};

/// When the load is counted at the latest.
const START: Duration = Duration::from_secs(1);
/// Numbers of what is below the directory of processors.
const SYSFS: u64 = 1 << 63;

#[derive(Debug)]
struct Node {
    parent: u64,
    name: String,
    kind: Kind<View>,
}

/// A file that says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shown {
    View(View),
    /// One of the host's, by its number.
    OfProcessors(u64),
}

/// All nodes of a VE; a node's number is its place, and one more.
#[derive(Debug)]
pub(super) struct VeFiles {
    nodes: Vec<Node>,
    /// The directory of processors, and the paths of what was found there, by their numbers.
    processors: u64,
    paths: BTreeMap<u64, String>,
    charge: Charge,
    /// Made when they are first needed: the VE waits for its first answers while it starts.
    views: Option<Views>,
    begun: Instant,
    limits: Bell,
}

impl VeFiles {
    /// The time of the lock says when its limits were changed.
    pub(super) fn new(charge: &Charge, lock: Option<&File>) -> Self {
        let root = Node { parent: ROOT, name: String::new(), kind: Kind::Directory };
        let mut files = Self {
            nodes: vec![root],
            processors: 0,
            paths: BTreeMap::new(),
            charge: charge.clone(),
            views: None,
            begun: Instant::now(),
            limits: Bell::new(lock),
        };
        for view in View::ALL {
            files.add(ROOT, view.name(), Kind::File(view));
        }
        files.add(ROOT, "user_beancounters", Kind::File(View::UserBeancounters));
        let bc = files.add(ROOT, "bc", Kind::Directory);
        files.add(bc, "resources", Kind::File(View::BcResources));
        let own = files.add(bc, &charge.ctid.to_string(), Kind::Directory);
        files.add(own, "resources", Kind::File(View::Resources));
        files.processors = files.add(ROOT, PROCESSORS, Kind::Directory);
        files
    }

    fn add(&mut self, parent: u64, name: &str, kind: Kind<View>) -> u64 {
        self.nodes.push(Node { parent, name: name.to_owned(), kind });
        self.nodes.len() as u64
    }

    fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Node)> {
        (ROOT..).zip(&self.nodes).skip(1)
    }

    fn make(&mut self) -> Option<&mut Views> {
        if self.views.is_none() {
            self.views = Views::new(&self.charge);
        }
        self.views.as_mut()
    }

    fn sysfs(&mut self) -> Option<Processors> {
        self.make().map(|views| views.processors())
    }

    /// The path below the directory of processors; `None` for everything else.
    fn path(&mut self, node: u64) -> Option<String> {
        if node == self.processors {
            return Some(String::new());
        }
        if node & SYSFS == 0 {
            return None;
        }
        if !self.paths.contains_key(&node) {
            self.recall(node);
        }
        self.paths.get(&node).cloned()
    }

    /// Looks for a number that another of us gave out, who has died since.
    fn recall(&mut self, node: u64) {
        let Some(sysfs) = self.sysfs() else { return };
        let mut left = vec![String::new()];
        while let Some(directory) = left.pop() {
            for (name, part) in sysfs.below(&directory) {
                let path = join(&directory, &name);
                if number(&path) == node {
                    self.paths.insert(node, path);
                    return;
                }
                left.extend((part == Part::Directory).then_some(path));
            }
        }
    }

    fn know(&mut self, path: String) -> u64 {
        let node = number(&path);
        self.paths.insert(node, path);
        node
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The same in all of us: the kernel keeps it beyond the one that gave it out.
fn number(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    SYSFS | hasher.finish()
}

impl Files for VeFiles {
    type File = Shown;

    fn kind(&mut self, node: u64) -> Option<Kind<Shown>> {
        if let Some(path) = self.path(node) {
            return self.sysfs()?.part(&path).map(|part| match part {
                Part::Directory => Kind::Directory,
                Part::File => Kind::File(Shown::OfProcessors(node)),
                Part::Link => Kind::Link,
            });
        }
        self.node(node).map(|node| match node.kind {
            Kind::File(view) => Kind::File(Shown::View(view)),
            Kind::Directory => Kind::Directory,
            Kind::Link => Kind::Link,
        })
    }

    fn attributes(&mut self, node: u64) -> Option<Attributes> {
        let mode = match self.kind(node)? {
            Kind::Directory if node == ROOT => S_IFDIR | 0o500,
            Kind::Directory => S_IFDIR | 0o555,
            Kind::File(Shown::View(view)) if view.is_secret() => S_IFREG | 0o400,
            Kind::File(_) => S_IFREG | 0o444,
            Kind::Link => S_IFLNK | 0o777,
        };
        // Processors come and go by `vzctl set`, and the host's own too.
        Some(Attributes { node, mode, owner: self.charge.base, lasting: node & SYSFS == 0 })
    }

    fn find(&mut self, parent: u64, name: &[u8]) -> Option<u64> {
        if let Some(directory) = self.path(parent) {
            let path = join(&directory, std::str::from_utf8(name).ok()?);
            return self.sysfs()?.part(&path).map(|_| self.know(path));
        }
        let is = |node: &Node| node.parent == parent && node.name.as_bytes() == name;
        self.numbered().find(|(_, node)| is(node)).map(|(number, _)| number)
    }

    fn below(&mut self, parent: u64) -> Vec<(u64, String)> {
        if let Some(directory) = self.path(parent) {
            let names = self.sysfs().map(|sysfs| sysfs.below(&directory)).unwrap_or_default();
            return names.into_iter().map(|(name, _)| (self.know(join(&directory, &name)), name)).collect();
        }
        let inside = self.numbered().filter(|(_, node)| node.parent == parent);
        inside.map(|(number, node)| (number, node.name.clone())).collect()
    }

    fn target(&mut self, node: u64) -> Option<String> {
        let path = self.path(node)?;
        self.sysfs()?.target(&path)
    }

    fn text(&mut self, file: Shown) -> String {
        let text = match file {
            Shown::View(view) => self.make().map(|views| views.text(view)),
            Shown::OfProcessors(node) => self.path(node).and_then(|path| self.sysfs()?.text(&path)),
        };
        text.unwrap_or_default()
    }

    fn changed(&mut self) -> bool {
        self.limits.rings()
    }

    fn left(&self) -> Option<Duration> {
        self.views.as_ref().map_or(Some(START), Views::left)
    }

    fn tick(&mut self) {
        let due = self.views.is_some() || self.begun.elapsed() >= START;
        if due && let Some(views) = self.make() {
            views.tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vzsys::process::ProcRef;

    #[test]
    fn names_lead_to_files_and_back() {
        let init = ProcRef { pid: 1, start_time: 1 };
        let charge = Charge { ctid: 101, run_dir: "/nowhere".into(), init, base: 7, load: true };
        let mut files = VeFiles::new(&charge, None);
        let meminfo = files.find(ROOT, b"meminfo").unwrap();
        assert_eq!(files.kind(meminfo), Some(Kind::File(Shown::View(View::Meminfo))));
        assert_eq!(files.attributes(meminfo).unwrap().mode, S_IFREG | 0o444);
        let bc = files.find(ROOT, b"bc").unwrap();
        let own = files.find(bc, b"101").unwrap();
        let resources = files.find(own, b"resources").unwrap();
        let of = files.attributes(resources).unwrap();
        assert_eq!((of.node, of.mode, of.owner), (resources, S_IFREG | 0o400, 7));
        assert_eq!(
            (files.find(ROOT, b"nosuch"), files.find(meminfo, b"x"), files.kind(0)),
            (None, None, None)
        );
        assert!(files.below(ROOT).iter().all(|(number, _)| *number != ROOT));
    }

    #[test]
    fn whoever_goes_on_knows_the_numbers_that_another_gave_out() {
        let (one, other) = (number("cpu0/topology/core_id"), number("cpu0/topology/core_id"));
        assert_eq!(one, other);
        assert!(one & SYSFS != 0 && one != number("cpu1/topology/core_id"));
        assert_eq!((join("", "cpu0"), join("cpu0", "online")), ("cpu0".into(), "cpu0/online".into()));
    }
}
