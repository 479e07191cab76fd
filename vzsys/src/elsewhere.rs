//! Work in a namespace that the calling thread never enters.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Call, Result, SysError};

/// Runs `work` in that network namespace on a thread of its own, which has ended when this returns: sockets stay with
/// the namespace they were opened in. Needs CAP_SYS_ADMIN in the initial user namespace.
///
/// # Errors
/// The errno of setns(2), or what `work` says.
pub fn in_network<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(netns, LinkNameSpaceType::Network, work)
}

/// The same in a namespace of System V objects.
///
/// # Errors
/// The errno of setns(2), or what `work` says.
pub fn in_ipc<T: Send>(ipc: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(ipc, LinkNameSpaceType::InterProcessCommunication, work)
}

fn on_a_thread<T: Send>(
    namespace: BorrowedFd<'_>,
    kind: LinkNameSpaceType,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let run = move || {
            let entered =
                move_into_link_name_space(namespace, Some(kind)).call("setns", || format!("{kind:?}"));
            (rustix::thread::gettid(), entered.and_then(|()| work()))
        };
        let thread = std::thread::Builder::new().name("elsewhere".into()).stack_size(256 * 1024);
        let thread = thread.spawn_scoped(scope, run).call("clone", || "a thread")?;
        let Ok((tid, done)) = thread.join() else {
            return Err(SysError::new("clone", "the thread died", Errno::IO));
        };
        // Whoever clones next must be seen as alone, and a joined thread may be counted for a moment.
        let entry = format!("/proc/self/task/{}", tid.as_raw_nonzero());
        let deadline = Instant::now() + Duration::from_millis(100);
        while Path::new(&entry).exists() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        done
    })
}
