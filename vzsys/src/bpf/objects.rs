//! bpf(2) for what outlives its maker: pins in a bpffs, links, and the values of hash maps.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::calls::{self, HASH, MapAttr, NO_PREALLOC, Name, TASK_STORAGE, bpf, bpf_fd, fd_number};
use crate::error::{Result, SysError};

const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const RAW_TRACEPOINT_OPEN: i32 = 17;

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct OpenAttr {
    /// None: the place is the program's own.
    name: u64,
    program: u32,
    padding: u32,
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SysError::new("bpf", path.display(), Errno::INVAL))
}

/// Gives an object a name in a bpffs; it lives as long as that.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let name = c_path(path)?;
    let mut attr = PinAttr { path: name.as_ptr() as u64, fd: fd_number(object), flags: 0 };
    // SAFETY: the path is a string that outlives the call; the descriptor is borrowed for it.
    unsafe { bpf(OBJ_PIN, &mut attr, &format!("OBJ_PIN, {}", path.display())) }.map(drop)
}

/// The object of that name; `None` when there is none.
pub(super) fn pinned(path: &Path) -> Result<Option<OwnedFd>> {
    let name = c_path(path)?;
    let mut attr = PinAttr { path: name.as_ptr() as u64, ..PinAttr::default() };
    // SAFETY: the path is a string that outlives the call.
    match unsafe { bpf_fd(OBJ_GET, &mut attr, &format!("OBJ_GET, {}", path.display())) } {
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => Ok(None),
        fd => fd.map(Some),
    }
}

/// Puts a program at the function that it was loaded for. It stands there as long as the link is open or pinned.
pub(super) fn link(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = OpenAttr { program: fd_number(program), ..OpenAttr::default() };
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    unsafe { bpf_fd(RAW_TRACEPOINT_OPEN, &mut attr, "RAW_TRACEPOINT_OPEN") }
}

/// A hash map of 64-bit numbers by a 32-bit one: each value has `N` of them.
#[derive(Debug)]
pub(super) struct Numbers<const N: usize>(OwnedFd);

impl<const N: usize> Numbers<N> {
    const SIZES: [u32; 2] = [4, N as u32 * 8];

    /// A new one, empty, for so many keys.
    pub(super) fn make(name: Name, max_entries: u32) -> Result<Self> {
        let [key_size, value_size] = Self::SIZES;
        let mut attr = MapAttr {
            map_type: HASH,
            key_size,
            value_size,
            max_entries,
            map_flags: NO_PREALLOC,
            map_name: name,
            ..MapAttr::default()
        };
        calls::make_map(&mut attr).map(Self)
    }

    /// The one of that name; `None` when there is none, or another kind of map.
    pub(super) fn pinned(path: &Path) -> Result<Option<Self>> {
        let Some(map) = pinned(path)? else { return Ok(None) };
        let info = calls::map_info(map.as_fd())?;
        let [key, value] = Self::SIZES;
        Ok((info.kind == HASH && info.key_size == key && info.value_size == value).then_some(Self(map)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The numbers of this key; `None` when there are none.
    pub(super) fn get(&self, key: u32) -> Result<Option<[u64; N]>> {
        let mut value = [0_u64; N];
        let mut attr = self.element(&key);
        attr.value = value.as_mut_ptr() as u64;
        // SAFETY: both live; keys and values of every map of this type have their sizes, and the kernel writes one value.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr, &format!("MAP_LOOKUP_ELEM, {key}")) } {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            done => done.map(|_| Some(value)),
        }
    }

    /// Sets the numbers of this key, whatever they were.
    pub(super) fn set(&self, key: u32, value: [u64; N]) -> Result<()> {
        let mut attr = self.element(&key);
        attr.value = value.as_ptr() as u64;
        // SAFETY: as for reading; the kernel reads both.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr, &format!("MAP_UPDATE_ELEM, {key}")) }.map(drop)
    }

    /// Forgets this key; one that is gone already is no error.
    pub(super) fn remove(&self, key: u32) -> Result<()> {
        let mut attr = self.element(&key);
        // SAFETY: as for reading, without a value.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attr, &format!("MAP_DELETE_ELEM, {key}")) } {
            Err(error) if error.errno() == Errno::NOENT => Ok(()),
            done => done.map(drop),
        }
    }

    fn element(&self, key: &u32) -> ElementAttr {
        let key = std::ptr::from_ref(key) as u64;
        ElementAttr { map_fd: fd_number(self.0.as_fd()), key, ..ElementAttr::default() }
    }
}

/// Marks of tasks, which end with them.
#[derive(Debug)]
pub(super) struct Tasks(OwnedFd);

impl Tasks {
    const SIZES: [u32; 2] = [4, 8];

    /// A new one, without any.
    pub(super) fn make(name: Name) -> Result<Self> {
        let [key_size, value_size] = Self::SIZES;
        let types = calls::number_types()?;
        let mut attr = MapAttr {
            map_type: TASK_STORAGE,
            key_size,
            value_size,
            map_flags: NO_PREALLOC,
            map_name: name,
            btf_fd: types.as_raw_fd().unsigned_abs(),
            btf_key_type_id: 1,
            btf_value_type_id: 2,
            ..MapAttr::default()
        };
        calls::make_map(&mut attr).map(Self)
    }

    /// The one of that name; `None` when there is none, or another kind of map.
    pub(super) fn pinned(path: &Path) -> Result<Option<Self>> {
        let Some(map) = pinned(path)? else { return Ok(None) };
        let kind = calls::map_info(map.as_fd())?.kind;
        Ok((kind == TASK_STORAGE).then_some(Self(map)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Marks the first thread of a process.
    pub(super) fn mark(&self, process: BorrowedFd<'_>) -> Result<()> {
        let (key, value) = (fd_number(process), 1_u64);
        let mut attr = ElementAttr {
            map_fd: fd_number(self.0.as_fd()),
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&value) as u64,
            ..ElementAttr::default()
        };
        // SAFETY: both live; the key is a descriptor of a process, borrowed for the call, and the kernel reads both.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr, "MAP_UPDATE_ELEM, a task") }.map(drop)
    }
}
