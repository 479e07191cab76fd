//! bpf(2) for programs and maps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::insn::Insn;
use crate::error::{Result, SysError};

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const BTF_LOAD: i32 = 18;
const ALLOW_MULTI: u32 = 2;

/// Kinds of programs.
pub(super) const CGROUP_SOCK: u32 = 9;
pub(super) const SOCK_OPS: u32 = 13;
pub(super) const CGROUP_DEVICE: u32 = 15;
pub(super) const CGROUP_SYSCTL: u32 = 23;
const LSM: u32 = 29;
/// Places of a cgroup where they are attached.
pub(super) const AT_SOCK_CREATE: u32 = 2;
pub(super) const AT_SOCK_OPS: u32 = 3;
pub(super) const AT_DEVICE: u32 = 6;
pub(super) const AT_SYSCTL: u32 = 18;
pub(super) const AT_SOCK_RELEASE: u32 = 34;
/// The place of a program that stands at a function for security modules.
const AT_LSM: u32 = 27;
/// Kinds of maps.
pub(super) const HASH: u32 = 1;
pub(super) const ARRAY: u32 = 2;
pub(super) const SK_STORAGE: u32 = 24;
pub(super) const TASK_STORAGE: u32 = 29;
/// Memory for values is taken when there are some.
pub(super) const NO_PREALLOC: u32 = 1;

/// A name as the kernel keeps it.
pub(super) type Name = [u8; 16];

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
    prog_name: Name,
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    /// As in [`BtfAttr`].
    padding: u32,
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

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info`, as far as we read it.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: u64,
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: Name,
}

/// `struct bpf_map_info`, as far as we read it.
#[repr(C)]
#[derive(Default)]
pub(super) struct MapInfo {
    pub(super) kind: u32,
    id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: Name,
}

/// What a map is.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct MapAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: Name,
    pub(super) map_ifindex: u32,
    pub(super) btf_fd: u32,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct BtfAttr {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    /// What the kernel does not know must be zero: no hole may be left to chance.
    padding: u32,
}

/// # Safety
/// `attr` must be what `command` takes, with pointers that are valid for the call.
pub(super) unsafe fn bpf<T>(command: i32, attr: &mut T, what: &str) -> Result<RawFd> {
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

/// # Safety
/// As [`bpf`], for a command that returns a new descriptor.
pub(super) unsafe fn bpf_fd<T>(command: i32, attr: &mut T, what: &str) -> Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr, what)? };
    // SAFETY: a new descriptor that nobody else owns; the kernel makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn size<T>() -> u32 {
    u32::try_from(std::mem::size_of::<T>()).unwrap_or(u32::MAX)
}

/// Loads a program of this kind, for this place.
pub(super) fn load(kind: u32, place: u32, program: &[Insn], name: Name) -> Result<OwnedFd> {
    let license = c"Apache-2.0".as_ptr() as u64;
    load_with(
        LoadAttr { prog_type: kind, expected_attach_type: place, license, ..LoadAttr::default() },
        program,
        name,
    )
}

/// Loads a program for a function of security modules, by the function's number. The kernel takes these only under a
/// licence that goes with its own: the caller's code is offered under either.
pub(super) fn load_lsm(function: u32, program: &[Insn], name: Name) -> Result<OwnedFd> {
    let license = c"Dual BSD/GPL".as_ptr() as u64;
    let attr = LoadAttr {
        prog_type: LSM,
        expected_attach_type: AT_LSM,
        attach_btf_id: function,
        license,
        ..LoadAttr::default()
    };
    load_with(attr, program, name)
}

/// `attr` has the kind, the place, and a licence that is never freed.
fn load_with(attr: LoadAttr, program: &[Insn], name: Name) -> Result<OwnedFd> {
    let mut attr = LoadAttr {
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        prog_name: name,
        ..attr
    };
    let what = format!("PROG_LOAD, {}", text(&name));
    // SAFETY: instructions and licence outlive the call; the kernel copies and verifies them.
    let loaded = unsafe { bpf_fd(PROG_LOAD, &mut attr, &what) };
    match loaded {
        Err(error) if matches!(error.errno(), Errno::INVAL | Errno::ACCESS) => {
            Err(explained(attr, error, &what))
        }
        done => done,
    }
}

/// The error of a program that was not taken, with the last words of the kernel's verifier.
fn explained(mut attr: LoadAttr, error: SysError, what: &str) -> SysError {
    let mut log = vec![0u8; 1 << 16];
    (attr.log_level, attr.log_buf) = (1, log.as_mut_ptr() as u64);
    attr.log_size = u32::try_from(log.len()).unwrap_or(0);
    // SAFETY: as the first time, and the log is live and as long as it says.
    let _ = unsafe { bpf_fd(PROG_LOAD, &mut attr, what) };
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let words = String::from_utf8_lossy(&log[..end]);
    let line = words.lines().rfind(|line| !line.is_empty() && !line.starts_with("processed "));
    line.map_or(error.clone(), |line| SysError::new("bpf", format_args!("{what}: {line}"), error.errno()))
}

pub(super) fn attach(cgroup: BorrowedFd<'_>, place: u32, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program),
        attach_type: place,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: no pointers; both descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &mut attr, &format!("PROG_ATTACH, place {place}")) }.map(|_| ())
}

/// Ids of the programs attached to this very cgroup.
pub(super) fn attached(cgroup: BorrowedFd<'_>, place: u32) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: fd_number(cgroup),
        attach_type: place,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids to the live array, and the count back.
    unsafe { bpf(PROG_QUERY, &mut attr, &format!("PROG_QUERY, place {place}")) }?;
    Ok(ids[..ids.len().min(attr.prog_cnt as usize)].to_vec())
}

fn by_id(command: i32, id: u32, what: &str) -> Result<Option<OwnedFd>> {
    let mut attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: no pointers.
    match unsafe { bpf_fd(command, &mut attr, what) } {
        Err(error) if error.errno() == Errno::NOENT => Ok(None),
        fd => fd.map(Some),
    }
}

/// Whether there is a program of that number, whoever has it.
///
/// # Errors
/// The errno of bpf(2).
pub fn is_loaded(id: u32) -> Result<bool> {
    Ok(program(id)?.is_some())
}

/// The program of that id; `None` when it is gone.
pub(super) fn program(id: u32) -> Result<Option<OwnedFd>> {
    by_id(PROG_GET_FD_BY_ID, id, "PROG_GET_FD_BY_ID")
}

/// Takes a program off a cgroup; one that is gone already is no error.
pub(super) fn detach(cgroup: BorrowedFd<'_>, place: u32, id: u32) -> Result<()> {
    let Some(program) = program(id)? else { return Ok(()) };
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program.as_fd()),
        attach_type: place,
        attach_flags: 0,
    };
    // SAFETY: no pointers; both descriptors live for the call.
    match unsafe { bpf(PROG_DETACH, &mut attr, &format!("PROG_DETACH, place {place}")) } {
        Err(error) if error.errno() == Errno::NOENT => Ok(()),
        done => done.map(|_| ()),
    }
}

/// The program's name and the ids of its maps.
pub(super) fn program_info(program: BorrowedFd<'_>) -> Result<(Name, Vec<u32>)> {
    let mut ids = [0u32; 16];
    let mut info = ProgInfo { nr_map_ids: 16, map_ids: ids.as_mut_ptr() as u64, ..ProgInfo::default() };
    let mut attr = InfoAttr {
        fd: fd_number(program),
        length: size::<ProgInfo>(),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` and the array it points to are live and as long as they say.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr, "OBJ_GET_INFO_BY_FD, program") }?;
    Ok((info.name, ids[..ids.len().min(info.nr_map_ids as usize)].to_vec()))
}

/// The map of that id with its name and the size of its values; `None` when it is gone.
pub(super) fn map(id: u32) -> Result<Option<(OwnedFd, Name, u32)>> {
    let Some(fd) = by_id(MAP_GET_FD_BY_ID, id, "MAP_GET_FD_BY_ID")? else { return Ok(None) };
    let info = map_info(fd.as_fd())?;
    Ok(Some((fd, info.name, info.value_size)))
}

/// What a map is.
pub(super) fn map_info(map: BorrowedFd<'_>) -> Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attr = InfoAttr {
        fd: fd_number(map),
        length: size::<MapInfo>(),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is live and as long as it says.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr, "OBJ_GET_INFO_BY_FD, map") }?;
    Ok(info)
}

pub(super) fn make_map(attr: &mut MapAttr) -> Result<OwnedFd> {
    let what = format!("MAP_CREATE, {}", text(&attr.map_name));
    // SAFETY: no pointers.
    unsafe { bpf_fd(MAP_CREATE, attr, &what) }
}

/// Descriptions of types, which some maps must have: type 1 is a 32-bit, type 2 a 64-bit number.
pub(super) fn number_types() -> Result<OwnedFd> {
    const STRINGS: &[u8; 9] = b"\0u32\0u64\0";
    let number = |name: u32, bytes: u32| [name, 1 << 24, bytes, bytes * 8];
    let types: Vec<u8> =
        [number(1, 4), number(5, 8)].iter().flatten().flat_map(|word| word.to_ne_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut blob = Vec::new();
    blob.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
    blob.extend_from_slice(&[1, 0]); // version, flags
    for word in [24, 0, length(&types), length(&types), length(STRINGS)] {
        blob.extend_from_slice(&word.to_ne_bytes());
    }
    blob.extend_from_slice(&types);
    blob.extend_from_slice(STRINGS);
    let mut attr = BtfAttr { btf: blob.as_ptr() as u64, btf_size: length(&blob), ..BtfAttr::default() };
    // SAFETY: the blob outlives the call and is as long as it says.
    unsafe { bpf_fd(BTF_LOAD, &mut attr, "BTF_LOAD") }
}

/// A name for the kernel; longer ones are cut.
pub(super) const fn name(text: &str) -> Name {
    let (bytes, mut name, mut at) = (text.as_bytes(), [0; 16], 0);
    while at < bytes.len() && at < name.len() - 1 {
        name[at] = bytes[at];
        at += 1;
    }
    name
}

fn text(name: &Name) -> String {
    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
}
