//! A VE's own files, by fixed numbers.

use std::fs::File;
use std::time::{Duration, Instant};

use ve::monitor::Charge;
use ve::views::{View, Views};

use super::files::{Bell, Files, Kind, ROOT};
use super::wire::{Attributes, S_IFDIR, S_IFREG};

/// When the load is counted at the latest.
const START: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Node {
    parent: u64,
    name: String,
    kind: Kind<View>,
}

/// All nodes of a VE; a node's number is its place, and one more.
#[derive(Debug)]
pub(super) struct VeFiles {
    nodes: Vec<Node>,
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
        let (begun, limits) = (Instant::now(), Bell::new(lock));
        let mut files = Self { nodes: vec![root], charge: charge.clone(), views: None, begun, limits };
        for view in View::ALL {
            files.add(ROOT, view.name(), Kind::File(view));
        }
        files.add(ROOT, "user_beancounters", Kind::File(View::UserBeancounters));
        let bc = files.add(ROOT, "bc", Kind::Directory);
        files.add(bc, "resources", Kind::File(View::BcResources));
        let own = files.add(bc, &charge.ctid.to_string(), Kind::Directory);
        files.add(own, "resources", Kind::File(View::Resources));
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
}

impl Files for VeFiles {
    type File = View;

    fn kind(&self, node: u64) -> Option<Kind<View>> {
        self.node(node).map(|node| node.kind)
    }

    fn attributes(&self, node: u64) -> Option<Attributes> {
        let mode = match self.node(node)?.kind {
            Kind::Directory if node == ROOT => S_IFDIR | 0o500,
            Kind::Directory => S_IFDIR | 0o555,
            Kind::File(view) if view.is_secret() => S_IFREG | 0o400,
            Kind::File(_) => S_IFREG | 0o444,
        };
        Some(Attributes { node, mode, owner: self.charge.base, lasting: true })
    }

    fn find(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let is = |node: &Node| node.parent == parent && node.name.as_bytes() == name;
        self.numbered().find(|(_, node)| is(node)).map(|(number, _)| number)
    }

    fn below(&self, parent: u64) -> Vec<(u64, String)> {
        let inside = self.numbered().filter(|(_, node)| node.parent == parent);
        inside.map(|(number, node)| (number, node.name.clone())).collect()
    }

    fn text(&mut self, file: View) -> String {
        self.make().map_or_else(String::new, |views| views.text(file))
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
        let files = VeFiles::new(&charge, None);
        let meminfo = files.find(ROOT, b"meminfo").unwrap();
        assert_eq!(files.kind(meminfo), Some(Kind::File(View::Meminfo)));
        assert_eq!(files.attributes(meminfo).unwrap().mode, S_IFREG | 0o444);
        let own = files.find(files.find(ROOT, b"bc").unwrap(), b"101").unwrap();
        let resources = files.find(own, b"resources").unwrap();
        let of = files.attributes(resources).unwrap();
        assert_eq!((of.node, of.mode, of.owner), (resources, S_IFREG | 0o400, 7));
        assert_eq!(
            (files.find(ROOT, b"nosuch"), files.find(meminfo, b"x"), files.kind(0)),
            (None, None, None)
        );
        assert!(files.below(ROOT).iter().all(|(number, _)| *number != ROOT));
    }
}
