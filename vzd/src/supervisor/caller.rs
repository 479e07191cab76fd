//! A caller: its memory, its directories, its rights. It is hostile, and may be another process by the time we look:
//! the answer counts only if its call still waits afterwards ([`Listener::waits`]), and what is written goes into the
//! memory that was opened before that was asked.

use std::fs::{self, File, OpenOptions};
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::io::Errno;
use vzsys::notify::{Listener, Notification};

use super::watchdog::Watchdog;

/// Longer than any way to write the one path that matters.
pub(super) const PATH: usize = 128;
const PAGE: usize = 4096;

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`.
const DAC: u64 = 1 << 1 | 1 << 2;

/// One thread that made a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    tid: i32,
    watchdog: &'a Watchdog,
}

impl<'a> Caller<'a> {
    pub(super) fn of(call: &Notification, watchdog: &'a Watchdog) -> Self {
        Self { tid: call.tid, watchdog }
    }

    /// The string at an address of its memory, without its NUL; `None` when that cannot be read, or is too long to
    /// matter.
    pub(super) fn string<'b>(&self, address: u64, buffer: &'b mut [u8; PATH]) -> Option<&'b [u8]> {
        let length = self.read(address, buffer)?;
        let end = buffer[..length].iter().position(|b| *b == 0)?;
        Some(&buffer[..end])
    }

    /// Bytes of its memory, as many as are there.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Option<usize> {
        let base = usize::try_from(address).ok()?;
        let first = buffer.len().min(PAGE - base % PAGE);
        let rest = buffer.len() - first;
        // The second page may not be there.
        let parts =
            [RemoteIoVec { base, len: first }, RemoteIoVec { base: base.checked_add(first)?, len: rest }];
        let parts = if rest == 0 { &parts[..1] } else { &parts[..] };
        let ours = &mut [IoSliceMut::new(buffer)];
        self.watchdog.watch(|| process_vm_readv(Pid::from_raw(self.tid), ours, parts))?.ok()
    }

    /// Writes to its memory what its call would have written, if the call still waits.
    pub(super) fn write(
        &self,
        listener: &Listener,
        call: &Notification,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let memory = OpenOptions::new().write(true).open(self.proc("mem")).map_err(|_| Errno::FAULT)?;
        if !listener.waits(call) {
            return Err(Errno::SRCH);
        }
        let written = self.watchdog.watch(|| memory.write_all_at(bytes, address));
        written.and_then(std::result::Result::ok).ok_or(Errno::FAULT)
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.tid)
    }

    /// The path of a directory of its, by descriptor or `AT_FDCWD`. The kernel knows its name; nothing is looked up.
    pub(super) fn directory(&self, fd: i32) -> Option<Vec<u8>> {
        let link = if fd == AT_FDCWD { "cwd".to_owned() } else { format!("fd/{fd}") };
        Some(fs::read_link(self.proc(&link)).ok()?.into_os_string().into_vec())
    }

    /// Its number in its own PID namespace, the innermost.
    pub(super) fn own_number(&self) -> Option<i32> {
        let status = fs::read_to_string(self.proc("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        numbers.split_whitespace().next_back()?.parse().ok()
    }

    /// Whether its root is the VE's own: in another one `/proc` is not ours to speak of.
    pub(super) fn in_own_root(&self) -> bool {
        fs::read_link(self.proc("root")).is_ok_and(|root| root.as_os_str() == "/")
    }

    /// Whether it is root of the VE, with the rights that the kernel of OpenVZ asked for.
    pub(super) fn is_root(&self, base: u32, user_namespace: &std::path::Path) -> bool {
        let Ok(status) = fs::read_to_string(self.proc("status")) else { return false };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        // Real, effective, saved, and that for files.
        let fs_uid: Option<u32> = field("Uid:").split_whitespace().nth(3).and_then(|word| word.parse().ok());
        let effective = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
        let namespace = fs::read_link(self.proc("ns/user"));
        fs_uid == Some(base) && effective & DAC == DAC && namespace.is_ok_and(|own| own == user_namespace)
    }
}

const AT_FDCWD: i32 = -100;

/// A descriptor of our own, opened anew: each reader has a position of its own.
pub(super) fn reopen(file: &File) -> std::io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
