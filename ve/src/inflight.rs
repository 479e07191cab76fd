//! Connections that the kernel of a VE has, and none of its processes: CRIU leaves them out.
//!
//! One that no program has accepted yet: its client was told that it is there, and would wait for ever. And one that was
//! closed a moment ago, whose last bytes the client has not confirmed. Once new ones are held back, both are over soon.

use std::collections::BTreeSet;

/// How often a packet may be sent again until nobody waits for its answer any more.
const PATIENT: u32 = 1;

/// What there is of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// Those that no program has accepted, or that are not made yet.
    pub(crate) waiting: usize,
    /// Those that are closed, and not confirmed.
    pub(crate) closing: usize,
    /// The ports of the VE to which the first belong.
    ports: BTreeSet<u16>,
}

impl InFlight {
    /// Those in the network of a process. Nothing can be read of one that has ended.
    pub(crate) fn of(pid: i32) -> Self {
        let mut found = Self::default();
        for table in ["tcp", "tcp6"] {
            found.count(&std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
        }
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting + self.closing == 0
    }

    /// For people: `2 connections that no program accepts (port 80) and 1 that was closed`
    pub(crate) fn words(&self) -> String {
        let mut parts = Vec::new();
        if self.waiting > 0 {
            let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
            parts.push(format!("{} that no program has accepted (port {})", self.waiting, ports.join(", ")));
        }
        if self.closing > 0 {
            parts.push(format!("{} with an answer that its client has not confirmed", self.closing));
        }
        parts.join(", ")
    }

    /// Adds the lines of a table (`proc_pid_net(5)`): a socket without a process has no inode.
    fn count(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[_, local, _, state, _, _, again, _, probes, "0", ..] = words.as_slice() else { continue };
            // The other side does not answer any more, or takes nothing.
            let again = u32::from_str_radix(again, 16).unwrap_or(0) + probes.parse::<u32>().unwrap_or(0);
            let gone = again > PATIENT;
            match state {
                ESTABLISHED | CLOSE_WAIT => self.waits(local),
                SYN_RECV if !gone => self.waits(local),
                FIN_WAIT1 | CLOSING | LAST_ACK if !gone => self.closing += 1,
                _ => {}
            }
        }
    }

    fn waits(&mut self, local: &str) {
        self.waiting += 1;
        let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        self.ports.extend(port);
    }
}

// Linux, include/net/tcp_states.h
const ESTABLISHED: &str = "01";
const SYN_RECV: &str = "03";
const FIN_WAIT1: &str = "04";
const CLOSE_WAIT: &str = "08";
const LAST_ACK: &str = "09";
const CLOSING: &str = "0B";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn counted(lines: &[(&str, &str, &str, &str)]) -> InFlight {
        let mut found = InFlight::default();
        let lines = lines.iter().map(|(state, again, probes, inode)| {
            format!("  0: 0100000A:0050 0200000A:8000 {state} 00000001:00000000 01:00000014 {again} 0 {probes} {inode} 1 0\n")
        });
        found.count(&format!("{HEAD}{}", lines.collect::<String>()));
        found
    }

    #[test]
    fn those_without_a_process_count_unless_nobody_answers() {
        assert!(counted(&[]).is_empty());
        let (no, none) = ("00000000", "0");
        let found = counted(&[
            ("01", no, none, "0"),
            ("01", no, none, "4711"),
            ("0A", no, none, "4712"),
            ("03", no, none, "0"),
            ("03", "00000003", none, "0"),
            ("04", no, none, "0"),
            ("04", no, none, "4713"),
            ("09", "00000002", none, "0"),
            ("0B", no, "2", "0"),
            ("05", no, none, "0"),
            ("06", no, none, "0"),
        ]);
        assert_eq!((found.waiting, found.closing), (2, 1));
        let words =
            "2 that no program has accepted (port 80), 1 with an answer that its client has not confirmed";
        assert_eq!(found.words(), words);
    }

    #[test]
    fn a_connection_is_seen_until_it_is_accepted() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = || {
            let pid = i32::try_from(std::process::id()).unwrap();
            InFlight::of(pid).ports.contains(&port)
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !own() && Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(own());
        let _accepted = listener.accept().unwrap();
        assert!(!own());
    }
}
