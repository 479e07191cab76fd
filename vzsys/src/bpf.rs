//! A cgroup's device filter (cgroup v2): a program assembled here, without a compiler.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::error::{Result, SysError};

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

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    /// `dst = *(u32 *)(src + offset)`
    fn load(dst: u8, src: u8, offset: i16) -> Insn {
        Insn { code: 0x61, registers: src << 4 | dst, offset, immediate: 0 }
    }
    /// `dst = src`, 32 bits
    fn copy(dst: u8, src: u8) -> Insn {
        Insn { code: 0xbc, registers: src << 4 | dst, offset: 0, immediate: 0 }
    }
    /// `dst = value`, 32 bits
    fn set(dst: u8, value: i32) -> Insn {
        Insn { code: 0xb4, registers: dst, offset: 0, immediate: value }
    }
    /// `dst &= mask`, 32 bits
    fn and(dst: u8, mask: i32) -> Insn {
        Insn { code: 0x54, registers: dst, offset: 0, immediate: mask }
    }
    /// `dst >>= bits`, 32 bits
    fn shift_right(dst: u8, bits: i32) -> Insn {
        Insn { code: 0x74, registers: dst, offset: 0, immediate: bits }
    }
    /// `if dst != value skip the next n`, 32 bits (kernel 5.1)
    fn skip_unless(dst: u8, value: u32, n: i16) -> Insn {
        Insn { code: 0x56, registers: dst, offset: n, immediate: value.cast_signed() }
    }
    fn exit() -> Insn {
        Insn { code: 0x95, registers: 0, offset: 0, immediate: 0 }
    }
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
    let earlier = attached(cgroup)?;
    let program = load(&assemble(entries))?;
    // The new one first: with both attached only what both allow is open, never more.
    attach(cgroup, program.as_fd())?;
    earlier.into_iter().try_for_each(|id| detach(cgroup, id))
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
/// `attr` must be what `command` takes, with pointers that are valid for the call.
unsafe fn bpf<T>(command: i32, attr: &mut T, what: &'static str) -> Result<RawFd> {
    // SAFETY: the pointer and size describe the live struct; what it points to is the caller's promise.
    let r =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), std::mem::size_of::<T>()) };
    match RawFd::try_from(r) {
        Ok(value) if value >= 0 => Ok(value),
        _ => {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            Err(SysError::new("bpf", what, Errno::from_raw_os_error(errno)))
        }
    }
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn load(program: &[Insn]) -> Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: *b"vz_devices\0\0\0\0\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: instructions and licence outlive the call; the kernel copies and verifies them.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr, "PROG_LOAD, CGROUP_DEVICE")? };
    // SAFETY: a new descriptor that nobody else owns; the kernel makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: no pointers; both descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &mut attr, "PROG_ATTACH, CGROUP_DEVICE") }.map(|_| ())
}

/// Ids of the programs attached to this very cgroup.
fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: fd_number(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids to the live array, and the count back.
    unsafe { bpf(PROG_QUERY, &mut attr, "PROG_QUERY, CGROUP_DEVICE") }?;
    Ok(ids[..ids.len().min(attr.prog_cnt as usize)].to_vec())
}

fn detach(cgroup: BorrowedFd<'_>, id: u32) -> Result<()> {
    let mut by_id = IdAttr { id, ..IdAttr::default() };
    // SAFETY: no pointers.
    let fd = match unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id, "PROG_GET_FD_BY_ID") } {
        Err(error) if error.errno() == Errno::NOENT => return Ok(()), // detached by someone else
        fd => fd?,
    };
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program.as_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
    };
    // SAFETY: no pointers; both descriptors live for the call.
    match unsafe { bpf(PROG_DETACH, &mut attr, "PROG_DETACH, CGROUP_DEVICE") } {
        Err(error) if error.errno() == Errno::NOENT => Ok(()),
        done => done.map(|_| ()),
    }
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
