//! The disk that holds a VE's files.
use std::fmt;
use std::path::Path;

use crate::knob;

/// A whole disk by number; partitions cannot be throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Disk {
    /// The disk below the file system of `path`; `None` when that is not on one disk of its own (btrfs,
    /// tmpfs, a network).
    #[must_use]
    pub fn of(path: &Path) -> Option<Disk> {
        let dev = rustix::fs::stat(path).ok()?.st_dev;
        let disk = Disk { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) };
        if disk.major == 0 {
            return None;
        }
        let entry = Path::new("/sys/dev/block").join(disk.to_string());
        if !entry.join("partition").exists() {
            return Some(disk);
        }
        // Resolved by the kernel: sysfs links a partition's entry into its disk's directory.
        let (major, minor) =
            knob::read(&entry.join("../dev")).ok()?.split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
        Some(Disk { major: major.ok()?, minor: minor.ok()? })
    }
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
    fn the_root_file_system_has_a_disk_and_proc_has_none() {
        assert_eq!(Disk::of(Path::new("/proc")), None);
        if let Some(disk) = Disk::of(Path::new("/")) {
            assert!(!Path::new(&format!("/sys/dev/block/{disk}/partition")).exists());
        }
    }
}
