//! vzimport: containers of OpenVZ, LXC and Proxmox, made here by ordinary tools, become VEs that start.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use vztests::{Node, Run, Ve, command, fault_points, on_node, run, skip};

/// A whole small system: the tiny template, unpacked by tar. Root's files belong to `base`.
fn system(node: &Node, at: &Path, base: u32) {
    node.need_tiny();
    fs::create_dir_all(at).unwrap();
    let archive = fs::read_dir("/vz/template/cache").unwrap().flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.to_string_lossy().contains("/tiny.tar")).unwrap();
    let words = ["-C", at.to_str().unwrap(), "--numeric-owner", "-xpf", archive.to_str().unwrap()];
    run("tar", &words).ok();
    fs::write(at.join("etc/machine-id"), "00112233445566778899aabbccddeeff\n").unwrap();
    fs::write(at.join("root/mine"), "of the old world\n").unwrap();
    chown(at.join("root/mine"), Some(1234), Some(4321)).unwrap();
    if base > 0 {
        shift(at, base);
    }
}

/// Adds `base` to all ids, as an unprivileged container has them on disk.
fn shift(at: &Path, base: u32) {
    let script = format!(
        "import os\nfor top, dirs, files in os.walk({:?}):\n  for name in ['.'] + dirs + files:\n    p = os.path.join(top, name)\n    s = os.lstat(p)\n    if s.st_uid < {base}:\n      os.lchown(p, s.st_uid + {base}, s.st_gid + {base})\n",
        at.to_str().unwrap()
    );
    run("python3", &["-c", &script]).ok();
}

fn import(node: &Node, words: &[&str]) -> Run {
    run(node.program("vzimport"), words)
}

/// It starts, has its files with their owners, and its identity.
fn lives(ve: &Ve<'_>) {
    ve.start();
    assert_eq!(ve.sh("cat /root/mine"), "of the old world");
    assert_eq!(ve.sh("stat -c %u:%g /root/mine"), "1234:4321");
    assert_eq!(ve.sh("stat -c %u:%g /bin/busybox"), "0:0");
    assert_eq!(ve.sh("cat /etc/machine-id"), "00112233445566778899aabbccddeeff");
    ve.ok("stop", &[]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_private_area_of_openvz_is_imported_with_its_configuration() {
    on_node(|node| {
        let dir = node.scratch().join("old");
        let private = dir.join("private/77");
        system(node, &private, 0);
        let conf = dir.join("77.conf");
        let lines = "ONBOOT=\"yes\"\nKMEMSIZE=\"14372700:14790164\"\nVE_ROOT=\"/vz/root/$VEID\"\nVE_PRIVATE=\"/nowhere/$VEID\"\n\
            OSTEMPLATE=\"debian-6.0-x86\"\nHOSTNAME=\"old.example.com\"\nDISKQUOTA=\"no\"\nDISK_QUOTA=\"no\"\nUUID=\"{1}\"\n\
            NETIF=\"ifname=eth0,mac=00:18:51:00:00:07,host_ifname=veth77.0,host_mac=00:18:51:00:00:08\"\n";
        fs::write(&conf, lines).unwrap();
        let ve = node.ve(1);
        let before = run("find", &[text(&dir), "-printf", "%p %i %m %u %g %s %T@ %C@\n"]).ok().out();
        let words = [text(&conf), &ve.id, "--rootfs", text(&private)];
        let plan = import(node, &[&words[..], &["--dry-run", "--json"]].concat()).ok().json();
        assert_eq!((plan["kind"].as_str(), plan["imported"].as_bool()), (Some("openvz"), Some(false)));
        assert!(!ve.conf_path().exists());
        let report = import(node, &words).ok();
        assert!(report.text().contains("kept:") && report.text().contains("UUID"), "{report}");
        assert_eq!(ve.conf_value("KMEMSIZE").unwrap(), "14372700:14790164");
        assert_eq!(ve.conf_value("OSTEMPLATE").unwrap(), "debian-6.0-x86");
        assert!(ve.conf_value("NETIF").unwrap().contains(&format!("veth{}.0", ve.id)));
        lives(&ve);
        // The source was only read.
        let after = run("find", &[text(&dir), "-printf", "%p %i %m %u %g %s %T@ %C@\n"]).ok().out();
        assert_eq!(before, after);
        import(node, &words).exits(44);
    });
}

/// A file system with a system in it, made by mkfs.
fn image(node: &Node, at: &Path, base: u32) {
    let tree = at.with_extension("tree");
    system(node, &tree, base);
    run("truncate", &["-s", "64M", text(at)]).ok();
    run("mkfs.ext4", &["-q", "-F", "-d", text(&tree), text(at)]).ok();
}

const HEAD: &str = "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n<Disk_Parameters>\n\
    <Disk_size>133120</Disk_size><Cylinders>132</Cylinders><Heads>16</Heads><Sectors>63</Sectors><Padding>0</Padding>\n\
    </Disk_Parameters>\n<StorageData><Storage><Start>0</Start><End>133120</End><Blocksize>2048</Blocksize>\n";

fn descriptor(dir: &Path, images: &[(&str, &str)]) {
    const NONE: &str = "{00000000-0000-0000-0000-000000000000}";
    let mut xml = HEAD.to_owned();
    for (guid, file) in images {
        xml += &format!("<Image><GUID>{guid}</GUID><Type>Compressed</Type><File>{file}</File></Image>\n");
    }
    xml += &format!("</Storage></StorageData>\n<Snapshots><TopGUID>{}</TopGUID>\n", images.last().unwrap().0);
    let mut parent = NONE;
    for (guid, _) in images {
        xml += &format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>\n");
        parent = guid;
    }
    fs::write(dir.join("DiskDescriptor.xml"), xml + "</Snapshots></Parallels_disk_image>\n").unwrap();
}

fn has(program: &str, package: &str) -> bool {
    let there = command("sh", &["-c", &format!("command -v {program}")]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        skip(&format!("{program} of {package}, which is not installed"));
    }
    there
}

/// A disk with a partition, as ploop's tools make it, in the parallels format.
fn parallels(raw: &Path, at: &Path) {
    let disk = at.with_extension("disk");
    run("truncate", &["-s", "65M", text(&disk)]).ok();
    let table = format!("echo 'label: gpt\nstart=2048, size=129024' | sfdisk -q {}", text(&disk));
    run("sh", &["-c", &table]).ok();
    let (from, to) = (format!("if={}", text(raw)), format!("of={}", text(&disk)));
    run("dd", &[&from, &to, "bs=1M", "seek=1", "count=63", "conv=notrunc,sparse", "status=none"]).ok();
    run("qemu-img", &["convert", "-f", "raw", "-O", "parallels", text(&disk), text(at)]).ok();
}

#[test]
fn a_ploop_disk_of_openvz_is_imported_alone_and_with_snapshots() {
    on_node(|node| {
        if !has("qemu-img", "qemu-utils") || !has("sfdisk", "fdisk") {
            return;
        }
        let private = node.scratch().join("old/88");
        let disk = private.join("root.hdd");
        fs::create_dir_all(&disk).unwrap();
        let raw = node.scratch().join("fs.raw");
        let tree = raw.with_extension("tree");
        system(node, &tree, 0);
        run("truncate", &["-s", "62M", text(&raw)]).ok();
        run("mkfs.ext4", &["-q", "-F", "-d", text(&tree), text(&raw)]).ok();
        parallels(&raw, &disk.join("root.hds"));
        descriptor(&disk, &[("{5fbaabe3-6958-40ff-92a7-860e329aab41}", "root.hds")]);
        let conf = node.scratch().join("88.conf");
        fs::write(&conf, "OSTEMPLATE=\"x\"\nVE_LAYOUT=\"ploop\"\nDISKSPACE=\"65536:65536\"\n").unwrap();
        let ve = node.ve(1);
        import(node, &[text(&private), &ve.id, "--conf", text(&conf)]).ok();
        lives(&ve);
        // What came after a snapshot is in an image of its own.
        let later = node.scratch().join("later");
        fs::write(&later, "after the snapshot\n").unwrap();
        let script = format!("write {} /root/later", text(&later));
        run("debugfs", &["-w", "-R", &script, text(&raw)]).ok();
        delta(node, &raw, &disk);
        descriptor(&disk, &[("{1}", "root.hds"), ("{2}", "root.hds.2")]);
        let second = node.ve(2);
        import(node, &[text(&private), &second.id, "--conf", text(&conf), "--layout", "ploop"]).ok();
        lives(&second);
        second.start();
        assert_eq!(second.sh("cat /root/later"), "after the snapshot");
        second.ok("stop", &[]);
        hostile(node, &disk, &conf);
    });
}

/// The clusters of `raw` that differ from what `root.hds` has, in an image that lies on it.
fn delta(node: &Node, raw: &Path, disk: &Path) {
    let (new, old) = (node.scratch().join("new.hds"), node.scratch().join("old.raw"));
    parallels(raw, &new);
    let whole = node.scratch().join("new.disk");
    run("qemu-img", &["convert", "-f", "parallels", "-O", "raw", text(&disk.join("root.hds")), text(&old)])
        .ok();
    let top = disk.join("root.hds.2");
    run("qemu-img", &["create", "-q", "-f", "parallels", text(&top), "65M"]).ok();
    let (before, after) = (fs::read(&old).unwrap(), fs::read(&whole).unwrap());
    let piece = node.scratch().join("piece");
    for (number, (a, b)) in before.chunks(1 << 20).zip(after.chunks(1 << 20)).enumerate() {
        if a != b {
            fs::write(&piece, b).unwrap();
            let write = format!("write -s {} {}M 1M", text(&piece), number);
            run("qemu-io", &["-f", "parallels", "-c", &write, text(&top)]).ok();
        }
    }
}

/// Descriptors that lie leave nothing.
fn hostile(node: &Node, disk: &Path, conf: &Path) {
    let ve = node.ve(3);
    let before = leftovers();
    for file in ["/etc/shadow", "../88/root.hdd/root.hds", "no-such", "link"] {
        let _ = symlink("/etc/passwd", disk.join("link"));
        descriptor(disk, &[("{1}", file)]);
        let failed = import(node, &[text(disk.parent().unwrap()), &ve.id, "--conf", text(conf)]);
        assert_ne!(failed.code, 0, "{file}: {failed}");
        assert!(!ve.private().exists() && !ve.conf_path().exists(), "{file}");
        assert_eq!(leftovers(), before, "{file}");
    }
}

fn leftovers() -> Vec<PathBuf> {
    let entries = fs::read_dir("/vz/template").unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains(".making-")).collect()
}

#[test]
fn an_lxc_container_is_imported_with_its_ids_shifted_back() {
    on_node(|node| {
        let dir = node.scratch().join("web");
        system(node, &dir.join("rootfs"), 100_000);
        assert_eq!(fs::metadata(dir.join("rootfs/bin")).unwrap().uid(), 100_000);
        let config = format!(
            "lxc.include = /usr/share/lxc/config/common.conf\nlxc.include = more\nlxc.rootfs.path = dir:{}\nlxc.uts.name = web\n\
             lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\nlxc.net.0.type = veth\nlxc.net.0.link = no-such-br\n",
            dir.join("rootfs").display()
        );
        fs::write(dir.join("config"), config).unwrap();
        fs::write(dir.join("more"), "lxc.cgroup2.memory.max = 256M\nlxc.cgroup2.cpu.weight = 200\n").unwrap();
        let ve = node.ve(1);
        let report = import(node, &[text(&dir), &ve.id, "--json"]).ok().json();
        assert_eq!((report["kind"].as_str(), report["shift"].as_u64()), (Some("lxc"), Some(100_000)));
        assert_eq!(ve.conf_value("CPUUNITS").unwrap(), "2000");
        assert_eq!(ve.conf_value("HOSTNAME").unwrap(), "web");
        lives(&ve);
        // Files that include one another without end.
        fs::write(dir.join("more"), "lxc.include = more\n").unwrap();
        let other = node.ve(2);
        import(node, &[text(&dir), &other.id]).exits(47);
        assert!(!other.conf_path().exists());
    });
}

#[test]
fn proxmox_containers_are_imported_from_an_image_and_from_a_backup() {
    on_node(|node| {
        if !has("qemu-img", "qemu-utils") {
            return;
        }
        let dir = node.scratch().join("pve");
        fs::create_dir_all(&dir).unwrap();
        let raw = dir.join("vm-105-disk-0.raw");
        image(node, &raw, 100_000);
        let conf = dir.join("105.conf");
        let text_of = "#a web server\narch: amd64\ncores: 1\ncpuunits: 100\nhostname: web\nmemory: 256\nswap: 128\n\
            nameserver: 9.9.9.9\nonboot: 1\nrootfs: local:105/vm-105-disk-0.raw,size=64M\nunprivileged: 1\n\
            net0: name=eth0,bridge=no-such-br,hwaddr=BC:24:11:00:00:01,ip=10.99.1.5/24,gw=10.99.1.1\n\n[old]\nmemory: 64\n";
        fs::write(&conf, text_of).unwrap();
        let ve = node.ve(1);
        let report = import(node, &[text(&conf), &ve.id, "--rootfs", text(&raw), "--json"]).ok().json();
        assert_eq!((report["kind"].as_str(), report["shift"].as_u64()), (Some("pct"), Some(100_000)));
        assert_eq!(ve.conf_value("IP_ADDRESS").unwrap(), "10.99.1.5");
        assert_eq!(ve.conf_value("CPUS").unwrap(), "1");
        assert_eq!(ve.conf_value("ONBOOT").unwrap(), "yes");
        lives(&ve);
        ve.destroy();
        // A backup has the container's own ids, and its configuration in it.
        let tree = dir.join("tree");
        system(node, &tree, 0);
        let beside = dir.join("beside");
        fs::create_dir_all(beside.join("etc/vzdump")).unwrap();
        fs::copy(&conf, beside.join("etc/vzdump/pct.conf")).unwrap();
        let backup = dir.join("vzdump-lxc-105-2026_01_01-00_00_00.tar.zst");
        let words = [
            "-C",
            text(&beside),
            "--zstd",
            "-cpf",
            text(&backup),
            "./etc/vzdump/pct.conf",
            "-C",
            text(&tree),
            ".",
        ];
        run("tar", &words).ok();
        let second = node.ve(2);
        import(node, &[text(&backup), &second.id]).ok();
        lives(&second);
    });
}

#[test]
fn an_import_that_is_killed_is_mended_by_the_next_one() {
    let mut points = fault_points("create");
    points.extend(fault_points("import"));
    points.retain(|point| point != "creating.committed");
    on_node(move |node| {
        let private = node.scratch().join("old/99");
        system(node, &private, 0);
        let conf = node.scratch().join("99.conf");
        fs::write(&conf, "OSTEMPLATE=\"x\"\nONBOOT=\"no\"\n").unwrap();
        let ve = node.ve(1);
        let words = [text(&private), ve.id.as_str(), "--conf", text(&conf)];
        for point in &points {
            let mut killed = command(node.program("vzimport"), &words);
            killed.env("VZ_FAULT", point);
            let killed = vztests::Background::spawn(killed, &[]).finish();
            assert_ne!(killed.code, 0, "{point}: {killed}");
            import(node, &words).ok();
            lives(&ve);
            ve.destroy();
        }
        // What the killed ones left is young, and theirs to be removed later.
        for left in leftovers() {
            fs::remove_dir_all(left).unwrap();
        }
    });
}
