//! Work inside a VE's network namespace, without the calling thread ever being there.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Error;

/// Runs `work` in that network namespace, on a thread of its own that has ended when this returns:
/// sockets and open files of `/proc/sys/net` stay with the namespace they were opened in.
///
/// Needs CAP_SYS_ADMIN in the initial user namespace.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let failed = |source| Error::Namespace { source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, || {
                let entered = move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                    .map_err(|errno| failed(errno.into()));
                (rustix::thread::gettid(), entered.and_then(|()| work()))
            })
            .map_err(failed)?;
        let (tid, done) = match thread.join() {
            Ok((tid, done)) => (Some(tid), done),
            Err(_) => (None, Err(failed(io::Error::other("the thread in it died")))),
        };
        if let Some(tid) = tid {
            await_end(tid);
        }
        done
    })
}

/// A joined thread may still be counted for a moment; whoever clones next must be seen as alone.
fn await_end(tid: Pid) {
    let entry = format!("/proc/self/task/{}", tid.as_raw_nonzero());
    let deadline = Instant::now() + Duration::from_millis(100);
    while Path::new(&entry).exists() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn no_thread_is_left_and_errors_come_back() {
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let before = vzsys::process::threads();
        for _ in 0..50 {
            assert_eq!(inside(own.as_fd(), || Ok(7)).unwrap(), 7);
            assert_eq!(vzsys::process::threads(), before);
        }
        let no_namespace = std::fs::File::open("/dev/null").unwrap();
        let error = inside(no_namespace.as_fd(), || Ok(())).unwrap_err();
        assert!(matches!(error, Error::Namespace { .. }));
    }
}
