//! What a VE reads from disks and writes to them.
use std::collections::BTreeMap;
use std::path::Path;

use crate::hierarchy::Controller;
use crate::knob::Length;
use crate::ve_cgroup::VeCgroup;

/// Traffic with block devices since the VE's cgroup was made. What the page cache answers is none, and what it
/// holds back is counted when it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Reads [`IoUsage`]; knows the host's devices, so keep it.
#[derive(Debug, Default)]
pub struct IoMeter {
    /// By device number: whether it lies on other devices.
    stacked: BTreeMap<String, bool>,
}

impl IoMeter {
    /// What is counted of this VE; `None` where the kernel counts nothing.
    pub fn read(&mut self, ve: &VeCgroup) -> Option<IoUsage> {
        if let Some(dir) = ve.v1_dir(Controller::Io) {
            let file = |what: &str| {
                let name = format!("blkio.throttle.io_{what}_recursive");
                ve.read(&dir.join(name), Length::Any).ok()
            };
            return Some(self.v1(&file("service_bytes")?, &file("serviced").unwrap_or_default()));
        }
        let stat = ve.read(&ve.v2_dir()?.join("io.stat"), Length::Any).ok()?;
        Some(self.v2(&stat))
    }

    /// Of `io.stat`: `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`.
    fn v2(&mut self, stat: &str) -> IoUsage {
        let mut sum = IoUsage::default();
        for line in stat.lines() {
            let Some((device, pairs)) = line.split_once(' ') else { continue };
            if self.is_stacked(device) {
                continue;
            }
            for (key, value) in pairs.split(' ').filter_map(|pair| pair.split_once('=')) {
                let total = match key {
                    "rbytes" => &mut sum.read_bytes,
                    "wbytes" => &mut sum.written_bytes,
                    "rios" => &mut sum.reads,
                    "wios" => &mut sum.writes,
                    _ => continue,
                };
                *total = total.saturating_add(value.parse().unwrap_or(0));
            }
        }
        sum
    }

    /// Of two files of lines `8:0 Read 4096`.
    fn v1(&mut self, bytes: &str, operations: &str) -> IoUsage {
        let (read_bytes, written_bytes) = self.directions(bytes);
        let (reads, writes) = self.directions(operations);
        IoUsage { read_bytes, written_bytes, reads, writes }
    }

    fn directions(&mut self, text: &str) -> (u64, u64) {
        let (mut read, mut written) = (0_u64, 0_u64);
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(what), Some(value)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let total = match what {
                "Read" => &mut read,
                "Write" => &mut written,
                _ => continue,
            };
            if !self.is_stacked(device) {
                *total = total.saturating_add(value.parse().unwrap_or(0));
            }
        }
        (read, written)
    }

    /// What goes to a device that lies on others (LVM, RAID, encryption) is counted once more for those.
    fn is_stacked(&mut self, device: &str) -> bool {
        if let Some(known) = self.stacked.get(device) {
            return *known;
        }
        // The text is the kernel's, but it becomes part of a path.
        let number = device.bytes().all(|b| b.is_ascii_digit() || b == b':');
        let slaves = Path::new("/sys/dev/block").join(device).join("slaves");
        let stacked = number && std::fs::read_dir(slaves).is_ok_and(|mut below| below.next().is_some());
        self.stacked.insert(device.to_owned(), stacked);
        stacked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 253:0 lies on 8:0.
    fn meter() -> IoMeter {
        let known = [("253:0", true), ("8:0", false), ("8:16", false)];
        IoMeter { stacked: known.map(|(device, stacked)| (device.to_owned(), stacked)).into() }
    }

    const ALL: IoUsage = IoUsage { read_bytes: 4608, written_bytes: 8192, reads: 3, writes: 2 };

    #[test]
    fn the_disks_of_both_generations_are_summed_once() {
        let stat = "253:0 rbytes=4608 wbytes=8192 rios=3 wios=2 dbytes=0 dios=0\n\
                    8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=9 dios=9 cost.usage=7\n\
                    8:16 rbytes=512 wbytes=0 rios=2 wios=0 dbytes=0 dios=0\n8:32 \n";
        assert_eq!(meter().v2(stat), ALL);
        let bytes = "253:0 Read 4608\n253:0 Write 8192\n253:0 Sync 1\n8:0 Read 4096\n8:0 Write 8192\n\
                     8:0 Total 12288\n8:16 Read 512\nTotal 12800";
        let operations = "8:0 Read 1\n8:0 Write 2\n8:0 Async 3\n8:16 Read 2\nTotal 5";
        assert_eq!(meter().v1(bytes, operations), ALL);
    }

    #[test]
    fn a_ve_without_traffic_has_none() {
        assert_eq!(meter().v2(""), IoUsage::default());
        assert_eq!(meter().v1("Total 0", "Total 0"), IoUsage::default());
    }
}
