//! Trees that a guest's root made to harm the host.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use templates::dist::{
    DistError, DnsParams, Guest, GuestRoot, Identity, Kind, post_create, pre_start, set_addresses, set_dns,
    set_hostname, set_user_password,
};

/// A guest beside a directory of the host that nobody may touch.
struct Hostile {
    dir: tempfile::TempDir,
}

impl Hostile {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hostile = Self { dir };
        for (path, text) in [
            ("guest/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("guest/etc/shadow", "root:*:1:0:99999:7:::\n"),
            ("guest/etc/group", "root:x:0:\n"),
            ("guest/etc/debian_version", "12\n"),
            ("guest/etc/inittab", "id:2:initdefault:\n"),
            ("guest/etc/network/interfaces", "auto lo\n"),
            ("guest/etc/skel/.profile", "x\n"),
            ("guest/sbin/init", "stub"),
            ("host/etc/hosts", "host"),
            ("host/etc/passwd", "host"),
            ("host/etc/shadow", "host"),
        ] {
            let path = hostile.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        hostile
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn guest(&self) -> PathBuf {
        self.path("guest")
    }

    fn replace_by_link(&self, path: &str, target: &Path) {
        let path = self.guest().join(path);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
        symlink(target, path).unwrap();
    }

    /// All actions; none may take long. Their errors.
    fn act(&self) -> Vec<DistError> {
        let start = Instant::now();
        let root = GuestRoot::open(&self.guest()).unwrap();
        let guest = Guest::detect(&root, Some("debian"), Path::new("/etc/vz/dists"));
        let ip = "10.0.0.1".parse().unwrap();
        let dns = DnsParams { nameservers: vec![ip], searchdomains: vec!["a.b".into()] };
        let results = [
            post_create(&root, &guest, &Identity::random().unwrap()),
            set_hostname(&root, &guest, "h", Some(ip)),
            set_dns(&root, &guest, &dns),
            set_addresses(&root, &guest, &[ip], &[]),
            pre_start(&root, &guest),
            set_user_password(&root, "root", "x"),
            set_user_password(&root, "new", "x"),
        ];
        assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
        self.assert_host_is_untouched();
        results.into_iter().filter_map(Result::err).collect()
    }

    fn assert_host_is_untouched(&self) {
        let names = |dir: &str| fs::read_dir(self.path(dir)).unwrap().count();
        assert_eq!((names("host"), names("host/etc")), (1, 3));
        for name in ["hosts", "passwd", "shadow"] {
            assert_eq!(fs::read_to_string(self.path("host/etc").join(name)).unwrap(), "host");
        }
    }
}

#[test]
fn links_to_the_host_stay_in_the_guest() {
    let hostile = Hostile::new();
    let host = hostile.path("host/etc");
    for name in ["hosts", "passwd", "shadow"] {
        hostile.replace_by_link(&format!("etc/{name}"), &host.join(name));
    }
    hostile.replace_by_link("etc/hostname", Path::new("../../../../../../../../../../../etc/hostname"));
    hostile.replace_by_link("etc/network", &host);
    hostile.replace_by_link("etc/default", Path::new("../../host"));
    hostile.replace_by_link("fastboot", &hostile.path("host/fastboot"));
    hostile.act();
}

#[test]
fn a_link_of_all_etc_to_the_host_fails() {
    let hostile = Hostile::new();
    fs::remove_dir_all(hostile.guest().join("etc")).unwrap();
    symlink(hostile.path("host/etc"), hostile.guest().join("etc")).unwrap();
    assert!(!hostile.act().is_empty());
}

#[test]
fn a_link_of_proc_does_not_lead_out() {
    let hostile = Hostile::new();
    hostile.replace_by_link("etc/hosts", Path::new("/proc/self/root/etc/hosts"));
    hostile.act();
    assert!(!hostile.path("guest/proc/self/root/etc").is_symlink());
}

#[test]
fn loops_of_links_fail() {
    let hostile = Hostile::new();
    hostile.replace_by_link("etc/hosts", Path::new("hosts"));
    hostile.replace_by_link("etc/passwd", Path::new("/etc/./passwd"));
    let errors = hostile.act();
    assert!(errors.iter().any(|error| matches!(error, DistError::Call { .. })), "{errors:?}");
}

#[test]
fn pipes_sockets_devices_and_directories_are_no_files() {
    for (kind, what) in [(FileType::Fifo, Kind::Fifo), (FileType::Socket, Kind::Socket)] {
        let hostile = Hostile::new();
        for name in
            ["hosts", "passwd", "resolv.conf", "os-release", "login.defs", "fstab", "network/interfaces"]
        {
            let path = hostile.guest().join("etc").join(name);
            let _ = fs::remove_file(&path);
            mknodat(CWD, &path, kind, Mode::from_raw_mode(0o666), 0).unwrap();
        }
        let errors = hostile.act();
        for name in ["/etc/hosts", "/etc/passwd", "/etc/network/interfaces"] {
            assert!(errors.iter().any(|error| names(error, name, what)), "{name}: {errors:?}");
        }
        // What could be written is.
        assert_eq!(fs::read_to_string(hostile.guest().join("etc/hostname")).unwrap(), "h\n");
    }
    let hostile = Hostile::new();
    for name in ["hosts", "shadow", ".pwd.lock"] {
        let path = hostile.guest().join("etc").join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
    }
    let errors = hostile.act();
    assert!(errors.iter().any(|error| names(error, "/etc/hosts", Kind::Directory)), "{errors:?}");
}

fn names(error: &DistError, name: &str, what: Kind) -> bool {
    match error {
        DistError::NotRegular { path, kind } => path == Path::new(name) && *kind == what,
        DistError::Several { first, others } => {
            names(first, name, what) || others.iter().any(|error| names(error, name, what))
        }
        _ => false,
    }
}

#[test]
fn huge_files_are_refused_and_stay() {
    let hostile = Hostile::new();
    for name in ["passwd", "hosts", "os-release", "inittab"] {
        File::create(hostile.guest().join("etc").join(name)).unwrap().set_len(1 << 30).unwrap();
    }
    let errors = hostile.act();
    assert!(
        errors.iter().any(|e| matches!(e, DistError::TooLarge { size, .. } if *size == 1 << 30)),
        "{errors:?}"
    );
    assert_eq!(fs::metadata(hostile.guest().join("etc/passwd")).unwrap().len(), 1 << 30);
}

#[test]
fn a_home_that_is_a_link_gets_nothing() {
    let hostile = Hostile::new();
    fs::create_dir(hostile.guest().join("home")).unwrap();
    hostile.replace_by_link("home/new", &hostile.path("host"));
    hostile.act();
    assert!(hostile.guest().join("home/new").is_symlink());
}

#[test]
fn a_held_password_lock_is_waited_for_but_not_for_ever() {
    // The lock of another process of the guest: taken by a child, as POSIX locks are per process.
    let hostile = Hostile::new();
    let lock = hostile.guest().join("etc/.pwd.lock");
    let script = "import fcntl,sys,time\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\ntime.sleep(0.3)\n";
    let child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&lock)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let root = GuestRoot::open(&hostile.guest()).unwrap();
    set_user_password(&root, "root", "x").unwrap();
    assert!(child.try_wait().unwrap().is_some() || child.wait().is_ok());
}

#[test]
fn passwords_keep_modes_and_owners() {
    let hostile = Hostile::new();
    let shadow = hostile.guest().join("etc/shadow");
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&shadow, Some(0), Some(42)).unwrap();
    let skel = hostile.guest().join("etc/skel/.profile");
    fs::set_permissions(&skel, fs::Permissions::from_mode(0o604)).unwrap();
    let root = GuestRoot::open(&hostile.guest()).unwrap();
    set_user_password(&root, "new", "secret").unwrap();
    let meta = fs::metadata(&shadow).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 0, 42));
    let profile = fs::metadata(hostile.guest().join("home/new/.profile")).unwrap();
    assert_eq!((profile.mode() & 0o7777, profile.uid(), profile.gid()), (0o604, 1000, 1000));
    let home = fs::metadata(hostile.guest().join("home/new")).unwrap();
    assert_eq!((home.mode() & 0o7777, home.uid()), (0o755, 1000));
    let lines = fs::read_to_string(hostile.guest().join("etc/passwd")).unwrap();
    assert_eq!(lines, "root:x:0:0::/root:/bin/sh\nnew:x:1000:1000::/home/new:/bin/sh\n");
}

#[test]
fn bad_names_and_passwords_change_nothing() {
    let hostile = Hostile::new();
    let before = fs::read(hostile.guest().join("etc/shadow")).unwrap();
    let root = GuestRoot::open(&hostile.guest()).unwrap();
    for user in ["", "a:b", "../x", "a\nroot"] {
        assert!(matches!(set_user_password(&root, user, "x"), Err(DistError::BadUser { .. })), "{user:?}");
    }
    assert!(matches!(set_user_password(&root, "root", "a\nb"), Err(DistError::BadPassword)));
    assert_eq!(fs::read(hostile.guest().join("etc/shadow")).unwrap(), before);
}
