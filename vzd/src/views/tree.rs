//! The files, by fixed numbers.

use ve::views::View;

use super::wire::{Attributes, S_IFDIR, S_IFREG};

/// The number of the directory that holds all.
pub(super) const ROOT: u64 = 1;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(View),
}

#[derive(Debug)]
struct Node {
    parent: u64,
    name: String,
    kind: Kind,
}

/// All nodes of a VE; a node's number is its place, and one more.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    owner: u32,
}

impl Tree {
    /// Of this VE, whose root is the host's user `owner`.
    pub(super) fn new(ctid: u32, owner: u32) -> Self {
        let root = Node { parent: ROOT, name: String::new(), kind: Kind::Directory };
        let mut tree = Self { nodes: vec![root], owner };
        for view in View::ALL {
            tree.add(ROOT, view.name(), Kind::File(view));
        }
        tree.add(ROOT, "user_beancounters", Kind::File(View::UserBeancounters));
        let bc = tree.add(ROOT, "bc", Kind::Directory);
        tree.add(bc, "resources", Kind::File(View::BcResources));
        let own = tree.add(bc, &ctid.to_string(), Kind::Directory);
        tree.add(own, "resources", Kind::File(View::Resources));
        tree
    }

    fn add(&mut self, parent: u64, name: &str, kind: Kind) -> u64 {
        self.nodes.push(Node { parent, name: name.to_owned(), kind });
        self.nodes.len() as u64
    }

    fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(super) fn kind(&self, number: u64) -> Option<Kind> {
        self.node(number).map(|node| node.kind)
    }

    pub(super) fn is_file(&self, number: u64) -> bool {
        matches!(self.kind(number), Some(Kind::File(_)))
    }

    pub(super) fn attributes(&self, number: u64) -> Option<Attributes> {
        let mode = match self.node(number)?.kind {
            Kind::Directory if number == ROOT => S_IFDIR | 0o500,
            Kind::Directory => S_IFDIR | 0o555,
            Kind::File(view) if view.is_secret() => S_IFREG | 0o400,
            Kind::File(_) => S_IFREG | 0o444,
        };
        Some(Attributes { node: number, mode, owner: self.owner })
    }

    pub(super) fn find(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.below(parent).find(|(_, of)| of.as_bytes() == name).map(|(number, _)| number)
    }

    /// Numbers and names of what is in a directory, always in the same order.
    pub(super) fn below(&self, parent: u64) -> impl Iterator<Item = (u64, &str)> {
        let numbered = (ROOT..).zip(&self.nodes).skip(1);
        numbered
            .filter(move |(_, node)| node.parent == parent)
            .map(|(number, node)| (number, node.name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_and_back() {
        let tree = Tree::new(101, 7);
        let meminfo = tree.find(ROOT, b"meminfo").unwrap();
        assert_eq!(tree.kind(meminfo), Some(Kind::File(View::Meminfo)));
        assert_eq!(tree.attributes(meminfo).unwrap().mode, S_IFREG | 0o444);
        let own = tree.find(tree.find(ROOT, b"bc").unwrap(), b"101").unwrap();
        let resources = tree.find(own, b"resources").unwrap();
        assert_eq!(
            tree.attributes(resources).unwrap(),
            Attributes { node: resources, mode: S_IFREG | 0o400, owner: 7 }
        );
        assert_eq!((tree.find(ROOT, b"nosuch"), tree.find(meminfo, b"x"), tree.kind(0)), (None, None, None));
        assert!(tree.below(ROOT).all(|(number, _)| number != ROOT));
    }
}
