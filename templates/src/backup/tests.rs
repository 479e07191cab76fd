//! Trees there and back, on from earlier backups, on after interruptions; and streams made to hurt.

use std::fs;
use std::io::Cursor as Bytes;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{FileType, Mode, mknodat};
use tempfile::TempDir;

use super::frame::{Kind as FrameKind, Sealer, key_of};
use super::item::{Entry, Item, Kind};
use super::press::{Position, Press};
use super::reader::{Frames, Pipe};
use super::replay::Replay;
use super::store::Stream;
use super::*;
use crate::archive::TreeDigest;
use crate::archive::tests::awkward;

struct Work {
    dir: TempDir,
}

impl Work {
    /// With a tree in it that has everything, also large files that share some of their bytes.
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let work = Self { dir };
        let tree = work.path("tree");
        fs::create_dir(&tree).unwrap();
        awkward(&tree);
        let overlay = rustix::fs::lremovexattr(tree.join("opaque"), "trusted.overlay.opaque");
        overlay.unwrap();
        let noise = noise(3 << 20);
        fs::write(tree.join("etc/large"), &noise).unwrap();
        fs::write(tree.join("etc/larger"), [&noise[1 << 20..], &noise, b"end"].concat()).unwrap();
        fs::write(tree.join("empty/nothing"), "").unwrap();
        let cwd = rustix::fs::CWD;
        mknodat(cwd, tree.join("dev/socket"), FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
        work.settle();
        work
    }

    /// Waits until the clock of files has gone on: only then is a file of before known again.
    fn settle(&self) {
        let path = self.path("clock");
        let first = std::time::SystemTime::now() + std::time::Duration::from_millis(100);
        loop {
            fs::write(&path, "").unwrap();
            if fs::metadata(&path).unwrap().modified().unwrap() > first {
                return;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> Location {
        Location::File(self.path(name))
    }

    fn digest(&self, name: &str) -> TreeDigest {
        TreeDigest::of(&self.path(name)).unwrap()
    }

    fn save(&self, to: &str, base: Option<&str>) -> Result<Saved, BackupError> {
        let root = self.path("tree");
        let head = Head { ctid: 101, config: "OSTEMPLATE=x\n".to_owned(), ..Head::default() };
        let base = base.map(|base| self.file(base));
        Save { root: &root, shift: 0, head, base, level: 1, running: None }.to(&self.file(to), &mut |_| {})
    }

    fn load(&self, from: &str, to: &str) -> Result<Totals, BackupError> {
        fs::create_dir(self.path(to)).unwrap();
        let load = Load::open(&self.file(from), Vec::new())?;
        load.into(&self.path(to), &mut |_| {}).map(|(_, totals)| totals)
    }

    /// As from a pipe, which cannot leap.
    fn load_from_pipe(&self, from: &str, to: &str) -> Result<(), Fault> {
        fs::create_dir(self.path(to)).unwrap();
        let bytes = fs::read(self.path(from)).unwrap();
        let placer = super::place::Placer::new(crate::archive::open_root(&self.path(to)).unwrap());
        replay(bytes, Some(placer))
    }

    fn must_be_same(&self, to: &str) {
        let diff = self.digest("tree").diff(&self.digest(to));
        assert!(diff.is_empty(), "{diff:#?}");
        let socket = fs::symlink_metadata(self.path(to).join("dev/socket")).unwrap();
        assert_eq!(socket.mode(), 0o140_600);
        assert!(names(&self.path(to)).iter().all(|name| !name.starts_with(".vzrestore")));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let names =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"noise of a tree").finalize_xof().fill(&mut bytes);
    bytes
}

pub(super) fn replay(bytes: Vec<u8>, placer: Option<super::place::Placer>) -> Result<(), Fault> {
    let stream: Stream = Box::new(Pipe(Bytes::new(bytes)));
    let (_, placer) = Replay::new(placer, Vec::new(), &mut |_| {}).run(Frames::open(stream)?)?;
    placer.map(super::place::Placer::finish).transpose().map(drop)
}

#[test]
fn a_tree_comes_back_with_everything() {
    let work = Work::new();
    let saved = work.save("a.vzb", None).unwrap();
    assert_eq!(names(work.dir.path()).iter().filter(|name| name.contains(".part")).count(), 0);
    assert_eq!((saved.resumed, saved.torn.count), (0, 0));
    // What the two large files have in common is there once.
    assert!(saved.totals.new < 4 << 20 && saved.totals.bytes > 8 << 20, "{:?}", saved.totals);
    let totals = work.load("a.vzb", "out").unwrap();
    assert_eq!(totals, saved.totals);
    work.must_be_same("out");
    work.load_from_pipe("a.vzb", "out2").unwrap();
    work.must_be_same("out2");
    let load = Load::open(&work.file("a.vzb"), Vec::new()).unwrap();
    assert_eq!((load.head().ctid, load.head().config.as_str()), (101, "OSTEMPLATE=x\n"));
    load.check(&mut |_| {}).unwrap();
    let mut paths = Vec::new();
    let listed = Load::open(&work.file("a.vzb"), Vec::new()).unwrap();
    listed.list(&mut |listed| paths.push(listed.path)).unwrap();
    assert_eq!(paths.len() as u64, totals.entries);
    assert!(paths.contains(&b"etc/large".to_vec()) && paths.contains(&b"var/run".to_vec()));
}

#[test]
fn the_next_backup_reads_and_stores_what_has_changed_alone() {
    let work = Work::new();
    let full = work.save("a.vzb", None).unwrap();
    let same = work.save("b.vzb", Some("a.vzb")).unwrap();
    let files =
        work.digest("tree").lines().values().filter(|line| line.contains("RegularFile")).count() as u64;
    // Of hard links the second one is no file.
    assert_eq!(same.totals.unread, files - 1);
    assert_eq!((same.totals.new, same.totals.bytes), (0, full.totals.bytes));
    assert!(same.stream < 16 << 10, "{}", same.stream);
    let changed = fs::OpenOptions::new().write(true).open(work.path("tree/etc/large")).unwrap();
    changed.write_all_at(b"changed", 1_500_000).unwrap();
    fs::remove_file(work.path("tree/caps")).unwrap();
    fs::rename(work.path("tree/acl"), work.path("tree/moved")).unwrap();
    work.settle();
    let third = work.save("c.vzb", Some("b.vzb")).unwrap();
    assert!((1..2 << 20).contains(&third.totals.new), "{:?}", third.totals);
    assert_eq!(third.head.chain.len(), 2);
    work.load("c.vzb", "out").unwrap();
    work.must_be_same("out");
    // Found by its id, whatever it is called.
    fs::rename(work.path("a.vzb"), work.path("renamed.vzb")).unwrap();
    work.load("c.vzb", "out2").unwrap();
    work.must_be_same("out2");
    Load::open(&work.file("c.vzb"), Vec::new()).unwrap().check(&mut |_| {}).unwrap();
    fs::create_dir(work.path("elsewhere")).unwrap();
    fs::rename(work.path("renamed.vzb"), work.path("elsewhere/a.vzb")).unwrap();
    let error = work.load("c.vzb", "out3").unwrap_err().to_string();
    assert!(error.contains("needs the backup 'a.vzb'") && error.contains(&full.head.id), "{error}");
    let load = Load::open(&work.file("c.vzb"), vec![work.file("elsewhere/a.vzb")]).unwrap();
    load.check(&mut |_| {}).unwrap();
    let error = work.save("d.vzb", Some("c.vzb")).unwrap_err().to_string();
    assert!(error.contains("needs the backup 'a.vzb'"), "{error}");
}

/// Cuts a backup off as `kill -9` would, and lets it go on.
#[test]
fn an_interrupted_backup_goes_on_from_where_it_was() {
    let work = Work::new();
    work.save("a.vzb", None).unwrap();
    let whole = fs::read(work.path("a.vzb")).unwrap();
    for (number, cut) in [50, 1000, whole.len() / 2, whole.len() - 20].into_iter().enumerate() {
        let (file, out) = (format!("b{number}.vzb"), format!("out{number}"));
        fs::write(work.path(&format!("{file}.part")), &whole[..cut]).unwrap();
        // What was there may also be out of date.
        fs::write(work.path("tree/etc/new"), format!("{cut}")).unwrap();
        work.settle();
        let saved = work.save(&file, None).unwrap();
        assert!(saved.resumed <= cut as u64);
        if cut >= whole.len() - 20 {
            assert!(saved.resumed > 2 << 20 && saved.totals.new < 100, "{saved:?}");
        }
        work.load(&file, &out).unwrap();
        work.must_be_same(&out);
        work.load_from_pipe(&file, &format!("{out}p")).unwrap();
        work.must_be_same(&format!("{out}p"));
        // It can be the base of the next one, and can be interrupted twice.
        let next = work.save(&format!("c{number}.vzb"), Some(&file)).unwrap();
        assert_eq!(next.totals.new, 0);
        let again = fs::read(work.path(&file)).unwrap();
        fs::write(work.path(&format!("{file}x.vzb.part")), &again[..again.len() - 40]).unwrap();
        work.save(&format!("{file}x.vzb"), None).unwrap();
        work.load(&format!("{file}x.vzb"), &format!("{out}x")).unwrap();
        work.must_be_same(&format!("{out}x"));
        fs::remove_file(work.path("tree/etc/new")).unwrap();
    }
}

#[test]
fn a_damaged_part_is_cut_off_and_made_anew() {
    let work = Work::new();
    work.save("a.vzb", None).unwrap();
    let mut bytes = fs::read(work.path("a.vzb")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(work.path("b.vzb.part"), &bytes).unwrap();
    let saved = work.save("b.vzb", None).unwrap();
    assert!(saved.resumed < middle as u64);
    work.load("b.vzb", "out").unwrap();
    work.must_be_same("out");
    // Another container's, and somebody else's file.
    fs::write(work.path("c.vzb.part"), "something else").unwrap();
    assert_eq!(work.save("c.vzb", None).unwrap().resumed, 0);
    assert!(matches!(work.save("c.vzb", None).unwrap_err().fault(), Fault::Exists));
}

#[test]
fn two_writers_of_one_backup_are_not_possible() {
    let work = Work::new();
    let part = fs::File::create(work.path("a.vzb.part")).unwrap();
    part.lock().unwrap();
    assert!(matches!(work.save("a.vzb", None).unwrap_err().fault(), Fault::Busy));
}

#[test]
fn damage_and_truncation_are_named_wherever_they_are() {
    let work = Work::new();
    work.save("a.vzb", None).unwrap();
    let whole = fs::read(work.path("a.vzb")).unwrap();
    let step = whole.len() / 150 + 1;
    for at in (0..whole.len()).step_by(step).chain(whole.len() - 20..whole.len()) {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        assert!(replay(bad.clone(), None).is_err(), "byte {at}");
        fs::write(work.path("bad.vzb"), &bad).unwrap();
        let checked = Load::open(&work.file("bad.vzb"), Vec::new()).and_then(|load| load.check(&mut |_| {}));
        assert!(checked.is_err(), "byte {at}");
        assert!(replay(whole[..at].to_vec(), None).is_err(), "cut at {at}");
    }
    let fault = replay(whole[..whole.len() / 2].to_vec(), None).unwrap_err();
    assert!(matches!(fault, Fault::Truncated { .. }), "{fault}");
}

/// A stream of these items, with honest checksums.
fn stream(items: &[Item], data: &[u8]) -> Vec<u8> {
    let head = Head { format: 1, id: "00".repeat(16), ..Head::default() };
    let mut meta = Vec::new();
    items.iter().for_each(|item| item.write(&mut meta));
    let json = serde_json::to_vec(&head).unwrap();
    let mut bytes = Sealer::new([0; 32], 1).unwrap().seal(FrameKind::Head, 0, &json, &[]).unwrap();
    let mut sealer = Sealer::new(key_of(&[0; 16]), 1).unwrap();
    bytes.extend(sealer.seal(FrameKind::Tree, 1, &meta, data).unwrap());
    let position = Position { at: bytes.len() as u64, frame: 2, chunk: 0 };
    let press = Press::new(bytes, key_of(&[0; 16]), 1, position).unwrap();
    press.finish(&Totals { entries: 2, ..Totals::default() }).unwrap().0
}

fn entry(name: &str, kind: Kind) -> Item {
    let (name, time) = (name.as_bytes().to_vec(), (0, 0));
    let (mode, uid, gid, inode, size) = (0o755, 0, 0, 1, 0);
    let (mtime, ctime, xattrs) = (time, time, Vec::new());
    Item::Entry(Entry { name, kind, mode, uid, gid, mtime, inode, ctime, size, xattrs })
}

#[test]
fn a_hostile_backup_writes_nothing_outside() {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let victim = work.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let out = victim.to_str().unwrap().as_bytes().to_vec();
    let root = || entry("", Kind::Dir);
    let close = || Item::Close { trusted: true };
    let link = |to: &[u8]| Kind::Symlink(to.to_vec());
    let cases: Vec<Vec<Item>> = vec![
        vec![root(), entry("l", link(&out)), entry("l", Kind::Dir), entry("evil", Kind::File), close()],
        vec![root(), entry("l", link(&out)), entry("l/evil", Kind::Dir)],
        vec![root(), entry("l", link(b"../victim")), entry("l/evil", Kind::Dir)],
        vec![root(), entry("l", link(&out)), entry("l", Kind::File), close()],
        vec![root(), entry("h", Kind::Hard(b"l/../../victim".to_vec()))],
        vec![root(), entry("l", link(b"/etc")), entry("h", Kind::Hard(b"l/passwd".to_vec()))],
        vec![entry("evil", Kind::File), close()],
        vec![entry("evil", Kind::Dir)],
        vec![root(), root()],
        vec![root(), close()],
        vec![root(), Item::Hole(5)],
        vec![root(), entry("f", Kind::File), Item::Hole(i64::MAX as u64), Item::Hole(1), close()],
        vec![root(), entry("f", Kind::File)],
        vec![root(), entry("f", Kind::File), root(), close()],
        vec![root(), Item::Ref { chunk: super::item::Chunk { generation: 3, number: 1 }, length: 1 }],
    ];
    for (number, items) in cases.iter().enumerate() {
        let dir = work.path().join("out");
        fs::create_dir(&dir).unwrap();
        let placer = super::place::Placer::new(crate::archive::open_root(&dir).unwrap());
        assert!(replay(stream(items, b""), Some(placer)).is_err(), "case {number}");
        assert!(fs::read_dir(&victim).unwrap().next().is_none(), "case {number}");
        fs::remove_dir_all(&dir).unwrap();
    }
    // A symlink to anywhere is none of ours to judge, and is not followed.
    let dir = work.path().join("out");
    fs::create_dir(&dir).unwrap();
    let placer = super::place::Placer::new(crate::archive::open_root(&dir).unwrap());
    replay(stream(&[root(), entry("l", link(&out))], b""), Some(placer)).unwrap();
    assert_eq!(fs::read_link(dir.join("l")).unwrap(), victim);
    symlink("x", dir.join("y")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever it says, it is placed below the root, or refused.
    #[test]
    fn any_items_are_placed_or_refused(
        items in vec(super::item::tests::item(), 0..12),
        data in vec(any::<u8>(), 0..64)
    ) {
        // Devices with the host's numbers and huge holes are harmless where nobody opens them.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut all = vec![entry("", Kind::Dir)];
        all.extend(items);
        let bytes = stream(&all, &data);
        let _ = replay(bytes.clone(), None);
        let placer = super::place::Placer::new(crate::archive::open_root(dir.path()).unwrap());
        let _ = replay(bytes, Some(placer));
    }

    /// Trees of files with any contents come back.
    #[test]
    fn any_contents_come_back(files in vec((any::<u8>(), 0_usize..1_500_000, any::<u16>()), 0..4)) {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let tree = work.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let noise = noise(4 << 20);
        for (number, (seed, length, from)) in files.iter().enumerate() {
            let from = usize::from(*from);
            let bytes = if seed % 3 == 0 { vec![*seed; *length] } else { noise[from..from + length].to_vec() };
            fs::write(tree.join(number.to_string()), bytes).unwrap();
        }
        let file = Location::File(work.path().join("a.vzb"));
        let save = Save { root: &tree, shift: 0, head: Head::default(), base: None, level: 1, running: None };
        save.to(&file, &mut |_| {}).unwrap();
        let out = work.path().join("out");
        fs::create_dir(&out).unwrap();
        Load::open(&file, Vec::new()).unwrap().into(&out, &mut |_| {}).unwrap();
        let diff = TreeDigest::of(&tree).unwrap().diff(&TreeDigest::of(&out).unwrap());
        prop_assert!(diff.is_empty(), "{:?}", diff);
    }

    #[test]
    fn any_bytes_are_read_or_refused(at in 0_usize..400, bytes in vec(any::<u8>(), 1..40)) {
        let mut stream = stream(&[entry("", Kind::Dir), entry("f", Kind::Fifo)], b"");
        let end = (at + bytes.len()).min(stream.len());
        let at = at.min(end);
        stream.splice(at..end, bytes);
        let _ = replay(stream, None);
    }
}
