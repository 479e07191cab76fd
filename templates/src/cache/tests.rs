use std::sync::atomic::{AtomicU32, Ordering};

use vzconf::{Ctid, Exit};

use super::*;
use crate::archive::Pack;

struct Fixture {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let cache = Cache::open(dir.path());
        Self { dir, cache }
    }

    fn make(&self, name: &str, content: &str) -> Template {
        let work = self.cache.workshop().unwrap();
        let tree = work.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), content).unwrap();
        let tarball = work.path().join("t.tar");
        let summary = Pack::new().into(&tree, &tarball, Compression::None).unwrap();
        let metadata = Metadata { unpacked: summary.disk, ..Metadata::default() };
        self.cache.publish(name, &tarball, Compression::Zstd, metadata).unwrap()
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.bases()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn ct(id: u32) -> Ctid {
    Ctid::new(id).unwrap()
}

#[test]
fn templates_are_found_in_the_classic_order_and_foreign_ones_listed() {
    let f = Fixture::new();
    f.make("debian-12", "x");
    fs::write(f.cache.tarballs().join("foreign-1.tar.gz"), "whatever").unwrap();
    fs::write(f.cache.tarballs().join("notes.txt"), "").unwrap();
    fs::write(f.cache.tarballs().join(".hidden.tar"), "").unwrap();
    let names: Vec<String> = f.cache.list().unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["debian-12", "foreign-1"]);
    assert!(f.cache.find("foreign-1").unwrap().metadata.is_none());
    assert!(f.cache.find("debian-12").unwrap().metadata.is_some());
    fs::write(f.cache.tarballs().join("debian-12.tar"), "plain comes first").unwrap();
    let found = f.cache.find("debian-12").unwrap();
    assert!(found.path.ends_with("debian-12.tar") && found.metadata.is_none());
    for name in ["nothing", "../cache/debian-12", "", "a/b"] {
        let error = f.cache.find(name).unwrap_err();
        assert_eq!(error.exit(), Exit::OstemplateNotFound);
        assert!(
            error.to_string().starts_with("Cached OS template ") && error.to_string().ends_with(" not found")
        );
    }
}

#[test]
fn verify_sees_a_flipped_bit_and_a_foreign_cut() {
    let f = Fixture::new();
    let template = f.make("t", "content");
    f.cache.verify("t", |_| {}).unwrap();
    let mut bytes = fs::read(&template.path).unwrap();
    bytes[600] ^= 1;
    fs::write(&template.path, &bytes).unwrap();
    assert!(matches!(f.cache.verify("t", |_| {}), Err(CacheError::Damaged { .. })));
    fs::remove_file(f.cache.tarballs().join("t.json")).unwrap();
    fs::write(&template.path, &bytes[..700]).unwrap();
    assert!(matches!(f.cache.verify("t", |_| {}), Err(CacheError::Archive(_))));
}

#[test]
fn a_base_is_unpacked_once_by_many_at_a_time() {
    let f = Fixture::new();
    let template = f.make("t", "content");
    let stale = f.cache.bases().join(format!("{}.tmp/rest", template.base_id()));
    fs::create_dir_all(stale).unwrap();
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let work = || {
            let base = f.cache.base(&template, |_| {}).unwrap();
            assert_eq!(fs::read_to_string(base.path.join("file")).unwrap(), "content");
            use std::os::unix::fs::MetadataExt;
            fs::metadata(&base.path).unwrap().ino()
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|inode| *inode == inodes[0]));
    assert_eq!(f.left(), [template.base_id(), format!("{}.lock", template.base_id())]);
}

#[test]
fn a_replaced_templates_base_goes_with_its_last_container() {
    let f = Fixture::new();
    let old = f.make("t", "old");
    let base = f.cache.base(&old, |_| {}).unwrap();
    f.cache.add_ref(&base.id, ct(101)).unwrap();
    f.cache.add_ref(&base.id, ct(102)).unwrap();
    drop(base);
    let new = f.make("t", "new");
    assert_ne!(old.base_id(), new.base_id());
    f.cache.prune().unwrap();
    f.cache.drop_ref(&old.base_id(), ct(101)).unwrap();
    assert_eq!(f.cache.users(&old.base_id()), [ct(102)]);
    assert!(f.cache.bases().join(old.base_id()).is_dir());
    f.cache.drop_ref(&old.base_id(), ct(102)).unwrap();
    assert!(f.left().is_empty(), "{:?}", f.left());
    // The current one stays for the next container.
    let base = f.cache.base(&new, |_| {}).unwrap();
    f.cache.add_ref(&base.id, ct(101)).unwrap();
    let id = base.id.clone();
    drop(base);
    f.cache.drop_ref(&id, ct(101)).unwrap();
    assert!(f.cache.bases().join(&id).is_dir());
}

#[test]
fn a_base_in_use_is_not_pruned_before_it_is_referred_to() {
    let f = Fixture::new();
    let old = f.make("t", "old");
    let base = f.cache.base(&old, |_| {}).unwrap();
    f.make("t", "new");
    assert!(base.path.is_dir());
    drop(base);
    f.cache.prune().unwrap();
    assert!(!f.cache.bases().join(old.base_id()).exists());
}

#[test]
fn rm_refuses_what_is_in_use() {
    let f = Fixture::new();
    let template = f.make("t", "x");
    let base = f.cache.base(&template, |_| {}).unwrap();
    f.cache.add_ref(&base.id, ct(7)).unwrap();
    drop(base);
    let error = f.cache.rm("t", Force::No).unwrap_err();
    assert_eq!(error.to_string(), "template t is in use by container(s) 7");
    f.cache.rm("t", Force::Yes).unwrap();
    assert!(f.cache.find("t").is_err());
    assert!(f.cache.bases().join(template.base_id()).is_dir());
    f.cache.drop_ref(&template.base_id(), ct(7)).unwrap();
    assert!(f.left().is_empty());
    let counter = AtomicU32::new(0);
    for entry in fs::read_dir(f.dir.path()).unwrap().flatten() {
        counter.fetch_add(u32::from(entry.file_name().to_string_lossy().starts_with('.')), Ordering::Relaxed);
    }
    assert_eq!(counter.into_inner(), 0, "workshops stay behind");
}

#[test]
fn what_killed_commands_left_in_the_making_goes_and_what_lives_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path());
    let living = cache.workshop().unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let age = |path: &Path| File::open(path).unwrap().set_modified(long_ago).unwrap();
    let (dead, young) = (dir.path().join(".making-dead"), dir.path().join(".making-young"));
    for path in [&dead, &young] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("files.tar"), "x").unwrap();
    }
    age(&dead);
    age(living.path());
    drop(cache.workshop().unwrap());
    assert!(!dead.exists() && young.exists() && living.path().exists());
}
