//! Mounts that are attached for a moment, where nobody sees them.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::error::{Call, Result, SysError};
use crate::join::unshare;
use crate::mount::{Detached, Opt};

/// Older kernels take lower layers only in one text, and of that 256 bytes.
const LAYERS_ONE_BY_ONE: (u32, u32) = (6, 8);
/// Where a descriptor is called by its number.
const DESCRIPTORS: &str = "/proc/thread-self/fd";
/// Older kernels take the layers of an overlay only from mounts that are attached in the mount namespace of
/// whoever makes it.
const DETACHED_LAYERS: (u32, u32) = (6, 15);
/// Far more than the kernel takes to forget a thread.
const GONE: Duration = Duration::from_secs(5);

/// Does work that needs these mounts attached, on kernels where it does. They are then, in a mount namespace
/// that lasts as long as the work: nothing of it can be left behind.
///
/// # Errors
/// The work's own, or the errno of unshare(2), mount(2) or move_mount(2).
pub fn with_layers<T: Send>(layers: &[&Detached], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if kernel_is_at_least(DETACHED_LAYERS) { work() } else { attached(layers, work) }
}

/// How an overlay that is made in [`with_layers`] is told its lower layers, from the top down.
#[must_use]
pub fn lower_layers(lower: &[Detached]) -> Vec<Opt> {
    if kernel_is_at_least(LAYERS_ONE_BY_ONE) {
        return lower.iter().map(|layer| Opt::value("lowerdir+", layer.proc_path())).collect();
    }
    // Such a kernel takes attached layers only, so that the work has the directory of the descriptors.
    let numbers: Vec<String> = lower.iter().map(|layer| layer.as_fd().as_raw_fd().to_string()).collect();
    vec![Opt::value("lowerdir", numbers.join(":"))]
}

/// Does work while these mounts are attached, on any kernel. Its current directory is the one of the process's
/// descriptors: a mount may be called by its number. A thread may have a mount namespace of its own,
/// and shares its descriptors with the others.
///
/// # Errors
/// As [`with_layers`].
pub fn attached<T: Send>(layers: &[&Detached], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let id = AtomicI32::new(0);
    let inside = || {
        id.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        unshare(UnshareFlags::NEWNS)?;
        // The copy would pass on to the host what is mounted in it.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).call("mount", || "/, MS_REC|MS_PRIVATE")?;
        for layer in layers {
            layer.attach("/".as_ref())?;
        }
        rustix::process::chdir(DESCRIPTORS).call("chdir", || DESCRIPTORS)?;
        work()
    };
    let failed = |error: std::io::Error| SysError::from_io("clone", "a thread", &error);
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, inside).map_err(failed)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    wait_until_gone(id.load(Ordering::Relaxed));
    done
}

/// A thread that was joined is one of the process for a moment yet, and a process with threads may not be
/// copied.
fn wait_until_gone(thread: i32) {
    let entry = PathBuf::from(format!("/proc/self/task/{thread}"));
    let until = Instant::now() + GONE;
    while thread != 0 && entry.exists() && Instant::now() < until {
        std::thread::yield_now();
    }
}

/// By its version, because trying leaves an error in the kernel's log.
fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let uname = rustix::system::uname();
    version_of(&uname.release().to_string_lossy()).is_some_and(|version| version >= wanted)
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::QUIET;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version_of("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(version_of("6.12.95+deb12-amd64"), Some((6, 12)));
        assert_eq!(version_of("6.18-rc1"), Some((6, 18)));
        assert_eq!(version_of("unknown"), None);
        assert!((6, 9) < DETACHED_LAYERS && (6, 15) >= DETACHED_LAYERS && (7, 0) >= DETACHED_LAYERS);
    }

    #[test]
    fn layers_are_attached_while_the_work_is_done_and_the_caller_sees_nothing_of_it() {
        let mounts = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = mounts();
        let layer = Detached::new("tmpfs", "a-layer-apart", &[], QUIET).unwrap();
        let thread = AtomicI32::new(0);
        let inside = attached(&[&layer], || {
            thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
            Ok(mounts())
        })
        .unwrap();
        assert!(!PathBuf::from(format!("/proc/self/task/{}", thread.into_inner())).exists());
        assert!(inside.contains("a-layer-apart"), "{inside}");
        assert_eq!(mounts(), before);
    }
}
