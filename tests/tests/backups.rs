//! Backups of real containers: made, gone on with, restored, damaged, killed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vztests::{
    Background, FailingDisk, Node, Run, Ve, World, command, fault_points, on_btrfs, on_node, run, skip, until,
};

const SOON: Duration = Duration::from_secs(60);
const BACKUPS: &str = "/vz/backup";

/// Removes the backups in the end.
struct Swept;

impl Drop for Swept {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(BACKUPS);
    }
}

fn vzbackup(node: &Node, words: &[&str]) -> Run {
    run(node.program("vzbackup"), words)
}

fn vzrestore(node: &Node, words: &[&str]) -> Run {
    run(node.program("vzrestore"), words)
}

fn faulty(node: &Node, program: &str, point: &str, words: &[&str]) -> Run {
    let mut faulty = command(node.program(program), words);
    faulty.env("VZ_FAULT", point);
    Background::spawn(faulty, &[]).finish()
}

/// A line of shell with the programs under test in its PATH.
fn shell(node: &Node, line: &str) -> Run {
    let dir = node.program("vzbackup").parent().unwrap().display().to_string();
    run("sh", &["-c", &format!("PATH={dir}:$PATH; {line}")])
}

fn files(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The newest backup.
fn newest() -> String {
    let names = files(BACKUPS).into_iter().filter(|name| name.ends_with(".vzb"));
    let time = |name: &String| fs::metadata(Path::new(BACKUPS).join(name)).unwrap().modified().unwrap();
    format!("{BACKUPS}/{}", names.max_by_key(time).unwrap())
}

/// The next backup's name has another second.
fn next_second() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = now();
    until("another second", SOON, || now() > begun);
}

fn number(json: &str, key: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {json}"))
}

/// A VE with files of its own: a large one, and some that are hard to keep.
fn furnished(node: &Node, number: u32) -> Ve<'_> {
    let ve = node.tiny(number);
    ve.start();
    ve.wait_up();
    ve.sh("mkdir /data; dd if=/dev/urandom of=/data/large bs=64k count=64 2>/dev/null; echo one > /data/one; \
           ln /data/one /data/two; ln -s /nowhere /data/link; mkfifo /data/pipe; \
           dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=1000000 2>/dev/null; chown 7:8 /data/one; chmod 4711 /data/one");
    ve
}

const LOOK: &str =
    "cd /data; cat large sparse | md5sum; ls -ln | sed 's/^total.*//'; cat one two; readlink link";

#[test]
fn a_running_container_is_saved_and_comes_back_beside_itself() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        let made = vzbackup(node, &[&ve.id, "--json"]).ok();
        assert_eq!(number(&made.out(), "ctid").to_string(), ve.id);
        assert_eq!(fs::metadata(BACKUPS).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(newest()).unwrap().permissions().mode() & 0o777, 0o600);
        ve.is("exist mounted running");
        vzrestore(node, &["--check", &newest()]).ok().says("OK");
        vzrestore(node, &["--list", &newest()]).ok().says("data/large").says("-> /nowhere");
        vzrestore(node, &[&newest()]).exits(44).says("exists already");
        let copy = node.ve(2);
        vzrestore(node, &[&newest(), "--as", &copy.id, "--name", "copy"]).ok();
        assert_eq!(copy.conf_value("NAME").as_deref(), Some("copy"));
        copy.start();
        copy.wait_up();
        assert_eq!(copy.sh(LOOK), before);
        assert_eq!(ve.sh(LOOK), before);
        // Nothing of what the overlay does to itself is in it.
        let whiteouts = run("find", &[copy.private().to_str().unwrap(), "-type", "c", "-path", "*/data/*"]);
        assert_eq!(whiteouts.out(), "");
    });
}

#[test]
fn what_was_deleted_or_changed_is_so_in_the_next_backup_alone() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        ve.sh("rm /bin/ash || true; rm -rf /data/gone");
        ve.ok("stop", &["--fast"]);
        vzbackup(node, &[&ve.id]).ok().says("(full)");
        let first = newest();
        next_second();
        let same = vzbackup(node, &[&ve.id, "--json"]).ok().out();
        assert_eq!(number(&same, "new_bytes"), 0);
        let (full, small) = (fs::metadata(&first).unwrap().len(), fs::metadata(newest()).unwrap().len());
        assert!(small * 20 < full, "{small} {full}");
        ve.start();
        ve.sh("rm /data/two; echo changed >> /data/large; echo new > /data/new");
        let look = "cd /data; md5sum large; ls; cat new";
        let (now, before) = (ve.sh(look), "one");
        next_second();
        let third = vzbackup(node, &[&ve.id, "--json"]).ok().out();
        assert!((1..1 << 20).contains(&number(&third, "new_bytes")), "{third}");
        vzbackup(node, &["--list", &ve.id]).ok().says("whole");
        let list = vzbackup(node, &["--list", "--json"]).ok().out();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 3);
        assert_eq!(list[2]["chain"].as_array().unwrap().len(), 2);
        let third = newest();
        ve.destroy();
        vzrestore(node, &[&third]).ok();
        ve.start();
        ve.wait_up();
        assert_eq!(ve.sh(look), now);
        ve.destroy();
        vzrestore(node, &[&first]).ok();
        ve.start();
        assert_eq!(ve.sh("cat /data/two"), before);
        // Without its base it says what is missing, and makes nothing.
        fs::rename(&first, format!("{first}.away")).unwrap();
        ve.destroy();
        let name = Path::new(&first).file_name().unwrap().to_str().unwrap().to_owned();
        vzrestore(node, &[&third]).exits(48).says(&name);
        assert!(!ve.private().exists() && !ve.conf_path().exists());
        vzbackup(node, &["--list"]).ok().says("lacks");
        fs::create_dir("/vz/elsewhere").unwrap();
        fs::rename(format!("{first}.away"), format!("/vz/elsewhere/{name}")).unwrap();
        vzrestore(node, &[&third, "--base", "/vz/elsewhere"]).ok();
        fs::remove_dir_all("/vz/elsewhere").unwrap();
    });
}

#[test]
fn a_pipe_will_do_both_ways() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        let copy = node.ve(2);
        shell(node, &format!("vzbackup {} --to - | vzrestore - --as {}", ve.id, copy.id)).ok();
        copy.start();
        assert_eq!(copy.sh(LOOK), before);
        assert!(!Path::new(BACKUPS).exists());
        // A stream that ends too early leaves nothing.
        let third = node.ve(3);
        let cut = format!("vzbackup {} --to - | head -c 100000 | vzrestore - --as {}", ve.id, third.id);
        shell(node, &cut).exits(48).says("truncated");
        assert!(!third.private().exists() && !third.conf_path().exists());
    });
}

#[test]
fn damage_is_named_and_leaves_nothing() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        vzbackup(node, &[&ve.id]).ok();
        let file = newest();
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let copy = node.ve(2);
        ve.ok("stop", &["--fast"]);
        until("its device is gone", SOON, || run("ip", &["link", "show", &ve.venet()]).code != 0);
        let before = World::take(node);
        vzrestore(node, &["--check", &file]).exits(48).says("damaged in frame").says(&file);
        vzrestore(node, &[&file, "--as", &copy.id]).exits(48).says("damaged in frame");
        assert!(!copy.private().exists() && !copy.conf_path().exists());
        before.must_return(node);
    });
}

#[test]
fn a_backup_holds_up_nobody_but_destroy() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let gate = node.scratch().join("gate");
        run("mkfifo", &[gate.to_str().unwrap()]).ok();
        // Its output is not read until the gate is opened, and is more than a pipe holds.
        let line = format!("vzbackup {} --to - | (read go < {}; cat > /dev/null)", ve.id, gate.display());
        let dir = node.program("vzbackup").parent().unwrap().display().to_string();
        let mut backup = Background::spawn(command("sh", &["-c", &format!("PATH={dir}:$PATH; {line}")]), &[]);
        let reading = PathBuf::from(format!("/vz/lock/{}.reading", ve.id));
        until("it reads", SOON, || reading.exists());
        assert_eq!(ve.sh("echo goes on"), "goes on");
        ve.ok("set", &["--description", "x", "--save"]);
        ve.ok("stop", &["--fast"]);
        ve.run("destroy", &[]).exits(9).says("backup");
        assert!(backup.running());
        fs::write(&gate, "go\n").unwrap();
        backup.finish().ok();
        assert!(!reading.exists());
        ve.ok("destroy", &[]);
    });
}

/// A writer that keeps four files in step: each has the number of the one before it, or the one before that number.
const IN_STEP: &str = "cd /data; n=0; while :; do n=$((n+1)); echo $n >a.new; mv a.new a; echo $n >b; \
                       echo $n >>c; echo $n >>d; done";

/// Whatever the layout: what is saved of a running container is what it was at one moment, full and incremental.
#[test]
fn a_running_container_is_saved_as_it_was_at_one_moment() {
    on_node(|node| {
        let _swept = Swept;
        let layouts =
            if skip_images() { &["overlay", "simfs"][..] } else { &["overlay", "simfs", "image", "ploop"] };
        for (number, layout) in (1..).zip(layouts) {
            let ve = node.with_layout(number, layout);
            ve.start();
            ve.sh("mkdir -p /data/many; for n in $(seq 300); do echo $n >/data/many/$n; done");
            ve.sh(&format!("({IN_STEP}) </dev/null >/dev/null 2>&1 & echo begun"));
            until("it writes", SOON, || ve.run("exec2", &["test -s /data/d"]).code == 0);
            let restored = node.ve(9);
            for times in 0..2 {
                let told = vzbackup(node, &["-q", "--json", &ve.id]).ok().out();
                assert!(told.contains("\"taken\": \"snapshot\""), "{layout}: {told}");
                assert_eq!(number_of(&told, "changed_meanwhile"), 0.0);
                assert!(number_of(&told, "frozen_ms") > 0.0, "{layout}: {told}");
                println!("{layout}: stood still for {} ms", number_of(&told, "frozen_ms"));
                vzrestore(node, &["-q", &newest(), "--as", &restored.id]).ok();
                restored.ok("mount", &[]);
                let last = |name: &str| -> u64 {
                    let path = Path::new("/vz/root").join(&restored.id).join("data").join(name);
                    let text = fs::read_to_string(path).unwrap();
                    text.lines().last().map_or(0, |line| line.parse().unwrap())
                };
                // (`>b` empties it first.)
                let [a, b, c, d] = ["a", "b", "c", "d"].map(last);
                let b = if b == 0 { c } else { b };
                assert!(a >= b && b >= c && c >= d && d + 1 >= a, "{layout} {times}: {a} {b} {c} {d}");
                restored.ok("umount", &[]);
                restored.destroy();
                next_second();
            }
            assert!(ve.sh("cat /data/a").parse::<u64>().is_ok(), "it goes on");
            ve.destroy();
            let _ = fs::remove_dir_all(BACKUPS);
        }
    });
}

/// Whether a host has no loop devices for images.
fn skip_images() -> bool {
    vztests::lacks(&[vztests::Need::Loops])
}

fn number_of(json: &str, key: &str) -> f64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {json}"))
}

/// On btrfs it is one moment that is saved, whatever the container does meanwhile, and nothing is left of it.
#[test]
fn a_subvolume_is_saved_as_it_was_at_one_moment() {
    on_btrfs(|node| {
        let _swept = Swept;
        let (ve, restored) = (node.ve(1), node.ve(2));
        ve.ok("create", &["--ostemplate", "tiny", "--layout", "btrfs"]);
        ve.start();
        ve.sh("mkdir /data; for n in $(seq 500); do echo $n >/data/f$n; done");
        let line = "cd /data; n=0; \
                    while :; do n=$((n+1)); echo $n >a.new; mv a.new a; echo $n >b.new; mv b.new b; done";
        ve.sh(&format!("({line}) </dev/null >/dev/null 2>&1 & echo begun"));
        until("it writes", SOON, || ve.run("exec2", &["test -s /data/b"]).code == 0);
        let views = || files(&ve.private().join("data").display().to_string()).len();
        for times in 0..2 {
            vzbackup(node, &["-q", &ve.id]).ok();
            assert_eq!(views(), 0);
            vzrestore(node, &["-q", &newest(), "--as", &restored.id]).ok();
            restored.ok("mount", &[]);
            let read = |name: &str| {
                let path = Path::new("/vz/root").join(&restored.id).join("data").join(name);
                fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
            };
            let (a, b) = (read("a"), read("b"));
            assert!(a == b || a == b + 1, "{times}: a is {a}, b is {b}");
            restored.ok("umount", &[]);
            restored.destroy();
            next_second();
        }
        assert_eq!(faulty(node, "vzbackup", "backup.frame", &["-q", &ve.id]).code, -9);
        assert_eq!(views(), 1);
        ve.ok("snapshot", &["--name", "one"]);
        assert_eq!(views(), 1, "the snapshot alone");
        let told = vzbackup(node, &["-q", "--json", &ve.id]).ok().out();
        assert!(told.contains("\"taken\": \"snapshot\""), "{told}");
    });
}

#[test]
fn a_backup_killed_anywhere_is_gone_on_with() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        for point in fault_points("backup") {
            println!("killed at {point}");
            faulty(node, "vzbackup", &point, &[&ve.id]).exits(-9);
            let left = files(BACKUPS);
            assert_eq!(left.len(), 1, "{left:?}");
            if point == "backup.committed" {
                vzrestore(node, &["--check", &newest()]).ok();
            } else {
                assert!(left[0].ends_with(".part"), "{left:?}");
                vzbackup(node, &["--list"]).ok();
                let again = vzbackup(node, &[&ve.id, "--json"]).ok();
                if point == "backup.written" {
                    assert!(number(&again.out(), "resumed_bytes") > 1 << 20, "{again}");
                }
                assert_eq!(files(BACKUPS).len(), 1);
            }
            let copy = node.ve(2);
            vzrestore(node, &[&newest(), "--as", &copy.id]).ok();
            copy.start();
            assert_eq!(copy.sh(LOOK), before);
            copy.destroy();
            fs::remove_dir_all(BACKUPS).unwrap();
        }
    });
}

#[test]
fn a_restore_killed_anywhere_is_mended() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        vzbackup(node, &[&ve.id]).ok();
        // Its link would only now become what it stays.
        ve.ok("stop", &["--fast"]);
        let gone = || run("ip", &["link", "show", &ve.venet()]).code != 0;
        until("its device is gone", SOON, gone);
        let copy = node.ve(2);
        // The first use makes what all later ones share.
        vzrestore(node, &[&newest(), "--as", &copy.id]).ok();
        copy.ok("destroy", &[]);
        until("it is swept", SOON, || files("/vz/vztmp").is_empty());
        let before = World::take(node);
        for point in fault_points("vzrestore") {
            for next in ["restore", "start", "destroy"] {
                println!("killed at {point}, then {next}");
                faulty(node, "vzrestore", &point, &[&newest(), "--as", &copy.id, "--name", "copy"]).exits(-9);
                match next {
                    "restore" => drop(vzrestore(node, &[&newest(), "--as", &copy.id])),
                    verb => drop(copy.run(verb, &[])),
                }
                if !copy.status().starts_with("exist") {
                    vzrestore(node, &[&newest(), "--as", &copy.id]).ok();
                }
                if !copy.status().ends_with("running") {
                    copy.start();
                }
                assert_eq!(copy.sh("cat /data/one"), "one");
                copy.destroy();
                before.must_return(node);
            }
        }
    });
}

#[test]
fn a_full_disk_keeps_nothing_of_a_backup_or_a_container() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let small = node.scratch().join("small");
        fs::create_dir(&small).unwrap();
        let small = small.to_str().unwrap();
        if run("mount", &["-t", "tmpfs", "-o", "size=2m", "small", small]).code != 0 {
            return skip("tmpfs");
        }
        vzbackup(node, &[&ve.id, "--to", small]).exits(46);
        assert_eq!(files(small), [] as [&str; 0]);
        vzbackup(node, &[&ve.id]).ok();
        // From a pipe nobody knows beforehand how much it will be.
        node.set_conf("VE_PRIVATE", &format!("{small}/$VEID"));
        let copy = node.ve(2);
        vzrestore(node, &[&newest(), "--as", &copy.id]).exits(46);
        shell(node, &format!("vzrestore - --as {} < {}", copy.id, newest())).exits(46);
        until("it is swept", SOON, || run("du", &["-s", small]).out().starts_with('0'));
        assert!(!copy.conf_path().exists());
        node.set_conf("VE_PRIVATE", "/vz/private/$VEID");
        run("umount", &[small]).ok();
    });
}

#[test]
fn a_failing_disk_makes_no_backup_and_no_container() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        let Some(disk) = FailingDisk::new(node) else { return };
        let at = disk.place().to_str().unwrap().to_owned();
        let fails = |failed: &Run| {
            let told =
                ["Input/output error", "No space left"].iter().any(|words| failed.text().contains(words));
            assert!([46, 48].contains(&failed.code) && told, "{failed}");
        };
        fails(&vzbackup(node, &[&ve.id, "--to", &at]));
        // What memory has of it would read well, and is not there.
        let left = || files(&at).into_iter().filter(|name| name.contains(".vzb")).count();
        assert_eq!(left(), 0, "{:?}", files(&at));
        assert_eq!(ve.sh(LOOK), before);
        disk.leave(32 << 20);
        let again = vzbackup(node, &[&ve.id, "--to", &at, "--json"]).ok();
        assert!(number(&again.out(), "new_bytes") > 1 << 20, "{again}");
        drop(disk);
        vzbackup(node, &[&ve.id]).ok();
        fs::remove_dir(node.scratch().join("memory")).unwrap();
        fs::remove_dir(node.scratch().join("failing")).unwrap();
        let Some(disk) = FailingDisk::new(node) else { return };
        node.set_conf("VE_PRIVATE", &format!("{}/$VEID", disk.place().display()));
        let copy = node.ve(2);
        let restored = vzrestore(node, &[&newest(), "--as", &copy.id]);
        assert_ne!(restored.code, 0, "{restored}");
        assert!(!copy.conf_path().exists() && !copy.private().exists());
        node.set_conf("VE_PRIVATE", "/vz/private/$VEID");
        until("nobody sweeps there", SOON, || disk.close());
    });
}

#[test]
fn words_that_make_no_sense_are_refused() {
    on_node(|node| {
        let _swept = Swept;
        let ve = node.tiny(1);
        vzbackup(node, &[]).exits(20);
        vzbackup(node, &[&ve.id, "--full", "--base", "x"]).exits(20);
        vzrestore(node, &["/nowhere", "--layout"]).exits(20);
        vzbackup(node, &[&ve.id, "--level", "99"]).exits(20);
        vzbackup(node, &["999999"]).exits(14);
        vzbackup(node, &["nobody"]).exits(21);
        vzbackup(node, &[&ve.id, "--base", "/nowhere/x.vzb"]).exits(48).says("/nowhere/x.vzb");
        vzbackup(node, &[&ve.id, "--to", "/nowhere/x.vzb"]).exits(48).says("/nowhere/x.vzb");
        vzrestore(node, &["/etc/passwd"]).exits(48).says("no backup");
        vzrestore(node, &["/nowhere"]).exits(48).says("/nowhere");
    });
}

/// An sshd of the node's own: `vault`, which is the node itself.
struct Vault {
    sshd: Option<Background>,
}

impl Vault {
    fn open(node: &Node) -> Option<Self> {
        if !Path::new("/usr/sbin/sshd").exists() {
            skip("sshd (openssh-server)");
            return None;
        }
        // Seen in the node alone.
        run("mount", &["-t", "tmpfs", "ssh", "/etc/ssh"]).ok();
        let bin = node.program("vzbackup").parent().unwrap().display().to_string();
        for key in ["host", "user"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &format!("/etc/ssh/{key}")]).ok();
        }
        let server = format!(
            "Port 2222\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host\nAuthorizedKeysFile /etc/ssh/user.pub\n\
             PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nSetEnv PATH={bin}:/usr/bin:/bin\n"
        );
        fs::write("/etc/ssh/sshd_config", server).unwrap();
        let client = "Host vault\n HostName 127.0.0.1\n Port 2222\n User root\n IdentityFile /etc/ssh/user\n \
                      StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n";
        fs::write("/etc/ssh/ssh_config", client).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        fs::create_dir_all(BACKUPS).unwrap();
        let sshd = Background::spawn(command("/usr/sbin/sshd", &["-D", "-e"]), &[]);
        until("sshd answers", SOON, || run("ssh", &["vault", "true"]).code == 0);
        Some(Self { sshd: Some(sshd) })
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Some(sshd) = self.sshd.take() {
            sshd.signal(rustix::process::Signal::TERM);
            let _ = sshd.finish();
        }
        let _ = run("umount", &["/etc/ssh"]);
    }
}

#[test]
fn another_host_keeps_backups_and_gives_them_back() {
    on_node(|node| {
        let _swept = Swept;
        let Some(_vault) = Vault::open(node) else { return };
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        let to = format!("ssh://vault{BACKUPS}/");
        let first = vzbackup(node, &[&ve.id, "--to", &to, "--json"]).ok();
        assert!(number(&first.out(), "new_bytes") > 1 << 20);
        next_second();
        let second = vzbackup(node, &[&ve.id, "--to", &to, "--json"]).ok();
        assert_eq!(number(&second.out(), "new_bytes"), 0);
        vzbackup(node, &["--list", "--to", &to]).ok().says("whole");
        let last = newest().replace(BACKUPS, "");
        let from = format!("ssh://vault{BACKUPS}{last}");
        let copy = node.ve(2);
        vzrestore(node, &["--check", &from]).ok();
        vzrestore(node, &[&from, "--as", &copy.id]).ok();
        copy.start();
        assert_eq!(copy.sh(LOOK), before);
        // Whatever it is killed at, it goes on over there. What follows the last byte is the far side's.
        let near = fault_points("backup").into_iter().filter(|point| !point.ends_with("ed"));
        for point in near.chain(fault_points("sshbackup")) {
            println!("killed at {point}");
            fs::remove_dir_all(BACKUPS).unwrap();
            fs::create_dir(BACKUPS).unwrap();
            faulty(node, "vzbackup", &point, &[&ve.id, "--to", &to]).exits(-9);
            if !files(BACKUPS).is_empty() && !files(BACKUPS)[0].ends_with(".part") {
                continue;
            }
            let again = vzbackup(node, &[&ve.id, "--to", &to, "--json"]).ok();
            if point == "backup.written" {
                assert!(number(&again.out(), "resumed_bytes") > 1 << 20, "{again}");
            }
            assert_eq!(files(BACKUPS).len(), 1);
            vzrestore(node, &["--check", &newest()]).ok();
        }
        vzbackup(node, &[&ve.id, "--to", "ssh://vault/nowhere/x.vzb"]).exits(48).says("No such file");
        vzbackup(node, &[&ve.id, "--to", "ssh://nobody.invalid/x.vzb"]).exits(48).says("ssh cannot reach");
        vzrestore(node, &["ssh://vault/etc/passwd", "--as", "5"]).exits(48);
        let small = node.scratch().join("small");
        fs::create_dir(&small).unwrap();
        let small = small.to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=2m", "small", small]).ok();
        vzbackup(node, &[&ve.id, "--to", &format!("ssh://vault{small}/")]).exits(46);
        run("umount", &[small]).ok();
    });
}

fn vzdump(node: &Node, words: &[&str]) -> Run {
    run(node.program("vzdump"), words)
}

#[test]
fn a_dump_is_read_by_tar_and_comes_back() {
    on_node(|node| {
        let _swept = Swept;
        let ve = furnished(node, 1);
        let before = ve.sh(LOOK);
        vzdump(node, &[&ve.id]).ok();
        let dump = format!("{BACKUPS}/{}", files(BACKUPS)[0]);
        assert!(dump.contains(&format!("vzdump-openvz-{}-", ve.id)) && dump.ends_with(".tar.zst"), "{dump}");
        let scratch = node.scratch().join("plain.tar.gz");
        let plain = scratch.to_str().unwrap();
        vzdump(node, &[&ve.id, "--to", plain]).ok();
        vzdump(node, &[&ve.id, "--to", plain]).exits(44);
        let list = run("tar", &["-tzf", plain]).ok().out();
        assert!(list.contains("./etc/vzdump/vps.conf\n") && list.contains("./data/large\n"), "{list}");
        let conf = run("tar", &["-xzOf", plain, "./etc/vzdump/vps.conf"]).ok().out();
        assert!(conf.contains("OSTEMPLATE="), "{conf}");
        let piped = shell(node, &format!("vzdump {} --to - --compress none | tar -tf - | wc -l", ve.id)).ok();
        assert_eq!(piped.out().trim(), list.lines().count().to_string());
        let copy = node.ve(2);
        vzrestore(node, &[&dump]).exits(44);
        vzrestore(node, &[plain]).exits(27).says("--as");
        vzrestore(node, &[&dump, "--as", &copy.id]).ok();
        copy.start();
        assert_eq!(copy.sh(LOOK), before);
        assert_eq!(copy.sh("ls /etc/vzdump 2>/dev/null | wc -l"), "0");
        for point in fault_points("vzdump") {
            let killed = node.scratch().join("killed.tar");
            faulty(node, "vzdump", &point, &[&ve.id, "--to", killed.to_str().unwrap()]).exits(-9);
            vzdump(node, &[&ve.id, "--to", killed.to_str().unwrap()]).ok();
            run("tar", &["-tf", killed.to_str().unwrap()]).ok();
        }
        fs::write(node.scratch().join("other.tar"), fs::read("/etc/passwd").unwrap()).unwrap();
        vzrestore(node, &[node.scratch().join("other.tar").to_str().unwrap(), "--as", "5"]).exits(48);
    });
}
