//! A VE's memory, as its own `/proc/meminfo` tells it.
use crate::hierarchy::Controller;
use crate::knob::{self, Length};
use crate::ve_cgroup::VeCgroup;

/// Amounts in bytes; zero where this kernel does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that it may use; `None` is all there is.
    pub limit: Option<u64>,
    /// RAM in use, page cache and the kernel's own for the VE included.
    pub used: u64,
    /// Swap space that it may use; `None` is all there is.
    pub swap_limit: Option<u64>,
    /// Swap space in use.
    pub swap_used: u64,
    /// What the RAM is used for.
    pub parts: Parts,
}

/// Of `memory.stat`, by the names of `/proc/meminfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "proc_meminfo(5) has them")]
pub struct Parts {
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub mapped: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub active_anon: u64,
    pub inactive_anon: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub unevictable: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    pub kernel_stack: u64,
    pub page_tables: u64,
    /// Page faults since the VE's start.
    pub faults: u64,
    /// Those that had to read from a disk.
    pub major_faults: u64,
}

impl Memory {
    /// Reads all: four or five files. A VE that is going away reads as zero.
    #[must_use]
    pub fn read(ve: &VeCgroup) -> Memory {
        match ve.v1_dir(Controller::Memory) {
            Some(dir) => {
                let number = |file: &str| ve.number(&dir.join(file));
                let used = number("memory.usage_in_bytes").unwrap_or(0);
                let limit = number("memory.limit_in_bytes").filter(is_limit);
                let both = number("memory.memsw.limit_in_bytes").filter(is_limit);
                let stat = ve.read(&dir.join("memory.stat"), Length::Any).unwrap_or_default();
                let swap_used = knob::keyed(&stat, "total_swap").unwrap_or(0);
                let swap_limit = both.map(|both| both.saturating_sub(limit.unwrap_or(0)));
                Memory { limit, used, swap_limit, swap_used, parts: Parts::v1(&stat) }
            }
            None => Self::v2(ve).unwrap_or_default(),
        }
    }

    fn v2(ve: &VeCgroup) -> Option<Memory> {
        let dir = ve.v2_dir()?;
        let number = |file: &str| ve.number(&dir.join(file));
        let stat = ve.read(&dir.join("memory.stat"), Length::Any).unwrap_or_default();
        Some(Memory {
            limit: number("memory.max"),
            used: number("memory.current").unwrap_or(0),
            swap_limit: number("memory.swap.max"),
            swap_used: number("memory.swap.current").unwrap_or(0),
            parts: Parts::v2(&stat),
        })
    }
}

/// v1 shows the absence of a limit as the largest number of whole pages.
fn is_limit(bytes: &u64) -> bool {
    *bytes < i64::MAX as u64 / 2
}

/// Looks the wanted keys up in one walk through the text.
fn pick<const N: usize>(text: &str, keys: [&str; N]) -> [u64; N] {
    let mut found = [0; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(at) = keys.iter().position(|wanted| *wanted == key) {
            found[at] = value.parse().unwrap_or(0);
        }
    }
    found
}

impl Parts {
    fn v1(stat: &str) -> Parts {
        let keys = [
            "total_rss",
            "total_cache",
            "total_shmem",
            "total_mapped_file",
            "total_dirty",
            "total_writeback",
            "total_active_anon",
            "total_inactive_anon",
            "total_active_file",
            "total_inactive_file",
            "total_unevictable",
            "total_pgfault",
            "total_pgmajfault",
        ];
        let [
            anon,
            file,
            shmem,
            mapped,
            dirty,
            writeback,
            active_anon,
            inactive_anon,
            active_file,
            inactive_file,
            unevictable,
            faults,
            major_faults,
        ] = pick(stat, keys);
        Parts {
            anon,
            file,
            shmem,
            mapped,
            dirty,
            writeback,
            active_anon,
            inactive_anon,
            active_file,
            inactive_file,
            unevictable,
            faults,
            major_faults,
            ..Parts::default()
        }
    }

    fn v2(stat: &str) -> Parts {
        let keys = [
            "anon",
            "file",
            "shmem",
            "file_mapped",
            "file_dirty",
            "file_writeback",
            "active_anon",
            "inactive_anon",
            "active_file",
            "inactive_file",
            "unevictable",
            "slab_reclaimable",
            "slab_unreclaimable",
            "kernel_stack",
            "pagetables",
            "pgfault",
            "pgmajfault",
        ];
        let found = pick(stat, keys);
        let [anon, file, shmem, mapped, dirty, writeback, ..] = found;
        let [.., slab_reclaimable, slab_unreclaimable, kernel_stack, page_tables, faults, major_faults] =
            found;
        let [_, _, _, _, _, _, active_anon, inactive_anon, active_file, inactive_file, unevictable, ..] =
            found;
        Parts {
            anon,
            file,
            shmem,
            mapped,
            dirty,
            writeback,
            active_anon,
            inactive_anon,
            active_file,
            inactive_file,
            unevictable,
            slab_reclaimable,
            slab_unreclaimable,
            kernel_stack,
            page_tables,
            faults,
            major_faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_are_told_by_the_same_names() {
        let v1 = "cache 1\nrss 2\ntotal_cache 8192\ntotal_rss 4096\ntotal_shmem 5\ntotal_mapped_file 6\ntotal_dirty 7\n\
                  total_writeback 8\ntotal_pgfault 9\ntotal_pgmajfault 10\ntotal_inactive_anon 11\ntotal_active_anon 12\n\
                  total_inactive_file 13\ntotal_active_file 14\ntotal_unevictable 15";
        let of_v1 = Parts::v1(v1);
        assert_eq!((of_v1.file, of_v1.anon, of_v1.faults, of_v1.active_file), (8192, 4096, 9, 14));
        let v2 = "anon 4096\nfile 8192\nkernel_stack 3\npagetables 4\nshmem 5\nfile_mapped 6\nfile_dirty 7\nfile_writeback 8\n\
                  inactive_anon 11\nactive_anon 12\ninactive_file 13\nactive_file 14\nunevictable 15\nslab_reclaimable 16\n\
                  slab_unreclaimable 17\npgfault 9\npgmajfault 10";
        let of_v2 = Parts::v2(v2);
        let kernel =
            Parts { slab_reclaimable: 16, slab_unreclaimable: 17, kernel_stack: 3, page_tables: 4, ..of_v1 };
        assert_eq!(of_v2, kernel);
    }

    #[test]
    fn no_limit_of_v1_is_none() {
        assert!(!is_limit(&0x7fff_ffff_ffff_f000));
        assert!(is_limit(&(1 << 40)));
    }
}
