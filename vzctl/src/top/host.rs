//! The host in the heading.

use std::fs;
use std::time::Duration;

/// The host at one moment. What the kernel does not say is zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Host {
    pub(super) cpus: usize,
    pub(super) load: [f64; 3],
    pub(super) uptime: Duration,
    /// Ticks of all CPUs: those that were not idle, and all.
    pub(super) ticks: (u64, u64),
    /// Bytes.
    pub(super) ram: u64,
    /// Bytes that could not be had without pushing something out.
    pub(super) ram_used: u64,
    pub(super) swap: u64,
    pub(super) swap_used: u64,
}

impl Host {
    pub(super) fn read() -> Self {
        let text = |file: &str| fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
        Self::parse(&text("stat"), &text("loadavg"), &text("uptime"), &text("meminfo"))
    }

    fn parse(stat: &str, loadavg: &str, uptime: &str, meminfo: &str) -> Self {
        let mut load = loadavg.split(' ').filter_map(|word| word.parse().ok());
        let mut load = || load.next().unwrap_or(0.0);
        let seconds: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        let (ram, swap) = (bytes("MemTotal"), bytes("SwapTotal"));
        Self {
            cpus: stat.lines().filter(|line| is_one_cpu(line)).count(),
            load: [load(), load(), load()],
            uptime: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            ticks: ticks(stat),
            ram,
            ram_used: ram.saturating_sub(bytes("MemAvailable")),
            swap,
            swap_used: swap.saturating_sub(bytes("SwapFree")),
        }
    }

    /// Per cent of all its CPUs that were busy since then.
    #[allow(clippy::cast_precision_loss)] // ticks of a moment
    pub(super) fn busy_since(&self, before: &Self) -> Option<f64> {
        let all = self.ticks.1.checked_sub(before.ticks.1).filter(|ticks| *ticks > 0)?;
        Some(self.ticks.0.saturating_sub(before.ticks.0) as f64 * 100.0 / all as f64)
    }
}

fn is_one_cpu(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Of the line `cpu user nice system idle iowait irq softirq steal ...`; what guests used is in user already.
fn ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let parts: Vec<u64> = line
        .iter()
        .flat_map(|line| line.split_whitespace())
        .take(8)
        .filter_map(|word| word.parse().ok())
        .collect();
    let all: u64 = parts.iter().sum();
    let idle: u64 = parts.iter().skip(3).take(2).sum();
    (all - idle, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let stat = "cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 5 0 10 30 5\ncpu1 5 0 10 30 5\nintr 1\n";
        let meminfo =
            "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\nSwapTotal: 8 kB\nSwapFree: 6 kB\n";
        let host = Host::parse(stat, "0.50 1.25 2.00 1/99 7\n", "93784.5 1.0\n", meminfo);
        assert_eq!((host.cpus, host.load, host.uptime.as_secs()), (2, [0.5, 1.25, 2.0], 93784));
        assert_eq!((host.ticks, host.ram, host.ram_used), ((30, 100), 1_024_000, 409_600));
        assert_eq!((host.swap, host.swap_used), (8192, 2048));
        let later = Host { ticks: (80, 200), ..host.clone() };
        assert_eq!(later.busy_since(&host), Some(50.0));
        assert_eq!(host.busy_since(&host), None);
        assert_eq!(Host::parse("", "", "", ""), Host::default());
    }
}
