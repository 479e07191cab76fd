//! Memory and swap space.

use std::fmt::Write;

use beancounters::Memory;

/// What the host has; no VE has more. In bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Host {
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) swap: u64,
    pub(super) swap_free: u64,
}

impl Host {
    /// Of `/proc/meminfo`.
    pub(super) fn parse(text: &str) -> Self {
        let mut host = Self::default();
        for (key, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            let place = match key {
                "MemTotal" => &mut host.total,
                "MemFree" => &mut host.free,
                "MemAvailable" => &mut host.available,
                "SwapTotal" => &mut host.swap,
                "SwapFree" => &mut host.swap_free,
                _ => continue,
            };
            let kib: u64 = rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            *place = kib * 1024;
        }
        host
    }
}

/// Total and free of RAM and of swap.
struct Amounts {
    total: u64,
    free: u64,
    swap: u64,
    swap_free: u64,
}

impl Amounts {
    fn of(memory: &Memory, host: &Host) -> Self {
        let total = memory.limit.map_or(host.total, |limit| limit.min(host.total));
        let swap = memory.swap_limit.map_or(host.swap, |limit| limit.min(host.swap));
        Self {
            total,
            // What the host has not, nobody has.
            free: total.saturating_sub(memory.used).min(host.free),
            swap,
            swap_free: swap.saturating_sub(memory.swap_used).min(host.swap_free),
        }
    }
}

/// In the order of the kernel (fs/proc/meminfo.c), as far as a VE has it. Amounts in KiB.
pub(super) fn meminfo(memory: &Memory, host: &Host) -> String {
    let Amounts { total, free, swap, swap_free } = Amounts::of(memory, host);
    let parts = &memory.parts;
    let reclaimable = (parts.active_file + parts.inactive_file + parts.slab_reclaimable).min(memory.used);
    let available = (total.saturating_sub(memory.used) + reclaimable).min(host.available).min(total);
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", parts.file),
        ("SwapCached", 0),
        ("Active", parts.active_anon + parts.active_file),
        ("Inactive", parts.inactive_anon + parts.inactive_file),
        ("Active(anon)", parts.active_anon),
        ("Inactive(anon)", parts.inactive_anon),
        ("Active(file)", parts.active_file),
        ("Inactive(file)", parts.inactive_file),
        ("Unevictable", parts.unevictable),
        ("Mlocked", 0),
        ("SwapTotal", swap),
        ("SwapFree", swap_free),
        ("Dirty", parts.dirty),
        ("Writeback", parts.writeback),
        ("AnonPages", parts.anon),
        ("Mapped", parts.mapped),
        ("Shmem", parts.shmem),
        ("KReclaimable", parts.slab_reclaimable),
        ("Slab", parts.slab_reclaimable + parts.slab_unreclaimable),
        ("SReclaimable", parts.slab_reclaimable),
        ("SUnreclaim", parts.slab_unreclaimable),
        ("KernelStack", parts.kernel_stack),
        ("PageTables", parts.page_tables),
    ];
    lines.iter().fold(String::new(), |mut text, (name, bytes)| {
        let rest = 16_usize.saturating_sub(name.len() + 1);
        let _ = writeln!(text, "{name}:{:rest$}{:>8} kB", "", bytes / 1024);
        text
    })
}

/// One device that stands for the VE's part of the host's.
pub(super) fn swaps(memory: &Memory, host: &Host) -> String {
    let Amounts { swap, swap_free, .. } = Amounts::of(memory, host);
    let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
    if swap > 0 {
        let (size, used) = (swap / 1024, (swap - swap_free) / 1024);
        let _ = writeln!(text, "{:<40}partition\t{size}\t\t{used}\t\t-2", "/dev/null");
    }
    text
}

/// What vmstat(8) and sysinfo programs look for (mm/vmstat.c); pages, but for `pgpg`.
pub(super) fn vmstat(memory: &Memory, host: &Host) -> String {
    let (Amounts { free, .. }, parts) = (Amounts::of(memory, host), &memory.parts);
    let page = vzconf::units::page_size();
    let lines = [
        ("nr_free_pages", free / page),
        ("nr_inactive_anon", parts.inactive_anon / page),
        ("nr_active_anon", parts.active_anon / page),
        ("nr_inactive_file", parts.inactive_file / page),
        ("nr_active_file", parts.active_file / page),
        ("nr_unevictable", parts.unevictable / page),
        ("nr_anon_pages", parts.anon / page),
        ("nr_mapped", parts.mapped / page),
        ("nr_file_pages", parts.file / page),
        ("nr_dirty", parts.dirty / page),
        ("nr_writeback", parts.writeback / page),
        ("nr_shmem", parts.shmem / page),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", parts.faults),
        ("pgmajfault", parts.major_faults),
    ];
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name} {value}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use beancounters::Parts;

    const MIB: u64 = 1 << 20;
    const HOST: &str = "MemTotal:       16384 kB\nMemFree:         8192 kB\nMemAvailable:   10240 kB\nBuffers:  1 kB\n\
                        SwapTotal:       4096 kB\nSwapFree:        1024 kB\n";

    fn value(text: &str, key: &str) -> u64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn memory(limit: Option<u64>, used: u64) -> Memory {
        let parts = Parts { file: MIB, inactive_file: MIB, anon: MIB, ..Parts::default() };
        Memory { limit, used, swap_limit: Some(MIB), swap_used: MIB / 2, parts }
    }

    #[test]
    fn a_ve_has_what_its_limits_say_and_never_more_than_the_host() {
        let host = Host::parse(HOST);
        let text = meminfo(&memory(Some(8 * MIB), 3 * MIB), &host);
        let of = |key| value(&text, key);
        assert_eq!(
            (of("MemTotal:"), of("MemFree:"), of("MemAvailable:"), of("Cached:")),
            (8192, 5120, 6144, 1024)
        );
        assert_eq!((of("SwapTotal:"), of("SwapFree:")), (1024, 512));
        assert!(text.starts_with("MemTotal:           8192 kB\nMemFree:            5120 kB\n"), "{text}");
        let text = meminfo(&memory(None, 3 * MIB), &host);
        let of = |key| value(&text, key);
        assert_eq!((of("MemTotal:"), of("MemFree:"), of("MemAvailable:")), (16384, 8192, 10240));
        let text = meminfo(&memory(Some(2 * MIB), 3 * MIB), &host);
        assert_eq!(value(&text, "MemFree:"), 0, "more in use than the limit, for a moment");
    }

    #[test]
    fn swap_space_is_one_device_or_none() {
        let host = Host::parse(HOST);
        let text = swaps(&memory(None, 0), &host);
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["/dev/null", "partition", "1024", "512", "-2"]);
        let none = swaps(&memory(None, 0), &Host::default());
        assert_eq!(none.lines().count(), 1);
    }

    #[test]
    fn vmstat_has_what_programs_look_for() {
        let text = vmstat(&memory(None, 0), &Host::parse(HOST));
        for key in ["pgpgin", "pgpgout", "pswpin", "pswpout", "pgfault", "nr_free_pages"] {
            assert!(text.lines().any(|line| line.split(' ').next() == Some(key)), "{key}");
        }
    }
}
