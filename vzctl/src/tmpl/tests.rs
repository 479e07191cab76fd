use std::fs;

use super::*;

struct Host {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let paths = Paths::under(dir.path());
        fs::create_dir_all(paths.conf_dir()).unwrap();
        let template = dir.path().join("vz/template");
        fs::write(paths.vz_conf(), format!("TEMPLATE={}\n", template.display())).unwrap();
        Self { dir, paths }
    }

    fn run(&self, line: &str) -> u8 {
        let words = std::iter::once("vztmpl").chain(line.split_whitespace()).map(OsString::from);
        run(words, &self.paths).code()
    }

    fn cache(&self) -> Cache {
        Cache::open(&self.dir.path().join("vz/template"))
    }
}

#[test]
fn exit_codes_are_those_of_the_interface() {
    let host = Host::new();
    for (line, want) in [
        ("list", 0),
        ("list --json", 0),
        ("--help", 0),
        ("build --help", 0),
        ("", 20),
        ("frobnicate", 20),
        ("info", 20),
        ("info nothing", 91),
        ("rm nothing", 91),
        ("verify nothing", 91),
        ("build no-such-thing", 21),
        ("build x --suite bookworm --arch vax", 21),
        ("build debian-12-x86_64 --init upstart", 21),
        ("import /nowhere x", 3),
        ("create 4242 x", 14),
    ] {
        assert_eq!(host.run(line), want, "{line}");
    }
}

#[test]
fn tiny_is_built_shown_verified_and_removed() {
    let host = Host::new();
    assert_eq!(host.run("--quiet build tiny"), 0);
    assert_eq!(host.run("-q build tiny"), 3);
    assert_eq!(host.run("-q build tiny --force"), 0);
    assert_eq!(host.run("info tiny --packages"), 0);
    assert_eq!(host.run("verify --json"), 0);
    let template = host.cache().find("tiny").unwrap();
    assert!(host.cache().bases().join(template.base_id()).join("sbin/init").symlink_metadata().is_ok());
    assert_eq!(host.run("rm -q tiny"), 0);
    assert!(host.cache().list().unwrap().is_empty());
}

#[test]
fn what_is_no_root_file_system_leaves_nothing_in_the_cache() {
    let host = Host::new();
    let tree = host.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    let tarball = host.dir.path().join("cut.tar.gz");
    fs::write(&tarball, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    assert_eq!(host.run(&format!("import {}", tree.display())), 47);
    assert_eq!(host.run(&format!("import {}", tarball.display())), 47);
    assert!(host.cache().list().unwrap().is_empty());
    let left: Vec<_> = fs::read_dir(host.dir.path().join("vz/template")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_container_becomes_a_template_without_its_identity() {
    let host = Host::new();
    assert_eq!(host.run("-q build tiny"), 0);
    let private = host.dir.path().join("private");
    let tarball = host.cache().find("tiny").unwrap().path;
    templates::archive::Unpack::new(&tarball).into(&private).unwrap();
    fs::write(private.join("etc/machine-id"), "secret").unwrap();
    fs::write(private.join("tmp/rubbish"), "x").unwrap();
    fs::write(private.join("etc/mine"), "x").unwrap();
    let conf = format!("VE_PRIVATE={}\nVE_ROOT={}/root\n", private.display(), host.dir.path().display());
    fs::write(host.paths.conf_dir().join("101.conf"), conf).unwrap();
    assert_eq!(host.run("-q create 101 mine"), 0);
    let base = host.cache().bases().join(host.cache().find("mine").unwrap().base_id());
    assert_eq!(fs::read_to_string(base.join("etc/machine-id")).unwrap(), "");
    assert!(
        base.join("etc/mine").exists() && base.join("tmp").is_dir() && !base.join("tmp/rubbish").exists()
    );
}
