//! Sockets of a VE: how many, and what their buffers hold.
use std::fs;
use std::os::fd::AsFd;

use vzsys::bpf::Kind;
use vzsys::elsewhere::in_network;
use vzsys::netlink::{self, Family, Netlink};
use vzsys::process;

use crate::gate;
use crate::knob::{self, Length};
use crate::reading::Reading;
use crate::resource::Resource;
use crate::ve_cgroup::VeCgroup;

const BY_FAMILY: u16 = 20;
const TCP_BOTH: u16 = 18;
const UNIX: u8 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;
const NETLINK: u8 = 16;
const PACKET: u8 = 17;
const UDP: u8 = 17;
const RAW: u8 = 255;

/// The sockets of one network namespace, as sock_diag(7) lists them. Those that were never bound nor connected are in
/// no list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sockets {
    /// TCP sockets that a process has: not those in a queue of a listener, nor orphans.
    pub tcp: u64,
    /// UDP and raw sockets.
    pub datagram: u64,
    /// Bytes in send and receive buffers of TCP.
    pub tcp_buffers: (u64, u64),
    /// Bytes in send buffers of others, and in all of unix and netlink.
    pub other_buffers: u64,
    /// Bytes in receive buffers of UDP, raw and packet sockets.
    pub datagram_buffers: u64,
}

/// `sk_meminfo` of one socket.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    received: u64,
    sent: u64,
    ahead: u64,
    queued: u64,
}

impl Memory {
    fn parse(bytes: &[u8]) -> Memory {
        let field = |index: usize| netlink::number(bytes, index * 4).map_or(0, u64::from);
        Memory { received: field(0), sent: field(2), ahead: field(4), queued: field(5) }
    }
}

impl Sockets {
    /// Of the network namespace of this process; `None` when it is gone or the kernel lists no sockets.
    #[must_use]
    pub fn of(pid: i32) -> Option<Sockets> {
        let netns = process::namespace(pid, "net").ok()?;
        let diag = in_network(netns.as_fd(), || Netlink::open(Family::SockDiag)).ok()?;
        // The lists are of the whole host and long, at the least that of TCP: one that has nothing for us is not asked
        // for. A kernel without one of them is no reason to count none of the others.
        let table = fs::read_to_string(format!("/proc/{pid}/net/protocols")).ok()?;
        let any = |names: &[&str]| counted_as(&table, names) > 0;
        let mut all = Sockets::default();
        if any(&["TCP", "TCPv6"]) {
            all.list_tcp(&diag);
        }
        for (family, protocol, name) in
            [(INET, UDP, "UDP"), (INET6, UDP, "UDPv6"), (INET, RAW, "RAW"), (INET6, RAW, "RAWv6")]
        {
            if any(&[name]) {
                all.list_datagram(&diag, family, protocol);
            }
        }
        for list in [Plain::UNIX, Plain::NETLINK] {
            list.each(&diag, |memory| all.other_buffers += memory.sent + memory.received);
        }
        if any(&["PACKET"]) {
            Plain::PACKET.each(&diag, |memory| {
                all.other_buffers += memory.sent;
                all.datagram_buffers += memory.received;
            });
        }
        Some(all)
    }

    /// By the older request, which lists both families in one walk.
    fn list_tcp(&mut self, diag: &Netlink) {
        let mut request = [0u8; 60];
        request[3] = SHOW_MEMORY;
        request[52..56].copy_from_slice(&STATES.to_ne_bytes());
        inet(diag, TCP_BOTH, &request, |owned, memory| {
            self.tcp += u64::from(owned);
            self.tcp_buffers.0 += memory.queued.max(memory.sent);
            self.tcp_buffers.1 += memory.received + memory.ahead;
        });
    }

    fn list_datagram(&mut self, diag: &Netlink, family: u8, protocol: u8) {
        let mut request = [0u8; 56];
        (request[0], request[1], request[2]) = (family, protocol, SHOW_MEMORY);
        request[4..8].copy_from_slice(&STATES.to_ne_bytes());
        inet(diag, BY_FAMILY, &request, |owned, memory| {
            self.datagram += u64::from(owned);
            self.other_buffers += memory.sent;
            self.datagram_buffers += memory.received;
        });
    }

    fn add(self, other: Sockets) -> Sockets {
        Sockets {
            tcp: self.tcp + other.tcp,
            datagram: self.datagram + other.datagram,
            tcp_buffers: (self.tcp_buffers.0 + other.tcp_buffers.0, self.tcp_buffers.1 + other.tcp_buffers.1),
            other_buffers: self.other_buffers + other.other_buffers,
            datagram_buffers: self.datagram_buffers + other.datagram_buffers,
        }
    }
}

const SKMEMINFO: u16 = 7;
const SHOW_MEMORY: u8 = 1 << (SKMEMINFO - 1);
/// TIME_WAIT and half-open connections are no sockets yet, or no more.
const STATES: u32 = !(1 << 6 | 1 << 3 | 1 << 12);

/// Lists sockets of IPv4 and IPv6: whether a process has each, and its memory.
fn inet(diag: &Netlink, kind: u16, request: &[u8], mut each: impl FnMut(bool, Memory)) {
    /// `struct inet_diag_msg`, before its attributes.
    const MESSAGE: usize = 72;
    const INODE: usize = 68;
    let _ = diag.dump(kind, request, |body| {
        let owned = netlink::number(body, INODE).is_some_and(|inode| inode != 0);
        let memory = body.get(MESSAGE..).and_then(|rest| netlink::attribute(rest, SKMEMINFO));
        each(owned, memory.map(Memory::parse).unwrap_or_default());
    });
}

/// A family whose list has only memory for us.
struct Plain {
    family: u8,
    protocol: u8,
    /// Length of the request, and where in it the attributes are asked for.
    request: (usize, usize),
    show: u32,
    /// Where attributes begin in an answer, and which is `sk_meminfo`.
    attribute: (usize, u16),
}

impl Plain {
    const UNIX: Plain =
        Plain { family: UNIX, protocol: 0, request: (24, 12), show: 0x20, attribute: (16, 5) };
    const NETLINK: Plain =
        Plain { family: NETLINK, protocol: 255, request: (20, 8), show: 1, attribute: (28, 0) };
    const PACKET: Plain =
        Plain { family: PACKET, protocol: 0, request: (20, 8), show: 0x10, attribute: (16, 6) };

    fn each(&self, diag: &Netlink, mut each: impl FnMut(Memory)) {
        let (length, at) = self.request;
        let mut request = vec![0u8; length];
        (request[0], request[1]) = (self.family, self.protocol);
        if self.family == UNIX {
            request[4..8].fill(0xff); // all states
        }
        request[at..at + 4].copy_from_slice(&self.show.to_ne_bytes());
        let (begin, kind) = self.attribute;
        let _ = diag.dump(BY_FAMILY, &request, |body| {
            let memory = body.get(begin..).and_then(|rest| netlink::attribute(rest, kind));
            each(memory.map(Memory::parse).unwrap_or_default());
        });
    }
}

/// How many sockets there are: by the VE's gate, if it has one; else by the statistics of init's network namespace. Those
/// know how many there are in all, and of TCP what is bound or connected.
pub(super) fn count(init: i32, ve: &VeCgroup, reading: &mut Reading) {
    let read = |file: &str| knob::read_as(format!("/proc/{init}/net/{file}").as_ref(), Length::Any).ok();
    let Some(gate) = gate::find(ve) else {
        let Some(stat) = read("sockstat") else { return };
        let (tcp, other) = by_statistics(&stat, &read("sockstat6").unwrap_or_default());
        reading.hold(Resource::Numtcpsock, tcp);
        reading.hold(Resource::Numothersock, other);
        return;
    };
    let Some(text) = read("protocols") else { return };
    let (tcp, other) = (gate.tally(Kind::Tcp), gate.tally(Kind::Other));
    reading.hold(Resource::Numtcpsock, tcp.count);
    reading.reach(Resource::Numtcpsock, tcp.peak);
    reading.fail(Resource::Numtcpsock, tcp.failed);
    reading.hold(Resource::Numothersock, other.count + counted_as(&text, &NOT_INET));
    reading.fail(Resource::Numothersock, other.failed);
}

/// Kinds that a gate does not see.
const NOT_INET: [&str; 6] = ["UNIX", "UNIX-STREAM", "NETLINK", "PACKET", "AF_VSOCK", "XDP"];

/// How many sockets the table has under these names.
pub(crate) fn counted_as(text: &str, names: &[&str]) -> u64 {
    rows(text).filter(|(name, _)| names.contains(name)).map(|(_, number)| number).sum()
}

/// Unused protocols have -1, and the title a word.
fn rows(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?, words.nth(1)?.parse().ok()?))
    })
}

/// TCP, and all others, of `sockstat` and `sockstat6`. The kernel's own count nowhere.
fn by_statistics(stat: &str, stat6: &str) -> (u64, u64) {
    let after = |text: &str, begin: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(begin))?;
        line.split(' ').next()?.parse::<u64>().ok()
    };
    let used = after(stat, "sockets: used ").unwrap_or(0);
    let tcp = after(stat, "TCP: inuse ").unwrap_or(0) + after(stat6, "TCP6: inuse ").unwrap_or(0);
    (tcp, used.saturating_sub(tcp))
}

/// What the buffers of these network namespaces hold.
pub(super) fn measure(networks: &[i32], reading: &mut Reading) {
    let Some(all) = networks.iter().filter_map(|pid| Sockets::of(*pid)).reduce(Sockets::add) else { return };
    reading.hold(Resource::Tcpsndbuf, all.tcp_buffers.0);
    reading.hold(Resource::Tcprcvbuf, all.tcp_buffers.1);
    reading.hold(Resource::Othersockbuf, all.other_buffers);
    reading.hold(Resource::Dgramrcvbuf, all.datagram_buffers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn protocols_are_told_apart() {
        let text = "\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac
MPTCPv6   2064      9     176   no       0   yes  kernel      y  y  y  n
UDPv6     1472      4       0   NI       0   yes  kernel      y  y  y  n
TCPv6     2432      2     176   no     192   yes  kernel      y  y  y  y
UNIX      1024     30      -1   NI       0   yes  kernel      n  n  n  n
TCP       2304      1     176   no     192   yes  kernel      y  y  y  y
X           10     -1       0   no       0   no   kernel      y  y  y  y
";
        assert_eq!(counted_as(text, &NOT_INET), 30);
    }

    #[test]
    fn all_that_is_not_tcp_is_other() {
        let stat = "sockets: used 37\nTCP: inuse 2 orphan 0 tw 0 alloc 4 mem 0\nUDP: inuse 1 mem 0\n";
        let stat6 = "TCP6: inuse 1\nUDP6: inuse 0\n";
        assert_eq!(by_statistics(stat, stat6), (3, 34));
        assert_eq!(by_statistics(stat, ""), (2, 35));
        assert_eq!(by_statistics("", ""), (0, 0));
    }

    #[test]
    fn the_hosts_own_are_told() {
        let (_tcp, unix) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), std::os::unix::net::UnixStream::pair());
        assert!(unix.is_ok());
        let read = |file: &str| fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
        let (tcp, other) = by_statistics(&read("sockstat"), &read("sockstat6"));
        assert!(tcp >= 1 && other >= 2, "{tcp} {other}");
    }

    #[test]
    fn what_waits_in_buffers_is_measured() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let queued = Sockets::of(me).unwrap();
        let (_server, _) = listener.accept().unwrap();
        client.write_all(&[0; 50_000]).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        let now = Sockets::of(me).unwrap();
        assert!(now.tcp > queued.tcp, "accepted: {queued:?} {now:?}");
        assert!(now.datagram >= 2, "{now:?}");
        assert!(now.tcp_buffers.0 + now.tcp_buffers.1 >= 50_000, "{now:?}");
        assert!(now.datagram_buffers >= 10_000, "{now:?}");
        let (a, _b) = std::os::unix::net::UnixDatagram::pair().unwrap();
        a.send(&[0; 10_000]).unwrap();
        assert!(Sockets::of(me).unwrap().other_buffers >= 10_000);
    }
}
