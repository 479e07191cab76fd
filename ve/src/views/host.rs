//! What the host's own `/proc` says, as cheaply as it can be had.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::memory::Host;

/// Of its processors only the clock rate changes, and asking each for it takes long.
const PROCESSORS: Duration = Duration::from_secs(1);
/// `/proc/meminfo` is one record, which comes in one read.
const LONGEST: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct HostFiles {
    meminfo: Option<File>,
    cpuinfo: Option<(Instant, String)>,
}

impl HostFiles {
    pub(super) fn memory(&mut self) -> Host {
        if self.meminfo.is_none() {
            self.meminfo = File::open("/proc/meminfo").ok();
        }
        let mut text = [0; LONGEST];
        let length = self.meminfo.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        Host::parse(&String::from_utf8_lossy(&text[..length]))
    }

    /// The text of a second ago at the earliest.
    pub(super) fn cpuinfo(&mut self) -> &str {
        if self.cpuinfo.as_ref().is_none_or(|(at, _)| at.elapsed() >= PROCESSORS) {
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            self.cpuinfo = Some((Instant::now(), text));
        }
        self.cpuinfo.as_ref().map_or("", |(_, text)| text)
    }
}
