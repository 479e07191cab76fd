//! What calls write into their caller's memory, for each ABI (arch/x86/include/uapi/asm/stat.h, uapi/linux/stat.h,
//! uapi/linux/sysinfo.h; compat_stat and compat_sysinfo for 32 bit).

use std::time::{SystemTime, UNIX_EPOCH};

use ve::inside::Figures;
use vzsys::affinity;
use vzsys::trap::{Abi, Call};

/// A regular file that its owner alone may read.
const MODE: u32 = 0o100_400;
/// In the range that procfs gives its entries.
const INODE: u32 = 0xF000_0BC0;
const BLOCK: u32 = 1024;
/// `STATX_BASIC_STATS`.
const BASIC: u32 = 0x7ff;

/// Bytes at their offsets.
struct Layout<const N: usize>([u8; N]);

impl<const N: usize> Layout<N> {
    fn new() -> Self {
        Self([0; N])
    }

    fn put<const M: usize>(mut self, at: usize, bytes: [u8; M]) -> Self {
        self.0[at..at + M].copy_from_slice(&bytes);
        self
    }

    fn u16(self, at: usize, value: u16) -> Self {
        self.put(at, value.to_ne_bytes())
    }

    fn u32(self, at: usize, value: u32) -> Self {
        self.put(at, value.to_ne_bytes())
    }

    fn u64(self, at: usize, value: u64) -> Self {
        self.put(at, value.to_ne_bytes())
    }

    fn done(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// The table's state, as the call's own structure; of an empty file of root.
pub(super) fn stat(call: Call, abi: Abi, device: (u32, u32)) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match (call, abi) {
        (Call::Statx, _) => statx(device, now),
        (Call::Stat | Call::StatAt | Call::Stat64, Abi::X86_64) => stat_64(device, now),
        (Call::Stat, Abi::I386) => stat_32(device, now),
        _ => stat64_32(device, now),
    }
}

/// As user space has it: the low byte of the minor number, the major, the rest.
fn packed((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn low(seconds: u64) -> u32 {
    u32::try_from(seconds & 0xffff_ffff).unwrap_or(0)
}

fn stat_64(device: (u32, u32), now: u64) -> Vec<u8> {
    Layout::<144>::new()
        .u64(0, packed(device).into())
        .u64(8, INODE.into())
        .u64(16, 1)
        .u32(24, MODE)
        .u64(56, BLOCK.into())
        .u64(72, now)
        .u64(88, now)
        .u64(104, now)
        .done()
}

fn stat_32(device: (u32, u32), now: u64) -> Vec<u8> {
    Layout::<64>::new()
        .u32(0, packed(device))
        .u32(4, INODE)
        .u16(8, u16::try_from(MODE).unwrap_or(0))
        .u16(10, 1)
        .u32(24, BLOCK)
        .u32(32, low(now))
        .u32(40, low(now))
        .u32(48, low(now))
        .done()
}

fn stat64_32(device: (u32, u32), now: u64) -> Vec<u8> {
    Layout::<96>::new()
        .u64(0, packed(device).into())
        .u32(12, INODE)
        .u32(16, MODE)
        .u32(20, 1)
        .u32(52, BLOCK)
        .u32(64, low(now))
        .u32(72, low(now))
        .u32(80, low(now))
        .u64(88, INODE.into())
        .done()
}

fn statx((major, minor): (u32, u32), now: u64) -> Vec<u8> {
    Layout::<256>::new()
        .u32(0, BASIC)
        .u32(4, BLOCK)
        .u32(16, 1)
        .u16(28, u16::try_from(MODE).unwrap_or(0))
        .u64(32, INODE.into())
        .u64(64, now)
        .u64(96, now)
        .u64(112, now)
        .u32(136, major)
        .u32(140, minor)
        .done()
}

/// The mask of CPUs of a thread, as long as its caller has room for; `None` where the kernel is to say what is wrong.
pub(super) fn mask(tid: i32, abi: Abi, length: u64) -> Option<Vec<u8>> {
    // The call's argument is an unsigned int.
    let length = usize::try_from(length & u64::from(u32::MAX)).ok()?;
    let (word, own) = (size_of::<u64>(), if abi == Abi::I386 { size_of::<u32>() } else { size_of::<u64>() });
    if !length.is_multiple_of(own) {
        return None;
    }
    // Half a word of ours is a whole one for 32 bit.
    let mut mask = affinity::of_thread(tid, length.next_multiple_of(word)).ok()?;
    let rest = mask.split_off(length.min(mask.len()));
    rest.iter().all(|byte| *byte == 0).then_some(mask)
}

/// `struct sysinfo`.
pub(super) fn sysinfo(abi: Abi, figures: &Figures) -> Vec<u8> {
    match abi {
        Abi::X86_64 => sysinfo_64(figures),
        Abi::I386 => sysinfo_32(figures),
    }
}

fn sysinfo_64(figures: &Figures) -> Vec<u8> {
    let Figures { uptime, loads, ram, ram_free, swap, swap_free, processes } = *figures;
    Layout::<112>::new()
        .u64(0, uptime)
        .u64(8, loads[0])
        .u64(16, loads[1])
        .u64(24, loads[2])
        .u64(32, ram)
        .u64(40, ram_free)
        .u64(64, swap)
        .u64(72, swap_free)
        .u16(80, processes)
        .u32(104, 1)
        .done()
}

/// Amounts that do not fit are told in pages, as the kernel does.
fn sysinfo_32(figures: &Figures) -> Vec<u8> {
    let Figures { uptime, loads, ram, ram_free, swap, swap_free, processes } = *figures;
    let fits = u32::try_from(ram.max(swap)).is_ok();
    let unit: u32 = if fits { 1 } else { 4096 };
    let amount = |bytes: u64| u32::try_from(bytes / u64::from(unit)).unwrap_or(u32::MAX);
    Layout::<64>::new()
        .u32(0, low(uptime))
        .u32(4, low(loads[0]))
        .u32(8, low(loads[1]))
        .u32(12, low(loads[2]))
        .u32(16, amount(ram))
        .u32(20, amount(ram_free))
        .u32(32, amount(swap))
        .u32(36, amount(swap_free))
        .u16(40, processes)
        .u32(52, unit)
        .done()
}
