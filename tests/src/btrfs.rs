//! A btrfs for tests of what only that can do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::inside::{on_node_named, test_name};
use crate::node::Node;
use crate::run::run;
use crate::{holds, skip};

/// Runs a test on a node whose `/vz` is a btrfs; the VEs that it makes go before that does.
pub fn on_btrfs<F: FnOnce(&Node)>(body: F) {
    on_node_named(test_name::<F>(), |node| {
        if let Some(disk) = Btrfs::new(node) {
            body(node);
            node.destroy_all();
            drop(disk);
        }
    });
}

/// A btrfs at `/vz`, for the time of a value.
#[derive(Debug)]
pub struct Btrfs;

impl Btrfs {
    /// `None`, after saying why, where the host has no btrfs.
    pub fn new(node: &Node) -> Option<Self> {
        node.need_tiny();
        if !Path::new("/usr/bin/mkfs.btrfs").exists() && !Path::new("/sbin/mkfs.btrfs").exists() {
            skip("mkfs.btrfs (package btrfs-progs)");
            return None;
        }
        let image = node.scratch().join("image");
        run("truncate", &["-s", "1G", image.to_str().unwrap()]).ok();
        run("mkfs.btrfs", &["-q", image.to_str().unwrap()]).ok();
        let keep = node.scratch().join("cache");
        run("cp", &["-a", "/vz/template/cache", keep.to_str().unwrap()]).ok();
        // What is deleted is free after a commit, which is every 30 seconds otherwise.
        if run("mount", &["-o", "loop,commit=1", image.to_str().unwrap(), "/vz"]).code != 0 {
            skip("loop devices and btrfs");
            return None;
        }
        for dir in ["root", "private", "template", "lock", "dump"] {
            fs::create_dir_all(Path::new("/vz").join(dir)).unwrap();
        }
        run("cp", &["-a", keep.to_str().unwrap(), "/vz/template/cache"]).ok();
        Some(Self)
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let mut done = run("umount", &["/vz"]);
        // A deletion may be at work in the background.
        holds(Duration::from_secs(20), || {
            if done.code != 0 {
                done = run("umount", &["/vz"]);
            }
            done.code == 0
        });
        if done.code != 0 && !std::thread::panicking() {
            panic!("/vz is still in use\n{done}");
        }
    }
}
