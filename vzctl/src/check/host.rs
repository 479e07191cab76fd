//! What the node has, as far as the formulas ask.

use std::path::Path;

use super::Error;

const MEMINFO: &str = "/proc/meminfo";
const THREADS: &str = "/proc/sys/kernel/threads-max";
const CPUINFO: &str = "/proc/cpuinfo";

/// The node's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// RAM.
    pub(crate) ram: u64,
    /// Swap.
    pub(crate) swap: u64,
    /// What of the RAM the kernel can use directly: all of it on 64 bits.
    pub(crate) direct: u64,
    /// What of that may go to the kernel's own data: 40 per cent.
    pub(crate) low: u64,
}

impl Memory {
    /// That of this host.
    ///
    /// # Errors
    /// When `/proc/meminfo` cannot be read or does not say.
    pub(crate) fn read() -> Result<Self, Error> {
        Self::parse(&text(MEMINFO)?).ok_or(Error::Silent { path: MEMINFO, what: "MemTotal" })
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let ram = bytes("MemTotal")?;
        let direct = bytes("LowTotal").unwrap_or(ram);
        let low = direct / 5 * 2 + direct % 5 * 2 / 5;
        Some(Self { ram, swap: bytes("SwapTotal").unwrap_or(0), direct, low })
    }

    /// RAM and swap.
    pub(crate) fn both(&self) -> u64 {
        self.ram.saturating_add(self.swap)
    }
}

/// How many threads there may be.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn threads_max() -> Result<u64, Error> {
    text(THREADS)?.trim().parse().map_err(|_| Error::Silent { path: THREADS, what: "a number" })
}

/// The node's power in CPU units: 25 for each of the kernel's "bogus" millions of instructions a second. They mean
/// something on x86 only; elsewhere they count a timer.
///
/// # Errors
/// When `/proc/cpuinfo` cannot be read.
pub(crate) fn power() -> Result<Option<u64>, Error> {
    let known = cfg!(any(target_arch = "x86", target_arch = "x86_64"));
    Ok(if known { power_of(&text(CPUINFO)?) } else { None })
}

fn power_of(cpuinfo: &str) -> Option<u64> {
    let bogomips = |line: &str| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case("bogomips").then(|| value.trim().parse::<f64>().ok())?
    };
    let each: Vec<f64> = cpuinfo.lines().filter_map(bogomips).collect();
    // Saturating by definition of `as`.
    (!each.is_empty()).then(|| (each.iter().sum::<f64>() * 25.0) as u64)
}

fn text(path: &'static str) -> Result<String, Error> {
    std::fs::read_to_string(Path::new(path)).map_err(|source| Error::io(format!("read {path}"), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_memory_is_forty_per_cent_of_what_the_kernel_can_use_directly() {
        let memory = Memory::parse("MemTotal:        1000 kB\nSwapTotal:        500 kB\n").unwrap();
        assert_eq!(memory, Memory { ram: 1_024_000, swap: 512_000, direct: 1_024_000, low: 409_600 });
        assert_eq!(memory.both(), 1_536_000);
        let old = Memory::parse("MemTotal: 4000 kB\nLowTotal: 800 kB\n").unwrap();
        assert_eq!(old, Memory { ram: 4_096_000, swap: 0, direct: 819_200, low: 327_680 });
        assert_eq!(Memory::parse("MemFree: 5 kB\n"), None);
        assert_eq!(Memory::parse("MemTotal: 7 kB\n").unwrap().low, 2867);
    }

    #[test]
    fn power_is_the_sum_of_all_cpus() {
        let two = "processor\t: 0\nbogomips\t: 4000.50\n\nprocessor\t: 1\nBogoMIPS\t: 4000.00\n";
        assert_eq!(power_of(two), Some(200_012));
        assert_eq!(power_of("processor\t: 0\n"), None);
    }

    #[test]
    fn this_host_says_what_it_has() {
        let memory = Memory::read().unwrap();
        assert!(memory.low < memory.ram && memory.ram <= memory.both());
        assert!(threads_max().unwrap() > 0);
    }
}
