//! A cgroup's device filter.

use std::os::fd::AsFd;

use super::calls::{self, AT_DEVICE, CGROUP_DEVICE};
use super::insn::Insn;
use crate::error::Result;

/// Opening for reading (`BPF_DEVCG_ACC_READ`).
pub const READ: u8 = 2;
/// Opening for writing (`BPF_DEVCG_ACC_WRITE`).
pub const WRITE: u8 = 4;
/// Making a node (`BPF_DEVCG_ACC_MKNOD`).
pub const MKNOD: u8 = 1;

/// Block or character, as `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    /// A block device.
    Block = 1,
    /// A character device.
    Char = 2,
}

/// Devices that may be used; `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Block or character.
    pub class: DeviceClass,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Of [`READ`], [`WRITE`] and [`MKNOD`].
    pub access: u8,
}

/// `struct bpf_cgroup_dev_ctx { u32 access << 16 | class; u32 major; u32 minor; }` comes in register 1;
/// 1 in register 0 allows.
fn assemble(entries: &[DeviceEntry]) -> Vec<Insn> {
    let (context, class, access, major, minor, refused) = (1, 2, 3, 4, 5, 6);
    let mut program = vec![
        Insn::load(class, context, 0),
        Insn::copy(access, class),
        Insn::and(class, 0xffff),
        Insn::shift_right(access, 16),
        Insn::load(major, context, 4),
        Insn::load(minor, context, 8),
    ];
    for entry in entries {
        // An entry matches when nothing is asked for that it does not allow.
        let over = i32::from(!entry.access & (READ | WRITE | MKNOD));
        let mut checks = vec![(class, entry.class as u32)];
        checks.extend(entry.major.map(|n| (major, n)));
        checks.extend(entry.minor.map(|n| (minor, n)));
        checks.push((refused, 0));
        let mut block = vec![Insn::copy(refused, access), Insn::and(refused, over)];
        block.extend(checks.iter().map(|(register, value)| Insn::skip_unless(*register, *value, 0)));
        block.extend([Insn::set(0, 1), Insn::exit()]);
        let end = block.len();
        for (at, insn) in block.iter_mut().enumerate().filter(|(_, insn)| insn.code == 0x56) {
            insn.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX); // a block has 8 at most
        }
        program.extend(block);
    }
    program.extend([Insn::set(0, 0), Insn::exit()]);
    program
}

/// Allows a cgroup v2 only these devices, in place of what was allowed by an earlier call. Needs root on
/// the host.
///
/// # Errors
/// The errno of bpf(2): `EINVAL` when the kernel has no cgroup BPF.
pub fn restrict_devices(cgroup: impl AsFd, entries: &[DeviceEntry]) -> Result<()> {
    let cgroup = cgroup.as_fd();
    let earlier = calls::attached(cgroup, AT_DEVICE)?;
    let program = calls::load(CGROUP_DEVICE, 0, &assemble(entries), calls::name("vz_devices"))?;
    // The new one first: with both attached only what both allow is open, never more.
    calls::attach(cgroup, AT_DEVICE, program.as_fd())?;
    earlier.into_iter().try_for_each(|id| calls::detach(cgroup, AT_DEVICE, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few instructions that [`assemble`] emits.
    fn run(program: &[Insn], context: [u32; 3]) -> u32 {
        let mut r = [0u32; 8];
        let mut at = 0;
        loop {
            let insn = program[at];
            let (dst, src) = (usize::from(insn.registers & 15), usize::from(insn.registers >> 4));
            let immediate = insn.immediate.cast_unsigned();
            match insn.code {
                0x61 => r[dst] = context[usize::try_from(insn.offset).unwrap() / 4],
                0xbc => r[dst] = r[src],
                0xb4 => r[dst] = immediate,
                0x54 => r[dst] &= immediate,
                0x74 => r[dst] >>= immediate,
                0x56 if r[dst] != immediate => at += usize::try_from(insn.offset).unwrap(),
                0x56 => {}
                0x95 => return r[0],
                code => panic!("{code:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn only_what_an_entry_covers_is_allowed() {
        let char = |major, minor, access| DeviceEntry { class: DeviceClass::Char, major, minor, access };
        let block = DeviceEntry { class: DeviceClass::Block, major: Some(8), minor: None, access: READ };
        let program = assemble(&[char(Some(1), Some(3), READ | WRITE), char(None, None, MKNOD), block]);
        for (access, class, major, minor, want) in [
            (READ | WRITE, 2, 1, 3, 1),
            (WRITE, 2, 1, 3, 1),
            (READ | MKNOD, 2, 1, 3, 0),
            (READ, 2, 1, 5, 0),
            (READ, 1, 1, 3, 0),
            (MKNOD, 2, 99, 99, 1),
            (MKNOD, 1, 8, 0, 0),
            (READ, 1, 8, 17, 1),
            (WRITE, 1, 8, 17, 0),
            (READ, 1, 9, 17, 0),
        ] {
            let context = [u32::from(access) << 16 | class, major, minor];
            assert_eq!(run(&program, context), want, "{access} {class} {major}:{minor}");
        }
        assert_eq!(run(&assemble(&[]), [u32::from(READ) << 16 | 2, 1, 3]), 0);
    }
}
