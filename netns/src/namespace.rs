//! Work inside a VE's network namespace, without the calling thread ever being there.

use std::io;
use std::os::fd::BorrowedFd;

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
                move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                    .map_err(|errno| failed(errno.into()))?;
                work()
            })
            .map_err(failed)?;
        thread.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread in it died"))))
    })
}
