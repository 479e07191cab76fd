//! A cgroup's gate for IPv4 and IPv6 sockets: counts them, and refuses those above a limit.
//!
//! ```text
//! sock_create    socket(2): counted, or refused                       mark 1 ─┐
//! sock_ops       a connection came in, before accept(2): counted      mark 2 ─┤ in the socket's storage
//!                that connection is over, or was never accepted: uncounted  ◀─┤ whoever takes the mark
//! sock_release   close(2): uncounted                                        ◀─┘ uncounts, once
//! ```
//!
//! Three programs share one page of counters, which we map too: limits and corrections are atomic, whatever happens
//! in the VE at that moment. Programs are held by the cgroup alone and end with it. Nothing is pinned: whoever wants
//! the counters finds them from the cgroup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::calls::{self, AT_SOCK_RELEASE, MapAttr, NO_PREALLOC, Name};
use super::socket_programs::{
    COUNT, FAILED, LIMIT, MADE, Maps, PEAK, PLACES, ROW, SEEDED, create, ops, release,
};
use crate::error::{Call, Result};

const COUNTERS: Name = calls::name("vz_sockets");
const MARKS: Name = calls::name("vz_socket_marks");
const BYTES: usize = 2 * ROW * 8;

/// Which sockets a counter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP, and TCP of several ways.
    Tcp = 0,
    /// UDP, raw and all others of IPv4 and IPv6.
    Other = 1,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there are now.
    pub count: u64,
    /// The most there were.
    pub peak: u64,
    /// How many were refused.
    pub failed: u64,
    /// How many were ever counted: the same twice, with the same count, says that nothing happened in between.
    pub made: u64,
}

/// The counters of a cgroup that has the programs.
#[derive(Debug)]
pub struct SocketGate {
    page: *mut std::ffi::c_void,
}

// SAFETY: the page is shared memory of atomic numbers, mapped until drop; any thread may use them.
unsafe impl Send for SocketGate {}
// SAFETY: as for Send.
unsafe impl Sync for SocketGate {}

impl SocketGate {
    /// The gate of a cgroup v2; `None` when it has none.
    ///
    /// # Errors
    /// The errno of bpf(2) or mmap(2).
    pub fn find(cgroup: impl AsFd) -> Result<Option<Self>> {
        let (place, name) = PLACES[0];
        for id in calls::attached(cgroup.as_fd(), place)? {
            let Some(program) = calls::program(id)? else { continue };
            let (found, maps) = calls::program_info(program.as_fd())?;
            if found != name {
                continue;
            }
            for id in maps {
                match calls::map(id)? {
                    Some((map, COUNTERS, size)) if size as usize == BYTES => {
                        return Self::over(&map).map(Some);
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// The kernel's numbers of the programs at this cgroup.
    ///
    /// # Errors
    /// The errno of bpf(2).
    pub fn programs(cgroup: impl AsFd) -> Result<Vec<u32>> {
        let places = PLACES.into_iter().map(|(place, _)| calls::attached(cgroup.as_fd(), place));
        Ok(places.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Whether the kernel has the programs that a gate is made of (5.9); asked of any cgroup v2.
    #[must_use]
    pub fn supported(cgroup: impl AsFd) -> bool {
        calls::attached(cgroup.as_fd(), AT_SOCK_RELEASE).is_ok()
    }

    /// Puts a gate up, without limits and with nothing counted.
    ///
    /// # Errors
    /// The errno of bpf(2): `EINVAL` when the kernel has no cgroup BPF. No program is left.
    pub fn put_up(cgroup: impl AsFd) -> Result<Self> {
        let cgroup = cgroup.as_fd();
        // What a killed one left half-done counts into maps of its own, which nobody would find.
        take_down(cgroup)?;
        let counters = calls::make_map(&mut MapAttr {
            map_type: calls::ARRAY,
            key_size: 4,
            value_size: BYTES as u32,
            max_entries: 1,
            map_flags: MMAPABLE,
            map_name: COUNTERS,
            ..MapAttr::default()
        })?;
        let types = calls::number_types()?;
        let marks = calls::make_map(&mut MapAttr {
            map_type: calls::SK_STORAGE,
            key_size: 4,
            value_size: 8,
            map_flags: NO_PREALLOC,
            map_name: MARKS,
            btf_fd: types.as_raw_fd().unsigned_abs(),
            btf_key_type_id: 1,
            btf_value_type_id: 2,
            ..MapAttr::default()
        })?;
        let gate = Self::over(&counters)?;
        for kind in [Kind::Tcp, Kind::Other] {
            gate.limit(kind, None);
        }
        let maps = Maps { counters: counters.as_raw_fd(), marks: marks.as_raw_fd() };
        let attached = [release(maps), ops(maps), create(maps)].into_iter().try_for_each(|step| {
            let (place, name) = PLACES[step.at];
            let program = step.load(name)?;
            calls::attach(cgroup, place, program.as_fd())
        });
        match attached {
            Ok(()) => Ok(gate),
            Err(error) => {
                // What it failed with is what counts.
                let _ = take_down(cgroup);
                Err(error)
            }
        }
    }

    fn over(counters: &OwnedFd) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; nothing that exists is touched.
        let page = unsafe {
            mmap(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                counters,
                0,
            )
        };
        page.call("mmap", || "vz_sockets").map(|page| Self { page })
    }

    fn number(&self, kind: Kind, at: usize) -> &AtomicI64 {
        // SAFETY: the mapping begins at a page and has BYTES bytes, of which this is an aligned number; everybody who
        // has it mapped, and the programs, change it atomically only. It lives as long as self.
        unsafe { &*self.page.cast::<AtomicI64>().add(kind as usize * ROW + at) }
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self, kind: Kind) -> Tally {
        let number = |at| u64::try_from(self.number(kind, at).load(Ordering::Relaxed)).unwrap_or(0);
        Tally { count: number(COUNT), peak: number(PEAK), failed: number(FAILED), made: number(MADE) }
    }

    /// Sets how many there may be; what is open stays open.
    pub fn limit(&self, kind: Kind, most: Option<u64>) {
        let most = most.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX);
        self.number(kind, LIMIT).store(most, Ordering::Relaxed);
    }

    /// Counts sockets that the gate did not see being made. Their close will be noticed.
    pub fn seed(&self, kind: Kind, sockets: u64) {
        let sockets = i64::try_from(sockets).unwrap_or(i64::MAX);
        self.number(kind, SEEDED).fetch_add(sockets, Ordering::Relaxed);
        let count = self.number(kind, COUNT).fetch_add(sockets, Ordering::Relaxed) + sockets;
        self.number(kind, PEAK).fetch_max(count, Ordering::Relaxed);
    }

    /// Forgets sockets that are counted and are not there.
    pub fn forget(&self, kind: Kind, sockets: u64) {
        let sockets = i64::try_from(sockets).unwrap_or(0);
        self.number(kind, COUNT).fetch_sub(sockets, Ordering::Relaxed);
        let unmarked = |seeded: i64| (seeded > 0).then_some(seeded - seeded.min(sockets));
        let _ = self.number(kind, SEEDED).fetch_update(Ordering::Relaxed, Ordering::Relaxed, unmarked);
    }
}

impl Drop for SocketGate {
    fn drop(&mut self) {
        // SAFETY: our own mapping; references into it cannot outlive self.
        let _ = unsafe { munmap(self.page, BYTES) };
    }
}

/// Takes our programs off a cgroup.
fn take_down(cgroup: BorrowedFd<'_>) -> Result<()> {
    for (place, name) in PLACES {
        for id in calls::attached(cgroup, place)? {
            let Some(program) = calls::program(id)? else { continue };
            if calls::program_info(program.as_fd())?.0 == name {
                calls::detach(cgroup, place, id)?;
            }
        }
    }
    Ok(())
}

const MMAPABLE: u32 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    /// A cgroup of v2 for this process's own group, removed again.
    struct Group {
        dir: std::path::PathBuf,
        fd: std::fs::File,
        back: std::path::PathBuf,
    }

    impl Group {
        fn join() -> Option<Group> {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let root = mounts.lines().find_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(std::path::PathBuf::from))?
            })?;
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
            let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
            let dir = root.join(format!("vztest-gate-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cgroup.procs"), "0").unwrap();
            let fd = std::fs::File::open(&dir).unwrap();
            Some(Group { dir, fd, back: root.join(own) })
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = std::fs::write(self.back.join("cgroup.procs"), "0");
            let _ = std::fs::remove_dir(&self.dir);
        }
    }

    fn becomes(gate: &SocketGate, kind: Kind, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while gate.tally(kind).count != count {
            assert!(Instant::now() < deadline, "{kind:?} {:?}, not {count}", gate.tally(kind));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// One test: a process is in one cgroup only.
    #[test]
    fn sockets_are_counted_refused_and_forgotten() {
        let Some(group) = Group::join() else { return };
        let early = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(SocketGate::find(&group.fd).unwrap().is_none());
        drop(SocketGate::put_up(&group.fd).unwrap());
        // Put up once more: the first one is gone, and nothing counts twice.
        let gate = SocketGate::put_up(&group.fd).unwrap();
        gate.seed(Kind::Other, 1);
        refused_at_the_limit(&gate);
        becomes(&gate, Kind::Other, 1);
        drop(early);
        becomes(&gate, Kind::Other, 0);
        connections(&gate);
        // Found again by whoever comes later.
        let found = SocketGate::find(&group.fd).unwrap().unwrap();
        assert_eq!(found.tally(Kind::Other), gate.tally(Kind::Other));
        assert_eq!(found.tally(Kind::Other), Tally { count: 0, peak: 3, failed: 2, made: 4 });
        drift(&found);
    }

    fn refused_at_the_limit(gate: &SocketGate) {
        gate.limit(Kind::Other, Some(3));
        let held: Vec<_> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for _ in 0..2 {
            let refused = UdpSocket::bind("127.0.0.1:0").unwrap_err().raw_os_error().unwrap();
            assert!([libc::ENOBUFS, libc::EPERM].contains(&refused), "{refused}");
        }
        assert_eq!(gate.tally(Kind::Other), Tally { count: 3, peak: 3, failed: 2, made: 4 });
        assert_eq!(gate.tally(Kind::Tcp).count, 0);
        drop(held);
    }

    fn connections(gate: &SocketGate) {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        becomes(gate, Kind::Tcp, 11);
        let accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        becomes(gate, Kind::Tcp, 11);
        drop(accepted);
        becomes(gate, Kind::Tcp, 8);
        // Two that nobody accepted go with their listener.
        drop(listener);
        becomes(gate, Kind::Tcp, 5);
        drop(clients);
        becomes(gate, Kind::Tcp, 0);
    }

    fn drift(gate: &SocketGate) {
        gate.seed(Kind::Tcp, 4);
        gate.forget(Kind::Tcp, 3);
        assert_eq!(gate.tally(Kind::Tcp).count, 1);
        gate.forget(Kind::Tcp, 1);
        // A close that belongs to nobody we know of changes nothing.
        drop(TcpListener::bind("[::1]:0").unwrap());
        becomes(gate, Kind::Tcp, 0);
    }
}
