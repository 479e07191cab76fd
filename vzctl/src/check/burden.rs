//! How heavily a VE weighs on the node's memory: the sums that vzcalc and vzmemcheck set against what there is.

use beancounters::{Beancounter, Counter, Resource};
use vzconf::units::UNLIMITED;

use super::host::Memory;

/// A page of the table.
const PAGE: f64 = 4096.0;

/// What the kernel holds for a VE beside its pages.
const KERNEL: [Resource; 5] = [
    Resource::Kmemsize,
    Resource::Tcprcvbuf,
    Resource::Tcpsndbuf,
    Resource::Dgramrcvbuf,
    Resource::Othersockbuf,
];

/// What a VE uses now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Used {
    /// Low memory.
    pub(super) low: f64,
    /// RAM.
    pub(super) ram: f64,
    /// RAM and swap.
    pub(super) both: f64,
    /// Allocated, touched or not.
    pub(super) allocated: f64,
}

/// What a VE is promised, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Promised {
    /// Low memory.
    pub(super) low: f64,
    /// RAM and swap that it keeps when the node runs out.
    pub(super) both: f64,
    /// What it can always allocate.
    pub(super) allocated: f64,
    /// What it can allocate at most.
    pub(super) at_most: f64,
}

/// What is in use.
pub(super) fn used(ve: &Beancounter) -> Used {
    let kernel = kernel(ve, |counter| counter.held);
    let sum = |resource| ve[resource].held as f64 * PAGE + kernel;
    Used {
        low: kernel,
        ram: sum(Resource::Physpages),
        both: sum(Resource::Oomguarpages),
        allocated: sum(Resource::Privvmpages),
    }
}

/// What is promised. A kernel resource without a limit promises nothing; a VE without a limit of what it allocates may
/// have its RAM and swap, and one without those all that the node has.
pub(super) fn promised(ve: &Beancounter, node: &Memory) -> Promised {
    let kernel = kernel(ve, |counter| counter.limit);
    let pages = |number: u64, node: u64| if number < UNLIMITED { number as f64 * PAGE } else { node as f64 };
    let guaranteed = |resource| pages(ve[resource].barrier, node.both()) + kernel;
    let vswap =
        pages(ve[Resource::Physpages].limit, node.ram) + pages(ve[Resource::Swappages].limit, node.swap);
    let limit = ve[Resource::Privvmpages].limit;
    Promised {
        low: kernel,
        both: guaranteed(Resource::Oomguarpages),
        allocated: guaranteed(Resource::Vmguarpages),
        at_most: if limit < UNLIMITED { limit as f64 * PAGE + kernel } else { vswap },
    }
}

fn kernel(ve: &Beancounter, number: impl Fn(&Counter) -> u64) -> f64 {
    let limited = KERNEL.into_iter().map(|resource| number(&ve[resource])).filter(|n| *n < UNLIMITED);
    limited.fold(0, u64::saturating_add) as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node of 1 GiB and half as much swap.
    pub(in crate::check) const NODE: Memory =
        Memory { ram: 1_073_741_824, swap: 536_870_912, direct: 1_073_741_824, low: 429_496_729 };

    /// A classic VE: kernel memory 10 MiB of 20, buffers 1 MiB of 2 each.
    pub(in crate::check) fn classic() -> Beancounter {
        let mut ve = Beancounter::new(101);
        let mib = |n: u64| n << 20;
        let mut row = |resource, held, barrier, limit| {
            ve[resource] = Counter { held, maxheld: held, barrier, limit, failcnt: 0 };
        };
        row(Resource::Kmemsize, mib(10), mib(18), mib(20));
        for buffer in
            [Resource::Tcprcvbuf, Resource::Tcpsndbuf, Resource::Dgramrcvbuf, Resource::Othersockbuf]
        {
            row(buffer, mib(1), mib(1), mib(2));
        }
        row(Resource::Physpages, 10_000, 0, UNLIMITED);
        row(Resource::Oomguarpages, 12_000, 26_000, UNLIMITED);
        row(Resource::Privvmpages, 15_000, 60_000, 65_536);
        row(Resource::Vmguarpages, 0, 33_000, UNLIMITED);
        row(Resource::Numproc, 32, 240, 240);
        ve
    }

    /// One limited by RAM (256 MiB) and swap (128 MiB).
    pub(in crate::check) fn vswap() -> Beancounter {
        let mut ve = Beancounter::new(102);
        ve[Resource::Physpages] =
            Counter { held: 1000, maxheld: 2000, barrier: 0, limit: 65_536, failcnt: 0 };
        ve[Resource::Swappages] = Counter { held: 50, maxheld: 60, barrier: 0, limit: 32_768, failcnt: 0 };
        ve[Resource::Oomguarpages] = Counter { held: 1050, barrier: 65_536, ..Counter::default() };
        ve[Resource::Vmguarpages].barrier = 98_304;
        ve
    }

    #[test]
    fn kernel_memory_and_buffers_count_everywhere() {
        // 10 MiB + 4 x 1 MiB = 14 MiB = 14680064 bytes
        let kernel = 14_680_064.0;
        let want = Used {
            low: kernel,
            ram: 40_960_000.0 + kernel,
            both: 49_152_000.0 + kernel,
            allocated: 61_440_000.0 + kernel,
        };
        assert_eq!(used(&classic()), want);
        // 20 MiB + 4 x 2 MiB = 28 MiB = 29360128 bytes
        let kernel = 29_360_128.0;
        let want = Promised {
            low: kernel,
            both: 106_496_000.0 + kernel,
            allocated: 135_168_000.0 + kernel,
            at_most: 268_435_456.0 + kernel,
        };
        assert_eq!(promised(&classic(), &NODE), want);
    }

    #[test]
    fn without_limits_of_the_kernels_memory_ram_and_swap_count() {
        let want =
            Promised { low: 0.0, both: 268_435_456.0, allocated: 402_653_184.0, at_most: 402_653_184.0 };
        assert_eq!(promised(&vswap(), &NODE), want);
        assert_eq!(used(&vswap()), Used { low: 0.0, ram: 4_096_000.0, both: 4_300_800.0, allocated: 0.0 });
    }

    #[test]
    fn without_any_limit_it_may_have_all() {
        let free = Beancounter::new(103);
        assert_eq!(promised(&free, &NODE).at_most, NODE.both() as f64);
        let mut half = vswap();
        half[Resource::Swappages].limit = UNLIMITED;
        assert_eq!(promised(&half, &NODE).at_most, 268_435_456.0 + NODE.swap as f64);
    }
}
