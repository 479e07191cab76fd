//! The disk that holds a VE's files.
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::knob;
use crate::mountinfo::unescape;

/// File systems in files in file systems: no more than this.
const DEEPEST: u32 = 8;

/// A whole disk by number; partitions cannot be throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Disk {
    /// The disk below the file system of `path`: of btrfs the one it was mounted by, of an overlay that of its upper
    /// layer, of an image file that of the file. `None` when there is no disk (tmpfs, a network).
    #[must_use]
    pub fn of(path: &Path) -> Option<Disk> {
        Self::below(path, 0)
    }

    fn below(path: &Path, depth: u32) -> Option<Disk> {
        if depth > DEEPEST {
            return None;
        }
        let disk = Self::numbered(rustix::fs::stat(path).ok()?.st_dev);
        if disk.major != 0 {
            return disk.whole(depth);
        }
        match source(path)? {
            Source::Device(device) => Self::numbered(rustix::fs::stat(&device).ok()?.st_rdev).whole(depth),
            Source::Directory(upper) => Self::below(&upper, depth + 1),
        }
    }

    fn numbered(dev: u64) -> Disk {
        Disk { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) }
    }

    fn whole(self, depth: u32) -> Option<Disk> {
        let disk = self;
        if disk.major == 0 {
            return None;
        }
        let entry = Path::new("/sys/dev/block").join(disk.to_string());
        // The kernel charges what is written to an image to whoever wrote, on the disk of the image (since 5.13).
        if let Ok(image) = knob::read(&entry.join("loop/backing_file")) {
            return Self::below(Path::new(&image), depth + 1).or(Some(disk));
        }
        if !entry.join("partition").exists() {
            return Some(disk);
        }
        // Resolved by the kernel: sysfs links a partition's entry into its disk's directory.
        let (major, minor) =
            knob::read(&entry.join("../dev")).ok()?.split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
        Some(Disk { major: major.ok()?, minor: minor.ok()? })
    }
}

/// What a file system without a device number of its own is made of.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Device(PathBuf),
    Directory(PathBuf),
}

fn source(path: &Path) -> Option<Source> {
    let mount = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    source_in(&table, mount)
}

fn source_in(table: &str, mount: u64) -> Option<Source> {
    let id = mount.to_string();
    let line = table.lines().find(|line| line.split(' ').next() == Some(&id))?;
    let mut words = line.split_once(" - ")?.1.split(' ');
    let (kind, source, options) = (words.next()?, words.next()?, words.next()?);
    if kind == "overlay" {
        let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
        return Some(Source::Directory(unescape(upper)));
    }
    source.starts_with("/dev/").then(|| Source::Device(unescape(source)))
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_a_number_name_what_is_below() {
        let table = "29 1 0:25 /@ / rw shared:1 - btrfs /dev/sda2 rw,subvol=/@\n\
                     30 1 0:26 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/u\\040x,workdir=/w\n\
                     31 1 0:27 / /t rw - tmpfs tmpfs rw\n";
        assert_eq!(source_in(table, 29), Some(Source::Device("/dev/sda2".into())));
        assert_eq!(source_in(table, 30), Some(Source::Directory("/u x".into())));
        assert_eq!(source_in(table, 31), None);
        assert_eq!(source_in(table, 3), None);
    }

    #[test]
    fn the_root_file_system_has_a_disk_and_proc_has_none() {
        assert_eq!(Disk::of(Path::new("/proc")), None);
        if let Some(disk) = Disk::of(Path::new("/")) {
            assert!(!Path::new(&format!("/sys/dev/block/{disk}/partition")).exists());
        }
    }
}
