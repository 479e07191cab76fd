//! The harness itself: a node is a host of its own, and nothing of it stays.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use vztests::{World, fault_points, on_node, run};

#[test]
fn a_node_has_its_own_files_network_and_processes() {
    on_node(|node| {
        assert_eq!(run("hostname", &[]).ok().out(), "node.test\n");
        assert!(Path::new("/etc/vz/conf/ve-basic.conf-sample").exists());
        assert!(fs::read_dir("/vz/private").unwrap().next().is_none());
        let links = run("ip", &["-o", "link"]).ok().out();
        assert_eq!(links.lines().count(), 1, "{links}");
        assert_eq!(
            fs::read_link("/proc/self").unwrap().to_str(),
            Some(std::process::id().to_string().as_str())
        );
        run("ping", &["-q", "-c", "1", "-W", "2", "10.99.0.1"]).ok();
        assert!(node.first_ctid() > 1000);
    });
}

#[test]
fn a_world_sees_what_is_left_behind() {
    on_node(|node| {
        let before = World::take(node);
        assert_eq!(before.diff(&World::take(node)), "");
        run("ip", &["link", "add", "left0", "type", "veth", "peer", "name", "left1"]).ok();
        fs::write("/vz/left", "").unwrap();
        run("mount", &["-t", "tmpfs", "none", "/vz/dump"]).ok();
        run("nft", &["add", "table", "inet", "left"]).ok();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let diff = before.diff(&World::take(node));
        for left in ["left0", "/vz/left", "/vz/dump from", "table inet left", "sleep 1000"] {
            assert!(diff.contains(left), "{left} in\n{diff}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        run("umount", &["/vz/dump"]).ok();
        run("nft", &["delete", "table", "inet", "left"]).ok();
        run("ip", &["link", "delete", "left0"]).ok();
        fs::remove_file("/vz/left").unwrap();
        before.must_return(node);
    });
}

#[test]
fn the_source_has_fault_points_of_every_verb() {
    for verb in ["create", "start", "stop", "destroy"] {
        let points = fault_points(verb);
        assert!(points.len() >= 2, "{points:?}");
    }
}
