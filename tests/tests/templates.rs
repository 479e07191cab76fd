//! Templates from outside: where they come from, and that nothing is lost on the way to a VE and back.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use vztests::{Node, Ve, on_node, run};

/// What unpacking and packing must keep, as commands of the VE can make and see it.
const AWKWARD: &str = "cd /root && mkdir -m 3771 dir && echo x > dir/file && ln dir/file hard && ln -s ../dir/file soft \
    && mkfifo -m 600 fifo && chown 1234:4321 dir/file && chmod 4755 dir/file \
    && dd if=/dev/zero of=sparse bs=1 count=1 seek=10485760 2>/dev/null && touch -d '2001-02-03 04:05:06' old";
const SEEN: &str = "cd /root && stat -c '%n %F %a %u:%g %h %s' dir dir/file hard soft fifo sparse \
    && stat -c %Y old && readlink soft && [ $(du -k sparse | cut -f1) -lt 100 ] && echo sparse";

fn json(node: &Node, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&node.vztmpl(arguments).ok().stdout).unwrap()
}

fn made_from<'n>(node: &'n Node, number: u32, template: &str) -> Ve<'n> {
    let ve = node.ve(number);
    ve.ok("create", &["--ostemplate", template]);
    ve.start();
    ve
}

#[test]
fn a_template_of_a_ve_running_or_stopped_makes_the_same_ve_again() {
    on_node(|node| {
        for (layout, sample, number) in
            [("overlay", "free", 1), ("simfs", "free", 11), ("overlay", "basic", 21), ("ploop", "basic", 31)]
        {
            node.need_tiny();
            let ve = node.ve(number);
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--config", sample]);
            ve.start();
            ve.sh(AWKWARD);
            ve.sh("echo ram > /run/ram; echo shm > /dev/shm/shm; rm -f /etc/issue");
            let seen = ve.sh(SEEN);
            let (hot, cold) = (format!("hot-{layout}"), format!("cold-{layout}"));
            node.vztmpl(&["create", &ve.id, &hot]).ok();
            ve.is("exist mounted running");
            ve.ok("stop", &[]);
            node.vztmpl(&["create", &ve.id, &cold]).ok();
            ve.is("exist unmounted down");
            for (step, name) in [hot, cold].iter().enumerate() {
                let info = json(node, &["info", name, "--json"]);
                assert_eq!(info["origin"], format!("container {}", ve.id), "{info}");
                node.vztmpl(&["verify", name]).ok().says("OK");
                let copy = made_from(node, number + 1 + u32::try_from(step).unwrap(), name);
                assert_eq!(copy.sh(SEEN), seen, "{name}");
                assert_eq!(copy.sh("ls -A /run/ram /dev/shm/shm /etc/issue 2>/dev/null | wc -l"), "0");
                copy.destroy();
                node.vztmpl(&["rm", name]).ok();
            }
        }
    });
}

#[test]
fn a_stopped_ve_is_not_started_while_it_is_read_and_its_owner_is_no_way_out() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        // What the root directory says of its owner is the VE's own word.
        ve.sh("echo mine > /root/file; chown 1000:1000 /");
        node.vztmpl(&["create", &ve.id, "copy"]).ok();
        let copy = made_from(node, 2, "copy");
        assert_eq!(copy.sh("stat -c %u:%g /root/file /; cat /root/file"), "0:0\n1000:1000\nmine");
        ve.ok("stop", &["--fast"]);
        let lock = fs::File::create(format!("/vz/lock/{}.lck", ve.id)).unwrap();
        std::io::Write::write_all(&mut &lock, format!("{}\n", std::process::id()).as_bytes()).unwrap();
        node.vztmpl(&["create", &ve.id, "locked"]).exits(9).says("locked");
        fs::remove_file(format!("/vz/lock/{}.lck", ve.id)).unwrap();
    });
}

#[test]
fn every_compression_and_a_directory_can_be_imported() {
    on_node(|node| {
        node.need_tiny();
        let tree = node.scratch().join("tree");
        fs::create_dir(&tree).unwrap();
        let tree = tree.to_str().unwrap().to_owned();
        run("tar", &["-C", &tree, "-xf", "/vz/template/cache/tiny.tar.zst", "--zstd"]).ok();
        node.vztmpl(&["import", &tree, "from-dir"]).ok().says("Template from-dir is ready");
        let mut names = vec!["from-dir".to_owned()];
        for (flag, suffix) in [
            ("--posix", "tar"),
            ("--gzip", "tar.gz"),
            ("--bzip2", "tar.bz2"),
            ("--xz", "tar.xz"),
            ("--zstd", "tar.zst"),
        ] {
            let name = format!("from-{}", suffix.replace('.', "-"));
            let archive = node.scratch().join(format!("{name}.{suffix}"));
            let archive = archive.to_str().unwrap();
            run("tar", &[flag, "--numeric-owner", "-C", &tree, "-cf", archive, "."]).ok();
            node.vztmpl(&["import", archive, &name]).ok();
            assert!(Path::new("/vz/template/cache").join(format!("{name}.{suffix}")).exists(), "{name}");
            names.push(name);
        }
        let list = json(node, &["list", "--json"]);
        for name in &names {
            let known = list.as_array().unwrap().iter().find(|known| known["name"] == name.as_str());
            let known = known.unwrap_or_else(|| panic!("{name} is missing in {list}"));
            for field in ["distribution", "version", "arch", "size", "sha256", "date", "packages", "origin"] {
                assert!(known.get(field).is_some(), "{name} has no {field}: {known}");
            }
            let ve = made_from(node, 3, name);
            assert_eq!(ve.sh("echo works"), "works");
            ve.destroy();
        }
    });
}

#[test]
fn a_template_in_use_stays_until_its_last_ve_is_gone() {
    on_node(|node| {
        let ve = node.tiny(1);
        node.vztmpl(&["rm", "tiny"]).exits(3).says(&ve.id);
        node.vztmpl(&["rm", "tiny", "--force"]).ok();
        ve.start();
        assert_eq!(ve.sh("echo alive"), "alive");
        let bases = || fs::read_dir("/vz/template/base").unwrap().count();
        assert_ne!(bases(), 0);
        ve.destroy();
        vztests::until("the unpacked template is gone", std::time::Duration::from_secs(10), || bases() == 0);
    });
}

#[test]
fn a_broken_archive_makes_no_template_and_no_ve() {
    on_node(|node| {
        node.need_tiny();
        let whole = fs::read("/vz/template/cache/tiny.tar.zst").unwrap();
        let (half, odd) = (node.scratch().join("half.tar.zst"), node.scratch().join("odd.tar.gz"));
        fs::write(&half, &whole[..whole.len() / 2]).unwrap();
        fs::write(&odd, "this is no archive").unwrap();
        let before = fs::read_dir("/vz/template/cache").unwrap().count();
        for file in [&half, &odd] {
            let import = node.vztmpl(&["import", file.to_str().unwrap(), "broken"]);
            assert_ne!(import.code, 0);
            import.says(file.to_str().unwrap());
        }
        assert_eq!(fs::read_dir("/vz/template/cache").unwrap().count(), before);
        // Put there by hand, as people do with OpenVZ's templates.
        fs::copy(&half, "/vz/template/cache/half.tar.zst").unwrap();
        node.vztmpl(&["verify", "half"]).exits(48);
        for (layout, sample) in [("overlay", "free"), ("simfs", "free"), ("ploop", "basic")] {
            let ve = node.ve(1);
            let create = ve.run("create", &["--ostemplate", "half", "--layout", layout, "--config", sample]);
            create.exits(48).says("Creation of container private area failed");
            ve.is("deleted unmounted down");
            assert!(!ve.private().exists() && !ve.conf_path().exists());
        }
        assert_eq!(fs::read_dir("/vz/template/base").unwrap().count(), 0);
    });
}
