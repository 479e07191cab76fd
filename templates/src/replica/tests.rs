use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::archive::TreeDigest;

fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    (dir, from, to)
}

fn same(from: &Path, to: &Path) {
    let diff = TreeDigest::of(from).unwrap().diff(&TreeDigest::of(to).unwrap());
    assert!(diff.is_empty(), "{diff:#?}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One change of a tree. Names are few, so that changes meet.
#[derive(Debug, Clone)]
enum Change {
    Write(u8, u8, u8),
    Append(u8, u8),
    Dir(u8, u8),
    Symlink(u8, u8),
    HardLink(u8, u8, u8),
    Rename(u8, u8, u8),
    Remove(u8, u8),
    Mode(u8, u8, u16),
    Sparse(u8, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let (d, n) = (0..3_u8, 0..4_u8);
    prop_oneof![
        (d.clone(), n.clone(), any::<u8>()).prop_map(|(d, n, c)| Change::Write(d, n, c)),
        (d.clone(), n.clone()).prop_map(|(d, n)| Change::Append(d, n)),
        (d.clone(), n.clone()).prop_map(|(d, n)| Change::Dir(d, n)),
        (d.clone(), n.clone()).prop_map(|(d, n)| Change::Symlink(d, n)),
        (d.clone(), n.clone(), n.clone()).prop_map(|(d, n, m)| Change::HardLink(d, n, m)),
        (d.clone(), n.clone(), n.clone()).prop_map(|(d, n, m)| Change::Rename(d, n, m)),
        (d.clone(), n.clone()).prop_map(|(d, n)| Change::Remove(d, n)),
        (d.clone(), n.clone(), any::<u16>()).prop_map(|(d, n, m)| Change::Mode(d, n, m)),
        (d, n).prop_map(|(d, n)| Change::Sparse(d, n)),
    ]
}

/// Never through a link: this runs as root, and what a link of the tree leads to is not the test's.
fn open(path: &Path, options: &mut fs::OpenOptions) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Does it; what is impossible is left out.
fn carry_out(root: &Path, change: &Change) {
    let dir = |d: u8| ["", "a", "a/b"][usize::from(d)];
    let path = |d: u8, n: u8| root.join(dir(d)).join(n.to_string());
    let _ = fs::create_dir_all(root.join("a/b"));
    match *change {
        Change::Write(d, n, c) => {
            if let Ok(mut file) =
                open(&path(d, n), fs::OpenOptions::new().write(true).create(true).truncate(true))
            {
                let _ = std::io::Write::write_all(&mut file, &vec![c; usize::from(c) * 40]);
            }
        }
        Change::Append(d, n) => {
            if let Ok(mut file) = open(&path(d, n), fs::OpenOptions::new().append(true)) {
                let _ = std::io::Write::write_all(&mut file, b"more");
            }
        }
        Change::Dir(d, n) => {
            drop(fs::create_dir(path(d, n)).and_then(|()| fs::write(path(d, n).join("x"), "x")))
        }
        Change::Symlink(d, n) => drop(symlink("nowhere/at/all", path(d, n))),
        Change::HardLink(d, n, m) => drop(fs::hard_link(path(d, n), path(0, m))),
        Change::Rename(d, n, m) => drop(fs::rename(path(d, n), path(0, m))),
        Change::Remove(d, n) => {
            let _ = fs::remove_file(path(d, n));
            let _ = fs::remove_dir_all(path(d, n));
        }
        Change::Mode(d, n, mode) => {
            if fs::symlink_metadata(path(d, n)).is_ok_and(|meta| !meta.is_symlink()) {
                let _ = fs::set_permissions(path(d, n), fs::Permissions::from_mode(u32::from(mode) & 0o7777));
            }
        }
        Change::Sparse(d, n) => {
            if let Ok(file) =
                open(&path(d, n), fs::OpenOptions::new().write(true).create(true).truncate(true))
            {
                use std::os::unix::fs::FileExt;
                let _ = file.write_all_at(b"end", 5 << 20);
            }
        }
    }
}

/// What was told, and which files are open: none.
fn told(watch: &mut crate::changes::Watch) -> Vec<crate::changes::Change> {
    match watch.drain().unwrap() {
        crate::changes::Drained::Changes(changes) => changes,
        crate::changes::Drained::Lost => panic!("lost"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_pass_over_what_was_told_is_as_good_as_one_over_all(
        rounds in prop::collection::vec(prop::collection::vec(change(), 0..12), 2..5)
    ) {
        if !is_root() {
            return Ok(());
        }
        let (_dir, from, to) = two();
        let Ok(mut watch) = crate::changes::Watch::start(&from) else { return Ok(()) };
        let mut scan = Scan::new(&from).unwrap();
        let mut replica = Replica::new(&to).unwrap();
        for (number, round) in rounds.iter().enumerate() {
            round.iter().for_each(|change| carry_out(&from, change));
            let changes = told(&mut watch);
            if number == 0 {
                scan.pass(More::ToCome, &mut replica).unwrap();
            } else {
                scan.pass_over(&changes, &[], More::ToCome, &mut replica).unwrap();
            }
            same(&from, &to);
        }
    }
}

#[test]
fn hashes_are_those_of_the_files_holes_and_all() {
    use std::os::unix::fs::FileExt;
    if !is_root() {
        return;
    }
    let (_dir, from, to) = two();
    fs::write(from.join("small"), "x").unwrap();
    fs::write(from.join("empty"), "").unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 3 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let mut replica = Replica::new(&to).unwrap();
    let mut hashing = Hashing { sink: &mut replica, digests: Digests::default() };
    Scan::new(&from).unwrap().pass(More::Nothing, &mut hashing).unwrap();
    for name in ["small", "empty", "sparse"] {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(fs::read(to.join(name)).unwrap());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hashing.digests.of(name), Some(hash), "{name}");
    }
    assert_eq!(hashing.digests.of("none"), None);
    // Not in order, or only a part: not known.
    let mut digests = Digests::default();
    let path = b"f".to_vec();
    digests.op(&Op::File { path: path.clone(), content: Content::New });
    digests.data(10, b"x");
    digests.data(0, b"x");
    digests.op(&Op::Close { size: 11, meta: Meta::default() });
    assert_eq!(digests.of("f"), None);
    digests.op(&Op::File { path, content: Content::Patched });
    digests.op(&Op::Close { size: 0, meta: Meta::default() });
    assert_eq!(digests.of("f"), None);
}

#[test]
fn a_pass_over_what_was_told_looks_at_nothing_else_but_open_files() {
    if !is_root() {
        return;
    }
    let (_dir, from, to) = two();
    let Ok(mut watch) = crate::changes::Watch::start(&from) else { return };
    for n in 0..50 {
        fs::create_dir(from.join(format!("d{n}"))).unwrap();
        fs::write(from.join(format!("d{n}/f")), "x").unwrap();
    }
    let mut scan = Scan::new(&from).unwrap();
    let mut replica = Replica::new(&to).unwrap();
    scan.pass(More::ToCome, &mut replica).unwrap();
    told(&mut watch);
    fs::write(from.join("d7/f"), "more").unwrap();
    fs::rename(from.join("d8"), from.join("d7/moved")).unwrap();
    let passed = scan.pass_over(&told(&mut watch), &[], More::ToCome, &mut replica).unwrap();
    assert!(passed.seen < 8, "{passed:?}");
    same(&from, &to);
    // One that was not told, by its number and by a name that is none here.
    fs::write(from.join("d9/f"), "by stealth").unwrap();
    told(&mut watch);
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(from.join("d9/f")).unwrap());
    let open = crate::changes::Open { path: "elsewhere/f".into(), inode };
    scan.pass_over(&[], &[open], More::Nothing, &mut replica).unwrap();
    same(&from, &to);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_changes_between_passes_the_copy_is_the_tree(
        rounds in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..4)
    ) {
        if !is_root() {
            return Ok(());
        }
        let (_dir, from, to) = two();
        let mut scan = Scan::new(&from).unwrap();
        let mut replica = Replica::new(&to).unwrap();
        for round in &rounds {
            round.iter().for_each(|change| carry_out(&from, change));
            scan.pass(More::ToCome, &mut replica).unwrap();
            same(&from, &to);
        }
        scan.pass(More::Nothing, &mut replica).unwrap();
        same(&from, &to);
    }
}

#[test]
fn a_large_file_is_sent_by_what_changed_in_it() {
    use std::os::unix::fs::FileExt;
    let (_dir, from, to) = two();
    let file = fs::File::create(from.join("disk")).unwrap();
    let noise: Vec<u8> = (0..9_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    file.write_all_at(&noise, 0).unwrap();
    file.set_len(40 << 20).unwrap();
    let (mut scan, mut replica) = (Scan::new(&from).unwrap(), Replica::new(&to).unwrap());
    let first = scan.pass(More::ToCome, &mut replica).unwrap();
    assert_eq!(first.bytes, 9 << 20);
    file.write_all_at(b"changed", 5 << 20).unwrap();
    file.write_all_at(&[0; 1 << 20], 2 << 20).unwrap();
    file.write_all_at(b"tail", 39 << 20).unwrap();
    let second = scan.pass(More::Nothing, &mut replica).unwrap();
    assert_eq!(second.bytes, 3 << 20, "only the blocks that changed");
    same(&from, &to);
    file.set_len(3 << 20).unwrap();
    scan.pass(More::Nothing, &mut replica).unwrap();
    same(&from, &to);
}

#[test]
fn what_only_root_can_make_is_copied() {
    if !is_root() {
        println!("\nSKIP: needs root");
        return;
    }
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, chown, makedev, mknodat, setxattr};
    let (_dir, from, to) = two();
    mknodat(CWD, from.join("null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
    mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
    fs::write(from.join("ping"), "x").unwrap();
    chown(from.join("ping"), None, Some(rustix::fs::Gid::from_raw(1000))).unwrap();
    fs::set_permissions(from.join("ping"), fs::Permissions::from_mode(0o6755)).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(from.join("ping"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    setxattr(&from, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    setxattr(from.join("ping"), "trusted.overlay.origin", b"handle", XattrFlags::empty()).unwrap();
    let (mut scan, mut replica) = (Scan::new(&from).unwrap(), Replica::new(&to).unwrap());
    scan.pass(More::ToCome, &mut replica).unwrap();
    let diff = TreeDigest::of(&from).unwrap().diff(&TreeDigest::of(&to).unwrap());
    assert!(diff.len() == 1 && diff[0].contains("overlay.origin"), "{diff:#?}");
    use std::os::unix::fs::FileTypeExt;
    assert!(fs::symlink_metadata(to.join("socket")).unwrap().file_type().is_socket());
    // Nothing changed: nothing is sent but what is too young to be believed.
    rustix::fs::removexattr(from.join("ping"), "security.capability").unwrap();
    scan.pass(More::Nothing, &mut replica).unwrap();
    rustix::fs::removexattr(from.join("ping"), "trusted.overlay.origin").unwrap();
    scan.pass(More::Nothing, &mut replica).unwrap();
    same(&from, &to);
}

#[test]
fn steps_that_lead_elsewhere_are_refused() {
    let (dir, _, to) = two();
    fs::create_dir(dir.path().join("outside")).unwrap();
    symlink("../outside", to.join("link")).unwrap();
    let mut replica = Replica::new(&to).unwrap();
    let meta = Meta { mode: 0o755, ..Meta::default() };
    for path in ["../x", "/x", "a/../../x", "", "a//b", "./a", "a\0b"] {
        let op = Op::Directory { path: path.as_bytes().to_vec() };
        assert!(matches!(replica.op(op), Err(ReplicaError::Refused { .. })), "{path}");
    }
    for op in [
        Op::Directory { path: b"link/x".to_vec() },
        Op::File { path: b"link/x".to_vec(), content: Content::New },
        Op::File { path: b"link".to_vec(), content: Content::Patched },
        Op::Leave { path: b"link".to_vec(), meta: meta.clone() },
        Op::HardLink { path: b"x".to_vec(), target: b"link/file".to_vec() },
        Op::Remove { path: b"link/x".to_vec() },
        Op::Close { size: 0, meta: meta.clone() },
        Op::Zero { offset: 0, length: 1 },
    ] {
        assert!(replica.op(op.clone()).is_err(), "{op:?}");
    }
    assert!(replica.data(0, b"x").is_err());
    replica.op(Op::File { path: b"f".to_vec(), content: Content::New }).unwrap();
    assert!(replica.data(u64::MAX - 1, b"xxx").is_err());
    assert!(replica.op(Op::Directory { path: b"d".to_vec() }).is_err());
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
}
