//! What of a VE's mounts is ours: not in its images, and mounted anew when it is restored.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use vzsys::{Call, Result, SysError};

use crate::mount::unescape;

/// As mount tables show the views, and the `/dev` that we made.
const VIEWS: &str = "vzproc";
const DEV: &str = "dev";

/// One line of a process's mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number.
    pub(crate) id: u32,
    /// `major:minor` of its file system.
    pub(crate) device: String,
    /// What of that is shown.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) place: PathBuf,
    /// The file system's kind.
    pub(crate) kind: String,
    /// What it came from.
    pub(crate) source: String,
}

impl Line {
    /// Those of a process.
    pub(crate) fn of(pid: i32) -> Vec<Line> {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().filter_map(Line::parse).collect()
    }

    fn parse(line: &str) -> Option<Line> {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ');
        let id = first.next()?.parse().ok()?;
        let mut first = first.skip(1);
        let (device, root, place) = (first.next()?, first.next()?, first.next()?);
        let mut second = second.split(' ');
        Some(Line {
            id,
            device: device.to_owned(),
            root: unescape(root),
            place: unescape(place),
            kind: second.next()?.to_owned(),
            source: second.next()?.to_owned(),
        })
    }
}

/// Where the source of such a mount is, in the place where CRIU sees our mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// `/dev`, or something in it.
    Dev(PathBuf),
    /// The views, or one of them.
    Views(PathBuf),
    /// The console.
    Console,
}

/// A mount of ours in a VE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it is.
    pub place: PathBuf,
    /// What is mounted there.
    pub origin: Origin,
}

impl Kept {
    /// Its name in the images.
    #[must_use]
    pub fn key(&self) -> String {
        let name = |kind: &str, path: &Path| {
            let path = path.to_string_lossy();
            let path = path.trim_matches('/').replace('/', "-");
            if path.is_empty() { kind.to_owned() } else { format!("{kind}-{path}") }
        };
        match &self.origin {
            Origin::Dev(path) => name("vz-dev", path),
            Origin::Views(path) => name("vz-views", path),
            Origin::Console => "vz-console".to_owned(),
        }
    }

    /// Where its source is, below the place where CRIU sees our mounts.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        let below = |dir: &str, path: &Path| Path::new(dir).join(path.strip_prefix("/").unwrap_or(path));
        match &self.origin {
            Origin::Dev(path) => below("dev", path),
            Origin::Views(path) => below("views", path),
            Origin::Console => PathBuf::from("pts/0"),
        }
    }

    /// The VE's `/dev`, which must be the one that we made.
    pub(crate) fn open_dev(init: i32) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, format!("/proc/{init}/root"), flags, Mode::empty())
            .call("open", || "the root of init")?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dev = rustix::fs::openat2(&root, "dev", flags, Mode::empty(), how).call("openat2", || "/dev")?;
        let stat = rustix::fs::fstat(&dev).call("fstat", || "/dev")?;
        let number = format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let ours = dev_line(&Line::of(init)).is_some_and(|line| line.device == number);
        if ours { Ok(dev) } else { Err(SysError::new("openat2", "/dev", rustix::io::Errno::XDEV)) }
    }
}

fn dev_line(lines: &[Line]) -> Option<&Line> {
    let is_dev = |line: &&Line| {
        line.place == Path::new("/dev")
            && line.kind == "tmpfs"
            && line.source == DEV
            && line.root == Path::new("/")
    };
    lines.iter().find(is_dev)
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Externals {
    /// The mounts.
    pub mounts: Vec<Kept>,
    /// The console: the terminal's device number and that of its file system.
    pub console: Option<(u64, u64)>,
}

impl Externals {
    /// Those of a running VE, in its first mount namespace.
    pub(crate) fn of(init: i32) -> Externals {
        let lines = Line::of(init);
        let dev = dev_line(&lines).map(|line| line.device.clone());
        let console = Path::new("/dev/console");
        let mounts = lines.iter().filter_map(|line| {
            let origin = if dev.as_ref() == Some(&line.device) {
                Origin::Dev(line.root.clone())
            } else if line.kind == "fuse" && line.source == VIEWS {
                Origin::Views(line.root.clone())
            } else if line.kind == "devpts" && line.place == console {
                Origin::Console
            } else {
                return None;
            };
            Some(Kept { place: line.place.clone(), origin })
        });
        let mounts: Vec<Kept> = mounts.collect();
        let has_console = mounts.iter().any(|kept| kept.origin == Origin::Console);
        Externals { console: has_console.then(|| terminal(init)).flatten(), mounts }
    }

    /// Whether there are views among them.
    #[must_use]
    pub fn views(&self) -> bool {
        self.mounts.iter().any(|kept| matches!(kept.origin, Origin::Views(_)))
    }
}

/// The console's numbers, by a look at it from inside.
fn terminal(init: i32) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, format!("/proc/{init}/root"), flags, Mode::empty()).ok()?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let console = rustix::fs::openat2(&root, "dev/console", flags, Mode::empty(), how).ok()?;
    let stat = rustix::fs::fstat(&console).ok()?;
    Some((stat.st_rdev, stat.st_dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_named_by_what_it_is_not_by_where_it_is() {
        let line =
            Line::parse("80 100 0:43 /null /proc/a\\040b rw,nosuid - tmpfs dev rw,size=1024k,uid=1").unwrap();
        assert_eq!((line.root.as_path(), line.place.as_path()), (Path::new("/null"), Path::new("/proc/a b")));
        assert_eq!(
            (line.kind.as_str(), line.source.as_str(), line.device.as_str()),
            ("tmpfs", "dev", "0:43")
        );
        let kept = |origin| Kept { place: "/x".into(), origin };
        let null = kept(Origin::Dev("/null".into()));
        assert_eq!((null.key().as_str(), null.source().as_path()), ("vz-dev-null", Path::new("dev/null")));
        let views = kept(Origin::Views("/".into()));
        assert_eq!((views.key().as_str(), views.source().as_path()), ("vz-views", Path::new("views/")));
        assert_eq!(kept(Origin::Console).source(), Path::new("pts/0"));
    }
}
