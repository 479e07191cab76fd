//! Trees that change while they are saved.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::passes::{Running, Stand};
use super::*;
use crate::archive::TreeDigest;

/// What happens to the tree while nothing else is at work on it: before the last pass, and after it.
struct Playing<'a> {
    before: RefCell<Vec<Box<dyn FnOnce() + 'a>>>,
    /// The tree as it was in the last pass.
    moment: RefCell<Option<TreeDigest>>,
    tree: PathBuf,
    after: RefCell<Vec<Box<dyn FnOnce() + 'a>>>,
    said: RefCell<Vec<String>>,
}

impl Stand for Playing<'_> {
    fn mapped(&self) -> Result<Vec<PathBuf>, Fault> {
        Ok(Vec::new())
    }

    fn hold(&self, work: &mut dyn FnMut() -> Result<u64, Fault>) -> Result<(), Fault> {
        self.before.take().into_iter().for_each(|act| act());
        *self.moment.borrow_mut() = Some(TreeDigest::of(&self.tree).unwrap());
        work()?;
        self.after.take().into_iter().for_each(|act| act());
        Ok(())
    }

    fn say(&self, words: &str) {
        self.said.borrow_mut().push(words.to_owned());
    }
}

struct Work(TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir_in("/var/tmp").unwrap());
        for dir in ["tree/etc/deep/er", "tree/var/log", "tree/gone/with", "tree/moves/all"] {
            fs::create_dir_all(work.path(dir)).unwrap();
        }
        for (number, dir) in ["etc", "etc/deep/er", "var", "gone/with", "moves/all"].into_iter().enumerate() {
            for file in 0..20 {
                fs::write(work.path(&format!("tree/{dir}/f{file}")), vec![number as u8; 3000 + file])
                    .unwrap();
            }
        }
        fs::write(work.path("tree/var/large"), vec![7; 3 << 20]).unwrap();
        fs::hard_link(work.path("tree/var/large"), work.path("tree/etc/also-large")).unwrap();
        symlink("/nowhere", work.path("tree/etc/link")).unwrap();
        fs::hard_link(work.path("tree/etc/link"), work.path("tree/var/also-link")).unwrap();
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Saves the tree while `before` and `after` happen to it; returns it as it was at the moment between.
    fn save<'a>(
        &self,
        to: &str,
        base: Option<&str>,
        tells: Result<(), String>,
        before: impl FnOnce() + 'a,
        after: impl FnOnce() + 'a,
    ) -> (Saved, TreeDigest, Vec<String>) {
        let tree = self.path("tree");
        let playing = Playing {
            before: RefCell::new(vec![Box::new(before)]),
            moment: RefCell::default(),
            tree: tree.clone(),
            after: RefCell::new(vec![Box::new(after)]),
            said: RefCell::default(),
        };
        let running = Some(Running { written: &tree, tells, stand: &playing });
        let base = base.map(|base| Location::File(self.path(base)));
        let save = Save { root: &tree, shift: 0, head: Head::default(), base, level: 1, running };
        let saved = save.to(&Location::File(self.path(to)), &mut |_| {}).unwrap();
        (saved, playing.moment.take().unwrap(), playing.said.take())
    }

    fn must_hold(&self, file: &str, moment: &TreeDigest) {
        for how in ["file", "pipe"] {
            let out = self.path(&format!("{file}.{how}"));
            fs::create_dir(&out).unwrap();
            let load = Load::open(&Location::File(self.path(file)), Vec::new()).unwrap();
            if how == "file" {
                load.into(&out, &mut |_| {}).unwrap();
            } else if load.head().chain.is_empty() {
                let placer = super::place::Placer::new(crate::archive::open_root(&out).unwrap());
                super::tests::replay(fs::read(self.path(file)).unwrap(), Some(placer)).unwrap();
            } else {
                continue;
            }
            let diff = moment.diff(&TreeDigest::of(&out).unwrap());
            assert!(diff.is_empty(), "{how}: {diff:#?}");
        }
    }
}

/// All kinds of changes.
fn shuffle(tree: &Path) {
    fs::write(tree.join("etc/f3"), "anew").unwrap();
    fs::write(tree.join("etc/new"), "new").unwrap();
    fs::remove_file(tree.join("var/f1")).unwrap();
    fs::remove_dir_all(tree.join("gone")).unwrap();
    fs::rename(tree.join("moves"), tree.join("moved")).unwrap();
    fs::write(tree.join("moved/all/f2"), "after the move").unwrap();
    fs::create_dir_all(tree.join("fresh/and/deep")).unwrap();
    fs::write(tree.join("fresh/and/deep/file"), vec![9; 100_000]).unwrap();
    // By one name, and seen by the other; in the middle, without another length.
    let mut large = File::options().write(true).open(tree.join("etc/also-large")).unwrap();
    large.seek(SeekFrom::Start(1 << 20)).unwrap();
    large.write_all(b"changed").unwrap();
    fs::hard_link(tree.join("var/f5"), tree.join("fresh/f5")).unwrap();
    fs::remove_file(tree.join("var/also-link")).unwrap();
    fs::set_permissions(tree.join("etc/deep"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(tree.join("etc/f7"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(tree.join("var/f2")).unwrap();
    fs::create_dir(tree.join("var/f2")).unwrap();
}

fn can_watch(work: &Work) -> bool {
    match crate::changes::Watch::start(&work.path("tree")) {
        Ok(_) => true,
        Err(error) => {
            println!("\nSKIP: needs root, and a file system that tells: {error}");
            false
        }
    }
}

#[test]
fn it_is_saved_as_it_was_in_the_last_pass() {
    let work = Work::new();
    if !can_watch(&work) {
        return;
    }
    let tree = work.path("tree");
    let later = || fs::write(tree.join("etc/f4"), "too late").unwrap();
    let (saved, moment, said) = work.save("a.vzb", None, Ok(()), || shuffle(&tree), later);
    assert_eq!(said, [] as [&str; 0]);
    work.must_hold("a.vzb", &moment);
    assert_eq!(saved.torn.count, 0);
    // On from it: only what has changed is read.
    let (saved, moment, _) = work.save("b.vzb", Some("a.vzb"), Ok(()), || (), || ());
    work.must_hold("b.vzb", &moment);
    assert!(saved.totals.new < 1000, "{:?}", saved.totals);
    let links = fs::metadata(work.path("b.vzb.file/etc/also-large")).unwrap();
    assert_eq!(
        (links.nlink(), links.ino()),
        (2, fs::metadata(work.path("b.vzb.file/var/large")).unwrap().ino())
    );
    let mut text = String::new();
    File::open(work.path("b.vzb.file/etc/f4")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "too late");
}

#[test]
fn where_nothing_is_told_all_is_looked_at_in_the_last_pass() {
    let work = Work::new();
    let tree = work.path("tree");
    let (_, moment, said) = work.save("a.vzb", None, Err("a test".to_owned()), || shuffle(&tree), || ());
    assert!(said[0].contains("a test"), "{said:?}");
    work.must_hold("a.vzb", &moment);
}

#[test]
fn a_backup_that_was_interrupted_goes_on() {
    let work = Work::new();
    if !can_watch(&work) {
        return;
    }
    let tree = work.path("tree");
    let (first, ..) = work.save("a.vzb", None, Ok(()), || (), || ());
    // As if it had been killed before its list.
    let whole = fs::read(work.path("a.vzb")).unwrap();
    fs::remove_file(work.path("a.vzb")).unwrap();
    fs::write(work.path("a.vzb.part"), &whole[..usize::try_from(first.totals.first_at).unwrap()]).unwrap();
    let (saved, moment, _) = work.save("a.vzb", None, Ok(()), || shuffle(&tree), || ());
    assert!(saved.resumed > 0, "{saved:?}");
    work.must_hold("a.vzb", &moment);
}
