//! Other layouts and other sizes for the files of a VE, and nothing lost on the way.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use vztests::{Need, Node, Ve, World, fault_points, lacks, on_node, run};

/// Everything that a tree can have, made in a VE.
const AWKWARD: &str = "mkdir -p /root/dir; echo one > /root/dir/file; ln /root/dir/file /root/hard; ln -s dir/file /root/soft; \
    chown 1000:1001 /root/dir; chmod 2751 /root/dir; mkfifo /root/fifo; mknod /root/null c 1 3 2>/dev/null; \
    dd if=/dev/zero of=/root/sparse bs=1 count=1 seek=5000000 2>/dev/null; echo x | dd of=/root/big bs=1k seek=700 2>/dev/null; \
    chmod 4711 /root/hard; touch -d '2001-02-03 04:05:06' /root/dir/file; rm -f /etc/issue; echo changed >> /etc/hosts; \
    touch -d '2002-02-03 04:05:06' /etc/hosts; rm -rf /usr/share; ln -s nowhere /usr/share; \
    if [ -d /var/spool ]; then rm -rf /var/spool; echo file > /var/spool; fi; chmod 700 /opt 2>/dev/null; sync";

/// A stopped VE with an awkward tree, and attributes that only the host sets.
fn awkward<'n>(node: &'n Node, number: u32, rest: &[&str]) -> Ve<'n> {
    node.need_tiny();
    let ve = node.ve(number);
    ve.ok("create", &[&["--ostemplate", "tiny"], rest].concat());
    ve.start();
    ve.sh(AWKWARD);
    ve.ok("stop", &["--fast"]);
    ve.ok("mount", &[]);
    let file = |name: &str| ve.root().join("root").join(name).display().to_string();
    run("setfattr", &["-n", "user.note", "-v", "kept", &file("dir/file")]).ok();
    run("setfattr", &["-n", "user.dir", "-v", "kept", &file("dir")]).ok();
    run("setcap", &["cap_net_raw+ep", &file("big")]).ok();
    run("setfacl", &["-m", "u:1234:rw", &file("sparse")]).ok();
    run("setfacl", &["-d", "-m", "g:4321:rx", &file("dir")]).ok();
    ve.ok("umount", &[]);
    ve
}

/// All of a stopped VE's tree as text.
fn tree(ve: &Ve<'_>) -> String {
    ve.ok("mount", &[]);
    let script = format!(
        "cd {} && stat -c '%a %u %g' . && find . -mindepth 1 -path ./lost+found -prune \
         -o -type f -printf '%P f %m %U %G %s %T@ %n\\n' -o -type d -printf '%P d %m %U %G %T@\\n' \
         -o -printf '%P %y %m %U %G %T@ %l\\n' | sort; \
         find . -type f -print0 | sort -z | xargs -0 sha256sum; \
         find . ! -type f ! -type d ! -type l -exec stat -c '%n %t %T' {{}} + | sort; \
         find . -path ./lost+found -prune -o -print0 | xargs -0 -n 1 getfattr -hd -m- | paste -sd ' ' | sed 's/# file/\\n/g' | sed 's/ *$//' | sort",
        ve.root().display()
    );
    let text = run("sh", &["-c", &script]).ok().out();
    ve.ok("umount", &[]);
    text
}

#[track_caller]
fn same(before: &str, after: &str, what: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(before), lines(after));
    let gone: Vec<&String> = old.iter().filter(|line| !new.contains(line)).collect();
    let come: Vec<&String> = new.iter().filter(|line| !old.contains(line)).collect();
    assert!(gone.is_empty() && come.is_empty(), "{what}: gone: {gone:#?}\ncome: {come:#?}");
}

#[test]
fn every_layout_becomes_every_other_and_nothing_is_lost() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let ve = awkward(node, 1, &["--layout", "overlay", "--config", "free"]);
        ve.add_conf("DISKSPACE=\"200M:200M\"\nDISKINODES=\"30000:30000\"\nDISK_QUOTA=\"no\"");
        let before = tree(&ve);
        assert!(before.contains("cap_net_raw") || before.contains("security.capability"), "{before}");
        for (layout, quota) in [
            ("simfs", "no"),
            ("overlay", "no"),
            ("ploop", "yes"),
            ("overlay", "yes"),
            ("overlay", "no"),
            ("ploop", "no"),
            ("simfs", "no"),
            ("overlay", "yes"),
        ] {
            let conf: Vec<String> =
                ve.conf().lines().filter(|line| !line.starts_with("DISK_QUOTA")).map(str::to_owned).collect();
            fs::write(ve.conf_path(), format!("{}\nDISK_QUOTA=\"{quota}\"\n", conf.join("\n"))).unwrap();
            ve.ok("convert", &["--layout", layout]).says("was converted");
            assert_eq!(ve.conf_value("VE_LAYOUT").as_deref(), Some(layout));
            let by_image = (layout, quota) == ("overlay", "yes") && !Need::ProjectQuota.is_met();
            assert_eq!(ve.private().join("upper.img").exists(), by_image);
            same(&before, &tree(&ve), &format!("{layout}, quota {quota}"));
            ve.ok("convert", &["--layout", layout]).says("already on");
        }
        // What differs from the template is all that lies above it.
        let taken = run("du", &["-sk", ve.private().to_str().unwrap()]).out();
        let taken: u64 = taken.split_whitespace().next().unwrap().parse().unwrap();
        assert!(taken < 6000, "the upper layer takes {taken} KiB");
        ve.start();
        assert_eq!(ve.sh("cat /root/hard"), "one");
        ve.run("convert", &["--layout", "ploop"]).exits(32);
        ve.ok("stop", &["--fast"]);
        ve.ok("mount", &[]);
        ve.run("convert", &["--layout", "ploop"]).exits(41);
        ve.ok("umount", &[]);
        ve.run("convert", &["--layout", "zfs"]).exits(21);
        ve.run("convert", &["--layout", "simfs"]).exits(60);
    });
}

#[test]
fn a_convert_that_was_killed_leaves_the_old_or_the_new_one_whole() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let ve = awkward(node, 1, &["--layout", "overlay", "--diskspace", "100M"]);
        let before = tree(&ve);
        // What is kept of limits is another thing for either.
        let first = World::take(node);
        ve.ok("convert", &["--layout", "ploop"]);
        let worlds = [("ploop", World::take(node)), ("overlay", first)];
        ve.ok("convert", &["--layout", "overlay"]);
        let mut points = fault_points("convert");
        points.push("image.attached".to_owned());
        for (number, point) in points.iter().cycle().take(2 * points.len()).enumerate() {
            let now = ve.conf_value("VE_LAYOUT").unwrap();
            let other = if now == "ploop" { "overlay" } else { "ploop" };
            println!("{now} to {other}, killed at {point}");
            ve.fault(point, "convert", &["--layout", other]).exits(-9);
            match number % 3 {
                0 => {
                    ve.start();
                    ve.ok("stop", &["--fast"]);
                }
                1 => drop(ve.ok("convert", &["--layout", other])),
                _ => drop(ve.ok("mount", &[])),
            }
            ve.run("umount", &[]);
            same_but_run(&before, &tree(&ve), point);
            // What lies beside it is deleted in the background.
            let layout = ve.conf_value("VE_LAYOUT").unwrap();
            worlds.iter().find(|(of, _)| *of == layout).unwrap().1.must_return(node);
        }
        ve.fault("convert.copied", "convert", &["--layout", &other_of(&ve)]).exits(-9);
        ve.ok("destroy", &[]);
        assert!(!PathBuf::from(format!("{}.convert", ve.private().display())).exists());
    });
}

fn other_of(ve: &Ve<'_>) -> String {
    if ve.conf_value("VE_LAYOUT").unwrap() == "ploop" { "overlay".to_owned() } else { "ploop".to_owned() }
}

/// A start changes a little: what lies below `/root` and the programs stay.
#[track_caller]
fn same_but_run(before: &str, after: &str, what: &str) {
    let kept = |text: &str| -> String {
        let mine = |line: &&str| line.contains("root/") || line.contains("bin/");
        text.lines().filter(mine).map(|line| format!("{line}\n")).collect()
    };
    same(&kept(before), &kept(after), what);
}

/// The layouts whose files are in an image when they have a limit: where the file system keeps limits, only one.
fn by_image() -> Vec<&'static str> {
    if Need::ProjectQuota.is_met() { vec!["ploop"] } else { vec!["overlay", "ploop"] }
}

#[test]
fn diskspace_is_the_size_of_the_image_at_once() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in (1..).zip(by_image()) {
            let ve = awkward(node, number, &["--layout", layout, "--diskspace", "64M"]);
            ve.run("set", &["--diskspace", "80M"]).exits(20).says("--save");
            ve.ok("set", &["--diskspace", "300M", "--save"]).says("enlarged to 307200 KiB");
            ve.start();
            assert!((307_200..315_000).contains(&ve.df("-k")[0]), "{layout}: {}", ve.df("-k")[0]);
            ve.run("set", &["--diskspace", "70M", "--save"]).exits(154).says("stop the container");
            assert_eq!(ve.conf_value("DISKSPACE").as_deref(), Some("307200:307200"));
            let grown = ve.run("set", &["--diskspace", "400M", "--save"]);
            if grown.code == 0 {
                assert!(ve.df("-k")[0] >= 400 << 10, "{layout}: {}", ve.df("-k")[0]);
            } else {
                // Only with CAP_SYS_RESOURCE.
                grown.exits(154).says("CAP_SYS_RESOURCE");
                assert!((307_200..315_000).contains(&ve.df("-k")[0]));
            }
            ve.ok("stop", &["--fast"]);
            let before = tree(&ve);
            ve.ok("set", &["--diskspace", "50M", "--save"]).says("reduced to 51200 KiB");
            same(&before, &tree(&ve), layout);
            ve.start();
            assert!((51_200..56_000).contains(&ve.df("-k")[0]), "{layout}: {}", ve.df("-k")[0]);
            ve.sh("dd if=/dev/zero of=/fill bs=1M count=30 2>/dev/null; sync");
            ve.ok("stop", &["--fast"]);
            ve.run("set", &["--diskspace", "20M", "--save"]).exits(154).says("holds");
            assert_eq!(ve.conf_value("DISKSPACE").as_deref(), Some("51200:51200"));
            ve.destroy();
        }
    });
}

#[test]
fn a_resize_that_was_killed_leaves_a_whole_image() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        let ve = awkward(node, 1, &["--layout", "ploop", "--diskspace", "100M"]);
        let before = tree(&ve);
        let world = World::take(node);
        for point in fault_points("resize") {
            for size in ["60M", "200M"] {
                println!("to {size}, killed at {point}");
                // Not each of them is come by on the way to each size.
                let code = ve.fault(&point, "set", &["--diskspace", size, "--save"]).code;
                assert!([-9, 0].contains(&code), "{code}");
                same(&before, &tree(&ve), &point);
                world.must_return(node);
                ve.ok("set", &["--diskspace", "100M", "--save"]);
                same(&before, &tree(&ve), &point);
            }
        }
    });
}

#[test]
fn compact_gives_back_what_was_deleted_while_the_ve_runs() {
    on_node(|node| {
        if lacks(&[Need::Loops]) {
            return;
        }
        for (number, layout) in (1..).zip(by_image()) {
            node.need_tiny();
            let ve = node.ve(number);
            ve.ok("create", &["--ostemplate", "tiny", "--layout", layout, "--diskspace", "200M"]);
            ve.start();
            let taken = || -> u64 {
                let text = run("du", &["-sk", ve.private().to_str().unwrap()]).out();
                text.split_whitespace().next().unwrap().parse().unwrap()
            };
            ve.sh("dd if=/dev/urandom of=/big bs=1M count=60 2>/dev/null; sync; echo kept > /file; rm /big; sync");
            let full = taken();
            assert!(full > 60 << 10, "{layout}: {full}");
            for point in fault_points("compact") {
                ve.fault(&point, "compact", &[]).exits(-9);
            }
            ve.ok("compact", &[]).says("were given back");
            assert!(taken() < full - (50 << 10), "{layout}: {} of {full} KiB", taken());
            assert_eq!(ve.sh("cat /file"), "kept");
            ve.ok("stop", &["--fast"]);
            ve.ok("compact", &[]).says("KiB");
            ve.start();
            assert_eq!(ve.sh("cat /file"), "kept");
            ve.destroy();
        }
        let plain = node.ve(3);
        plain.ok("create", &["--ostemplate", "tiny", "--config", "free"]);
        plain.ok("compact", &[]).says("Compact only makes sense for ploop containers");
        plain.ok("destroy", &[]);
    });
}
