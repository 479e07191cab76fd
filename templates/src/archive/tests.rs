//! Trees with every awkward file, there and back, by us and by GNU tar; and archives made to hurt.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat};
use tempfile::TempDir;

use super::writer::{Entry, EntryKind, Writer};
use super::*;

/// v2 capabilities whose bytes hold a newline: `cap_dac_override,cap_fowner+ep`.
const CAPS: [u8; 20] = [1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn dir() -> TempDir {
    // Not /tmp: that may be a tmpfs, which has no user attributes on older kernels.
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&bits.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A tree in which everything is hard to keep.
pub(crate) fn awkward(root: &Path) {
    let at = |name: &str| root.join(name);
    for name in ["etc", "run", "var", "deep", "opaque", "acl", "dev", "empty"] {
        fs::create_dir(at(name)).unwrap();
    }
    symlink("/run", at("var/run")).unwrap();
    symlink("/nowhere/../../out", at("dangling")).unwrap();
    fs::hard_link(at("dangling"), at("dangling-too")).unwrap();
    fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\nva:x:4000000:1::/:/bin/sh\n").unwrap();
    fs::write(at("etc/setuid"), "x").unwrap();
    chown(at("etc/setuid"), Some(4_000_000_000), Some(17)).unwrap();
    fs::set_permissions(at("etc/setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(at("etc/setuid"), at("etc/again")).unwrap();
    fs::write(at("caps"), "elf").unwrap();
    xattr(&at("caps"), "security.capability", &CAPS);
    xattr(&at("caps"), "user.line\nbreak", b"a\nb=c\0");
    xattr(&at("opaque"), "trusted.overlay.opaque", b"y");
    let cwd = rustix::fs::CWD;
    for (name, kind, device) in [
        ("dev/null", FileType::CharacterDevice, (1, 3)),
        ("dev/big", FileType::BlockDevice, (259, 70000)),
        ("dev/pipe", FileType::Fifo, (0, 0)),
    ] {
        mknodat(cwd, at(name), kind, Mode::from_raw_mode(0o640), rustix::fs::makedev(device.0, device.1))
            .unwrap();
    }
    fs::hard_link(at("dev/null"), at("dev/zero")).unwrap();
    chown(at("dev/null"), Some(0), Some(5)).unwrap();
    let wide = [
        (1, 7, u32::MAX),
        (2, 5, 1),
        (4, 5, u32::MAX),
        (8, 6, 4_000_000),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    fs::write(at("acl/file"), "x").unwrap();
    xattr(&at("acl/file"), "system.posix_acl_access", &acl(&wide));
    xattr(&at("acl"), "system.posix_acl_default", &acl(&wide));
    sparse_files(root);
    odd_names(root);
    fs::set_permissions(at("run"), fs::Permissions::from_mode(0o1777)).unwrap();
    set_time(&at("caps"), -77, 250_000_000);
    set_time(&at("dangling"), 1_000_000_000, 123_456_789);
    set_time(&at("etc"), 0, 0);
    set_time(&at("empty"), 1_234_567_890, 1);
}

fn sparse_files(root: &Path) {
    for (name, pieces, size) in [
        ("sparse", &[(0u64, &b"head"[..]), (1 << 20, b"middle")][..], 3u64 << 20),
        ("all-hole", &[], 9 << 30),
        ("tail", &[((64 << 20) - 4, b"tail")], 64 << 20),
    ] {
        let file = fs::File::create(root.join(name)).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
    }
}

fn odd_names(root: &Path) {
    let at = |name: &str| root.join(name);
    use std::os::unix::ffi::OsStrExt;
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\xfe")), "x").unwrap();
    fs::write(at("new\nline"), vec![7; 100_000]).unwrap();
    let mut long = at("deep");
    for _ in 0..12 {
        long.push("a-directory-with-quite-a-long-name");
        fs::create_dir(&long).unwrap();
    }
    fs::write(long.join("f".repeat(255)), "deep").unwrap();
    symlink("t".repeat(300), at("long-link")).unwrap();
}

fn unpack(archive: &Path, dest: &Path) -> TreeDigest {
    Unpack::new(archive).into(dest).unwrap_or_else(|error| panic!("{error}"));
    TreeDigest::of(dest).unwrap()
}

fn tar(arguments: &[&str]) {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-p", "-S"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn assert_same(ours: &TreeDigest, theirs: &TreeDigest) {
    let diff = ours.diff(theirs);
    assert!(diff.is_empty(), "{}", diff.join("\n"));
    assert!(ours.lines().len() > 25);
}

#[test]
fn every_awkward_file_survives_our_own_archive_in_every_compression() {
    let work = dir();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    awkward(&tree);
    let want = TreeDigest::of(&tree).unwrap();
    for compression in Compression::ALL {
        let archive = work.path().join(format!("a{}", compression.suffix()));
        Pack::new().into(&tree, &archive, compression).unwrap();
        let dest = work.path().join(format!("out{}", compression.suffix()));
        assert_same(&want, &unpack(&archive, &dest));
        let checked = check(&archive, Limits::default(), |_| {}).unwrap();
        assert!(checked.entries > 25);
    }
}

#[test]
fn gnu_tar_unpacks_our_archive() {
    let work = dir();
    let (tree, out) = (work.path().join("tree"), work.path().join("out"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&out).unwrap();
    awkward(&tree);
    let archive = work.path().join("a.tar");
    Pack::new().into(&tree, &archive, Compression::None).unwrap();
    tar(&["-xf", archive.to_str().unwrap(), "-C", out.to_str().unwrap()]);
    assert_same(&TreeDigest::of(&tree).unwrap(), &TreeDigest::of(&out).unwrap());
}

/// GNU tar keeps two names of a device apart, and knows neither attributes nor times of before 1970 in its old
/// format: what it cannot keep is taken away first.
fn plain_enough(tree: &Path, format: &str) {
    fs::remove_file(tree.join("dev/zero")).unwrap();
    if format == "gnu" {
        for entry in ["caps", "opaque", "acl", "dangling", "dangling-too", "empty"] {
            let path = tree.join(entry);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        whole_seconds(tree);
    }
}

fn whole_seconds(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            whole_seconds(&entry.unwrap().path());
        }
    }
    use std::os::unix::fs::MetadataExt;
    set_time(path, meta.mtime(), 0);
}

#[test]
fn gnu_tars_archives_unpack_as_they_were() {
    for (format, sparse) in [("gnu", "1.0"), ("posix", "0.0"), ("posix", "0.1"), ("posix", "1.0")] {
        let work = dir();
        let tree = work.path().join("tree");
        fs::create_dir(&tree).unwrap();
        awkward(&tree);
        plain_enough(&tree, format);
        let archive = work.path().join("a.tar");
        let (format, sparse) = (format!("--format={format}"), format!("--sparse-version={sparse}"));
        let mut arguments = vec![format.as_str()];
        let (file, from) = (archive.to_str().unwrap(), tree.to_str().unwrap());
        arguments.extend([sparse.as_str(), "-cf", file, "-C", from, "."]);
        if format == "--format=gnu" {
            arguments.remove(1);
            let output =
                Command::new("tar").args(["--numeric-owner", "-S"]).args(&arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            tar(&arguments);
        }
        assert_same(&TreeDigest::of(&tree).unwrap(), &unpack(&archive, &work.path().join("out")));
    }
}

#[test]
fn ids_are_shifted_back_and_paths_left_out() {
    let work = dir();
    let tree = work.path().join("tree");
    fs::create_dir_all(tree.join("proc/1")).unwrap();
    fs::create_dir_all(tree.join("etc/ssh")).unwrap();
    for name in ["etc/machine-id", "etc/ssh/ssh_host_rsa_key", "etc/ssh/sshd_config"] {
        fs::write(tree.join(name), "secret").unwrap();
        chown(tree.join(name), Some(131_072 + 7), Some(131_072)).unwrap();
    }
    chown(tree.join("etc"), Some(5), Some(131_072)).unwrap();
    let archive = work.path().join("a.tar");
    let pack = Pack::new()
        .shift(131_072)
        .exclude(&["etc/ssh/ssh_host_*"])
        .hollow(&["proc"])
        .blank(&["etc/machine-id"]);
    pack.into(&tree, &archive, Compression::None).unwrap();
    let lines = unpack(&archive, &work.path().join("out")).lines().clone();
    assert!(lines["etc/machine-id"].contains(" 7:0 ") && lines["etc/machine-id"].contains(" 0b "));
    assert!(lines["etc"].contains(" 65534:0 "));
    assert!(lines.contains_key("proc") && !lines.contains_key("proc/1"));
    assert!(lines.contains_key("etc/ssh/sshd_config") && !lines.contains_key("etc/ssh/ssh_host_rsa_key"));
}

// ---- archives made to hurt ----

fn write(path: &Path, entries: &[(Entry, &[u8])]) {
    let mut writer = Writer::create(path, Compression::None).unwrap();
    for (entry, data) in entries {
        writer.add(entry, data).unwrap();
    }
    writer.finish().unwrap();
}

fn file(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::File, 0o644), b"evil")
}

type Case<'a> = (&'a str, Vec<(Entry, &'a [u8])>);

fn link(path: &str, to: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::Symlink(to.into()), 0o777), b"")
}

fn hard(path: &str, to: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::HardLink(to.into()), 0o644), b"")
}

fn folder(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::Directory, 0o755), b"")
}

/// Everything around the destination, which no archive may change.
struct Outside {
    work: TempDir,
}

impl Outside {
    fn new() -> Self {
        let work = dir();
        fs::write(work.path().join("victim"), "untouched").unwrap();
        Self { work }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Unpacks; then only archive, victim and perhaps the destination are there.
    fn unpack(&self, limits: Limits) -> Result<Summary, ArchiveError> {
        let result = Unpack::new(self.path("a.tar")).limits(limits).needed(Some(0)).into(&self.path("out"));
        assert_eq!(fs::read_to_string(self.path("victim")).unwrap(), "untouched");
        let mut names: Vec<_> =
            fs::read_dir(self.work.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.retain(|name| name != "a.tar" && name != "victim");
        if result.is_ok() {
            assert_eq!(names, ["out"]);
        } else {
            assert!(names.is_empty(), "{names:?}");
        }
        result
    }
}

#[test]
fn hostile_members_are_refused_and_nothing_stays() {
    let cases: Vec<Case<'_>> = vec![
        ("refused: a name with '..'", vec![file("../victim")]),
        ("refused: a name with '..'", vec![file("a/../../victim")]),
        ("refused: a name with '..'", vec![file("x"), hard("y", "../victim")]),
        ("refused: a hard link to itself", vec![file("x"), hard("x", "x")]),
        ("which is not there", vec![hard("y", "nothing")]),
        ("which is not there", vec![link("up", ".."), hard("y", "up/victim")]),
        ("not empty", vec![folder("d"), file("d/x"), link("d", "/")]),
        ("refused: the root is no directory", vec![file(".")]),
        ("Not a directory", vec![file("x"), file("x/y")]),
        ("Operation not permitted", vec![folder("d"), hard("y", "d")]),
        ("limit of 255", vec![file(&"n".repeat(256))]),
        ("limit of 4095", vec![link("x", &"n".repeat(5000))]),
    ];
    for (want, entries) in cases {
        let outside = Outside::new();
        write(&outside.path("a.tar"), &entries);
        let error = outside.unpack(Limits::default()).expect_err(want);
        assert!(error.to_string().contains(want), "{error} / {want}");
        assert!(error.to_string().contains("a.tar") && error.member().is_some(), "{error}");
    }
}

#[test]
fn links_lead_about_inside_only() {
    let outside = Outside::new();
    write(
        &outside.path("a.tar"),
        &[
            link("abs", "/"),
            file("abs/victim"),
            link("up", "../../../.."),
            file("up/victim2"),
            link("a", "b"),
            link("b", "/c/../c"),
            folder("c"),
            file("a/in-c"),
            link("var-run", "/run/later"),
            file("var-run/made"),
            link("victim3", "../victim"),
            file("victim3"),
            (Entry::new("/absolute", EntryKind::File, 0o644), b""),
            hard("linked", "abs/victim"),
        ],
    );
    outside.unpack(Limits::default()).unwrap();
    for name in ["victim", "victim2", "c/in-c", "run/later/made", "victim3", "absolute", "linked"] {
        assert!(fs::symlink_metadata(outside.path("out").join(name)).unwrap().is_file(), "{name}");
    }
}

#[test]
fn limits_hold() {
    let small = Limits { bytes: 1000, entries: 3, path: 50, xattrs: 100 };
    let mut fat = file("fat");
    fat.0.xattrs.push((b"user.a".to_vec(), vec![1; 200]));
    let cases: Vec<Case<'_>> = vec![
        ("unpacked size above the limit of 1000", vec![file("x"), (file("y").0, &[0; 2000])]),
        ("number of members above the limit of 3", vec![file("a"), file("b"), file("c"), file("d")]),
        ("length of a path above the limit of 50", vec![file(&"long/".repeat(12))]),
        ("attributes above the limit of 100", vec![fat]),
    ];
    for (want, entries) in cases {
        let outside = Outside::new();
        write(&outside.path("a.tar"), &entries);
        let error = outside.unpack(small).expect_err(want);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn truncated_and_damaged_archives_are_told_apart() {
    let tree = dir();
    fs::write(tree.path().join("data"), (0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .unwrap();
    for compression in Compression::ALL {
        let outside = Outside::new();
        let archive = outside.path("a.tar");
        Pack::new().into(tree.path(), &archive, compression).unwrap();
        let whole = fs::read(&archive).unwrap();
        for cut in [0, 1, 100, 600, whole.len() / 2, whole.len() - 600.min(whole.len() / 3), whole.len() - 1]
        {
            fs::write(&archive, &whole[..cut]).unwrap();
            let error = outside.unpack(Limits::default()).expect_err("cut");
            assert!(
                matches!(error.fault(), Fault::Truncated | Fault::Corrupt { .. }),
                "{compression:?} {cut} {error}"
            );
        }
        if compression != Compression::None {
            let mut bad = whole.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 0x55;
            fs::write(&archive, &bad).unwrap();
            let error = outside.unpack(Limits::default()).expect_err("flipped");
            assert!(
                matches!(error.fault(), Fault::Corrupt { .. } | Fault::Truncated),
                "{compression:?} {error}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_exit_46_before_and_during() {
    let outside = Outside::new();
    write(&outside.path("a.tar"), &[file("x")]);
    let before = Unpack::new(outside.path("a.tar")).needed(Some(u64::MAX / 2)).into(&outside.path("out"));
    let error = before.unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::FsNoDiskSpace);
    assert!(error.to_string().starts_with("Insufficient disk space in "), "{error}");
    assert!(!outside.path("out").exists() && !outside.path("out.tmp").exists());
}

/// A file system of one MiB, gone when dropped.
struct Small(TempDir);

impl Small {
    fn new() -> Self {
        let dir = dir();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path());
        assert!(command.status().unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_exit_46_and_nothing_stays() {
    let (outside, small) = (Outside::new(), Small::new());
    write(&outside.path("a.tar"), &[file("x"), (file("large").0, &[7; 4 << 20])]);
    let dest = small.0.path().join("101");
    let error = Unpack::new(outside.path("a.tar")).needed(Some(0)).into(&dest).unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::FsNoDiskSpace);
    assert!(error.to_string().contains("/101; available: "), "{error}");
    assert_eq!(fs::read_dir(small.0.path()).unwrap().count(), 0);
}

#[test]
fn a_stale_temporary_is_replaced_and_an_existing_destination_kept() {
    let outside = Outside::new();
    write(&outside.path("a.tar"), &[file("x")]);
    fs::create_dir_all(outside.path("out.tmp/old")).unwrap();
    outside.unpack(Limits::default()).unwrap();
    assert!(!outside.path("out/old").exists() && outside.path("out/x").exists());
    let error = Unpack::new(outside.path("a.tar")).into(&outside.path("out")).unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::FsPrvtAreaExist);
    assert!(outside.path("out/x").exists());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn no_bytes_make_the_reader_panic_or_leave(
        noise in proptest::collection::vec((0usize..4096, proptest::prelude::any::<u8>()), 1..12)
    ) {
        let outside = Outside::new();
        let mut sparse = file("s");
        sparse.0.xattrs.push((b"user.a".to_vec(), b"b".to_vec()));
        write(&outside.path("a.tar"), &[folder("d"), sparse, link("d/l", "/"), hard("h", "s"), file("d/l/f")]);
        let mut bytes = fs::read(outside.path("a.tar")).unwrap();
        for (at, byte) in noise {
            let at = at % bytes.len();
            bytes[at] = byte;
            // A right checksum lets the noise reach further.
            let header = at / 512 * 512;
            let sum: u32 = bytes[header..header + 512].iter().enumerate()
                .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
            bytes[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        fs::write(outside.path("a.tar"), bytes).unwrap();
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let _ = outside.unpack(limits);
    }
}
