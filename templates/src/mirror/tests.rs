use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::changes::{Drained, Watch};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// Everything that a tree holds, as text: two trees are the same when it is.
fn picture(top: &Path) -> String {
    let script = "cd \"$1\" && find . -printf '%p %y %m %U %G %s %T@ %n %l\\n' | sort \
         && find . -type f -print0 | sort -z | xargs -0r sha256sum \
         && getfattr -dhR -m - . 2>/dev/null \
         && find . -type f -links +1 -printf '%i %p\\n' | sort -k2 \
         | awk '{g[$1] = g[$1] \" \" $2} END {for (i in g) print g[i]}' | sort";
    let out = Command::new("sh").args(["-c", script, "sh"]).arg(top).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn same(a: &Path, b: &Path) {
    let (a, b) = (picture(a), picture(b));
    for (left, right) in a.lines().zip(b.lines()) {
        assert_eq!(left, right);
    }
    assert_eq!(a.lines().count(), b.lines().count());
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("\nSKIP: needs root");
    }
    root
}

fn awkward(tree: &Path) {
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/file"), "content").unwrap();
    fs::hard_link(tree.join("a/file"), tree.join("a/b/second")).unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(16 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (16 << 20) - 3).unwrap();
    let script = "mknod a/null c 1 3 && mknod -m 0 a/gone c 0 0 && mknod -m 0 a/gone2 c 0 0 && mkfifo -m 600 a/fifo \
         && chown 1000:1001 a/fifo a/file && chmod 4755 a/file && touch -hd 2001-02-03T04:05:06.789 link a/null \
         && setfattr -n user.x -v y a && setfattr -n trusted.overlay.opaque -v y a/b && chmod 1777 a/b/c \
         && { setcap cap_net_raw+ep sparse || true; } && touch -d 2002-02-02 a a/b .";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(tree).status().unwrap().success());
}

#[test]
fn a_copy_is_the_tree_whatever_is_in_it() {
    if !is_root() {
        return;
    }
    let dir = temp();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    awkward(&tree);
    let mut mirror = Mirror::new(&tree, &copy).unwrap();
    mirror.compare(|_| {}).unwrap();
    mirror.finish().unwrap();
    assert!(mirror.missed(i128::MAX).unwrap().is_empty());
    let done = mirror.seal().unwrap();
    assert!(done.bytes < 1 << 20, "holes are not copied: {done:?}");
    // Whiteouts share a node, which nobody sees.
    for top in [&tree, &copy] {
        for name in ["a/gone", "a/gone2"] {
            assert_eq!(fs::metadata(top.join(name)).unwrap().rdev(), 0);
            fs::remove_file(top.join(name)).unwrap();
        }
        Command::new("touch").args(["-d", "2003-03-03"]).arg(top.join("a")).status().unwrap();
    }
    same(&tree, &copy);
    assert!(!dir.path().join("copy.links").exists());
}

/// Changes of all kinds, after a whole copy was made.
fn change(tree: &Path) {
    fs::write(tree.join("a/file"), "changed through one of two names").unwrap();
    fs::rename(tree.join("a/b"), tree.join("moved")).unwrap();
    fs::write(tree.join("moved/c/new"), "x").unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    fs::create_dir(tree.join("link")).unwrap();
    fs::write(tree.join("alone"), "1").unwrap();
    fs::hard_link(tree.join("sparse"), tree.join("moved/was alone")).unwrap();
    fs::set_permissions(tree.join("moved/c"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(tree.join("a/fifo")).unwrap();
    fs::write(tree.join("a/fifo"), "a file now").unwrap();
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/x"), "x").unwrap();
    fs::remove_file(tree.join("a/null")).unwrap();
}

#[test]
fn what_is_told_as_changed_is_enough() {
    if !is_root() {
        return;
    }
    let dir = temp();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    awkward(&tree);
    for name in ["a/gone", "a/gone2"] {
        fs::remove_file(tree.join(name)).unwrap();
    }
    let mut watch = match Watch::start(&tree) {
        Ok(watch) => watch,
        Err(error) => return println!("\nSKIP: needs a file system that tells changes: {error}"),
    };
    let mut mirror = Mirror::new(&tree, &copy).unwrap();
    mirror.compare(|_| {}).unwrap();
    mirror.finish().unwrap();
    let before = mirror.done().entries;
    change(&tree);
    let Drained::Changes(changes) = watch.drain().unwrap() else { panic!("lost") };
    mirror.apply(&changes).unwrap();
    mirror.finish().unwrap();
    assert_eq!(mirror.missed(i128::MAX).unwrap(), Vec::<PathBuf>::new());
    assert!(mirror.done().entries - before < 40, "only what changed is copied");
    mirror.seal().unwrap();
    same(&tree, &copy);
}

#[test]
fn without_word_of_changes_comparing_finds_them() {
    if !is_root() {
        return;
    }
    let dir = temp();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    awkward(&tree);
    for name in ["a/gone", "a/gone2"] {
        fs::remove_file(tree.join(name)).unwrap();
    }
    let mut mirror = Mirror::new(&tree, &copy).unwrap();
    mirror.compare(|_| {}).unwrap();
    mirror.finish().unwrap();
    change(&tree);
    assert!(!mirror.missed(i128::MAX).unwrap().is_empty());
    mirror.compare(|_| {}).unwrap();
    mirror.finish().unwrap();
    assert_eq!(mirror.missed(i128::MAX).unwrap(), Vec::<PathBuf>::new());
    mirror.seal().unwrap();
    same(&tree, &copy);
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_copied() {
    if !is_root() {
        return;
    }
    let dir = temp();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    let name = "d".repeat(200);
    let mut at = openat(CWD, &tree, DIR, Mode::empty()).unwrap();
    for _ in 0..60 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), DIR, Mode::empty()).unwrap();
    }
    rustix::fs::symlinkat("x", &at, "end").unwrap();
    let mut mirror = Mirror::new(&tree, &copy).unwrap();
    mirror.compare(|_| {}).unwrap();
    mirror.finish().unwrap();
    assert!(mirror.missed(i128::MAX).unwrap().is_empty());
    assert_eq!(mirror.done().entries, 61);
    mirror.seal().unwrap();
    for tree in [&tree, &copy] {
        crate::removal::remove(tree).unwrap();
    }
}
