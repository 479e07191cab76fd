//! The other tables of the host, as `/proc/vz` had them: byte for byte, since programs read them by column.
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A VE as `veinfo` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its number; 0 is the host.
    pub id: u32,
    /// Tasks, threads included.
    pub numproc: u64,
    /// Its routed addresses.
    pub addresses: Vec<IpAddr>,
}

/// `veinfo`: a line for each, no titles.
#[must_use]
pub fn veinfo(all: &[Info]) -> String {
    let mut text = String::new();
    for Info { id, numproc, addresses } in all {
        let _ = write!(text, "{id:>10} {:>5} {numproc:>5}", 0);
        for address in addresses {
            // Formatted first: an address ignores a width.
            let (shown, width) = (address.to_string(), if address.is_ipv4() { 15 } else { 39 });
            let _ = write!(text, " {shown:>width$}");
        }
        text.push('\n');
    }
    text
}

/// The CPU time of a VE, as `vestat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub id: u32,
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Since it was started.
    pub uptime: Duration,
    /// CPUs of the host.
    pub cpus: u32,
}

/// The width of all lines: twelve columns of 20.
const WIDTH: usize = 12 * 21 - 1;

/// `vestat`: first the version, padded like a row, then titles, then a line for each VE but the host. Times are in
/// jiffies of 1/1000 s and in nanoseconds; latencies are not counted by stock kernels and shown as 0.
#[must_use]
pub fn vestat(all: &[Stat]) -> String {
    let titles = [
        "VEID", "user", "nice", "system", "uptime", "idle", "strv", "uptime", "used", "maxlat", "totlat",
        "numsched",
    ];
    let mut text = format!("{:<WIDTH$}\n{}\n", "Version: 2.2", columns(titles));
    for stat in all {
        // The kernel that wrote this file had 1000 of them a second.
        let jiffies = |time: Duration| time.as_millis();
        let used = stat.user + stat.system;
        let idle = (stat.uptime * stat.cpus).saturating_sub(used);
        let row: [u128; 12] = [
            stat.id.into(),
            jiffies(stat.user),
            0,
            jiffies(stat.system),
            jiffies(stat.uptime),
            idle.as_nanos(),
            0,
            stat.uptime.as_nanos(),
            used.as_nanos(),
            0,
            0,
            0,
        ];
        let _ = writeln!(text, "{}", columns(row.map(|number| number.to_string())));
    }
    text
}

fn columns(words: [impl AsRef<str>; 12]) -> String {
    words.iter().map(|word| format!("{:>20}", word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// `bc/ID/ioacct`: bytes that the VE had read from and written to disks.
#[must_use]
pub fn ioacct(read: u64, write: u64) -> String {
    let keys = [
        ("read", read),
        ("write", write),
        ("dirty", 0),
        ("cancel", 0),
        ("missed", 0),
        ("syncs_total", 0),
        ("fsyncs_total", 0),
        ("fdatasyncs_total", 0),
        ("range_syncs_total", 0),
        ("syncs_active", 0),
        ("fsyncs_active", 0),
        ("fdatasyncs_active", 0),
        ("range_syncs_active", 0),
        ("io_pbs", 0),
    ];
    keys.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "\t{key:<20} {value:>21}");
        text
    })
}

/// One resource of a disk quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRow {
    /// In use.
    pub usage: u64,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
    /// For how many seconds the soft limit may be exceeded.
    pub grace: u64,
    /// When that ends, in seconds since 1970; 0 while it is kept.
    pub expires: u64,
}

/// A disk quota as `vzquota` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Its number: the VE's.
    pub id: u32,
    /// The tree that it is of.
    pub path: PathBuf,
    /// KiB.
    pub space: QuotaRow,
    /// Inodes.
    pub inodes: QuotaRow,
}

/// `vzquota`: three lines for each quota that is on, below the titles.
#[must_use]
pub fn vzquota(all: &[Quota]) -> String {
    let mut text = VZQUOTA_TITLES.to_owned();
    for quota in all {
        // A line for each path, whatever is in its name.
        let _ = writeln!(text, "{}: {}", quota.id, quota.path.display().to_string().escape_debug());
        for (name, row) in [("1k-blocks", quota.space), ("inodes", quota.inodes)] {
            let _ = writeln!(
                text,
                "{name:>11} {:>15} {:>15} {:>15} {:>11} {:>11}",
                row.usage, row.soft, row.hard, row.grace, row.expires
            );
        }
    }
    text
}

const VZQUOTA_TITLES: &str =
    "qid: path             usage       softlimit       hardlimit        time      expire\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veinfo_has_fixed_columns() {
        let addresses = vec!["192.168.1.101".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let all = [Info { id: 101, numproc: 12, addresses }, Info { id: 0, numproc: 190, addresses: vec![] }];
        assert_eq!(
            veinfo(&all),
            "       101     0    12   192.168.1.101                             2001:db8::1\n         0     0   190\n"
        );
    }

    #[test]
    fn vestat_lines_are_of_one_width() {
        let second = Duration::from_secs(1);
        let stat = Stat { id: 101, user: second * 2, system: second, uptime: second * 10, cpus: 2 };
        let text = vestat(&[stat]);
        assert!(text.lines().all(|line| line.len() == 251) && text.starts_with("Version: 2.2   "));
        let row: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row[..6], ["101", "2000", "0", "1000", "10000", "17000000000"]);
        assert_eq!(row[6..9], ["0", "10000000000", "3000000000"]);
    }

    #[test]
    fn ioacct_has_read_and_write() {
        let text = ioacct(4096, 8192);
        assert!(text.starts_with("\tread                                  4096\n\twrite "));
        assert!(text.lines().all(|line| line.len() == 43));
    }

    #[test]
    fn quota_titles_have_the_columns() {
        let titles = format!(
            "{:<11} {:>15} {:>15} {:>15} {:>11} {:>11}\n",
            "qid: path", "usage", "softlimit", "hardlimit", "time", "expire"
        );
        assert_eq!(vzquota(&[]), titles);
        let row = QuotaRow { usage: 12, soft: 100, hard: 110, grace: 60, expires: 1_700_000_000 };
        let inodes = QuotaRow { usage: 3, expires: 0, ..row };
        let quota = Quota { id: 101, path: "/vz/private/101".into(), space: row, inodes };
        assert_eq!(
            vzquota(&[quota]),
            titles
                + "101: /vz/private/101\n"
                + "  1k-blocks              12             100             110          60  1700000000\n"
                + "     inodes               3             100             110          60           0\n"
        );
    }
}
