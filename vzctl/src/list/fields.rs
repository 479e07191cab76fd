//! The field table: every column `vzlist` can show, once. Text, JSON, sorting, what has to be
//! read, `vzlist -L` and the manual page all follow from it.

use super::row::{Column, DiskColumn, Resource, Row};
use super::value::Value;

/// Where the blanks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Blanks after the text.
    Left,
    /// Blanks before the text.
    Right,
    /// No blanks at all.
    Bare,
}

/// What must be read to know a field. The config is read for all of them but [`Need::Nothing`],
/// [`Need::Uptime`] and [`Need::Numproc`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The CTID is enough.
    Nothing,
    /// The VE's config file.
    Config,
    /// Mount points and dump files.
    Status,
    /// Live addresses.
    Addresses,
    /// The number of processes and threads.
    Numproc,
    /// The limits in force.
    Limits,
    /// All live beancounters.
    Usage,
    /// The private area's form.
    Layout,
    /// When init was started.
    Uptime,
    /// What is in use of the disk, and the limits in force.
    Disk,
}

/// What a field is taken from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Get {
    Plain(for<'a> fn(&'a Row) -> Value<'a>),
    Counter(Resource, Column),
    Space(DiskColumn),
    Inodes(DiskColumn),
}

/// One column of `vzlist`.
#[derive(Debug)]
pub struct Field {
    /// The word for `-o` and `-s`, and the key in JSON.
    pub name: &'static str,
    /// The column's heading.
    pub header: &'static str,
    /// What it tells, for the manual page.
    pub about: &'static str,
    /// Characters of the column.
    pub width: usize,
    /// How the heading is set.
    pub heading: Align,
    /// How a value is set.
    pub align: Align,
    /// What has to be read for it.
    pub need: Need,
    pub(super) get: Get,
}

impl Field {
    /// The field of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// Its value for one VE.
    pub fn of<'a>(&self, row: &'a Row) -> Value<'a> {
        match self.get {
            Get::Plain(get) => get(row),
            Get::Counter(resource, column) => Value::Counter { counter: row.counter(resource), column },
            Get::Space(column) => Value::Disk { disk: row.diskspace, column },
            Get::Inodes(column) => Value::Disk { disk: row.diskinodes, column },
        }
    }

    /// Whether this is one number of a group that JSON shows as one object (`numproc.f`).
    pub fn is_suffixed(&self) -> bool {
        self.name.contains('.')
    }
}

/// All fields, in the order of `vzlist -L` and of JSON.
pub fn field_table() -> &'static [Field] {
    FIELDS
}

const fn left(
    name: &'static str,
    header: &'static str,
    width: usize,
    need: Need,
    get: for<'a> fn(&'a Row) -> Value<'a>,
    about: &'static str,
) -> Field {
    Field { name, header, about, width, heading: Align::Left, align: Align::Left, need, get: Get::Plain(get) }
}

const fn right(
    name: &'static str,
    header: &'static str,
    width: usize,
    need: Need,
    get: for<'a> fn(&'a Row) -> Value<'a>,
    about: &'static str,
) -> Field {
    Field {
        name,
        header,
        about,
        width,
        heading: Align::Right,
        align: Align::Right,
        need,
        get: Get::Plain(get),
    }
}

const fn ten(name: &'static str, header: &'static str, need: Need, get: Get, about: &'static str) -> Field {
    Field { name, header, about, width: 10, heading: Align::Right, align: Align::Right, need, get }
}

const fn counter(
    name: &'static str,
    header: &'static str,
    resource: Resource,
    column: Column,
    about: &'static str,
) -> Field {
    let need = match (resource, column) {
        (_, Column::Barrier | Column::Limit) => Need::Limits,
        (Resource::Numproc, Column::Held) => Need::Numproc,
        _ => Need::Usage,
    };
    ten(name, header, need, Get::Counter(resource, column), about)
}

/// The table itself: plain fields as given, beancounters and disks spread over their suffixes.
macro_rules! table {
    (@fields $($field:expr;)*) => { &[$($field),*] };
    (
        before { $($before:expr;)* }
        counters { $($resource:ident $name:literal $header:literal $about:literal;)* }
        after { $($after:expr;)* }
    ) => {
        table!(@fields
            $($before;)*
            $(
                counter($name, $header, Resource::$resource, Column::Held, concat!($about, ": in use now"));
                counter(concat!($name, ".m"), concat!($header, ".M"), Resource::$resource, Column::Maxheld,
                    concat!($about, ": most ever in use since the start"));
                counter(concat!($name, ".b"), concat!($header, ".B"), Resource::$resource, Column::Barrier,
                    concat!($about, ": barrier"));
                counter(concat!($name, ".l"), concat!($header, ".L"), Resource::$resource, Column::Limit,
                    concat!($about, ": limit"));
                counter(concat!($name, ".f"), concat!($header, ".F"), Resource::$resource, Column::Failcnt,
                    concat!($about, ": refusals"));
            )*
            $($after;)*
        )
    };
}

static FIELDS: &[Field] = table! {
    before {
        right("ctid", "CTID", 10, Need::Nothing, |r| Value::Id(r.ctid), "container ID");
        right("veid", "CTID", 10, Need::Nothing, |r| Value::Id(r.ctid), "older word for ctid");
        right("vpsid", "CTID", 10, Need::Nothing, |r| Value::Id(r.ctid), "oldest word for ctid");
        left("private", "PRIVATE", 32, Need::Config, |r| text(&r.private), "private area");
        left("root", "ROOT", 32, Need::Config, |r| text(&r.root), "mount point of the root");
        left("mount_opts", "MOUNT_OPTS", 16, Need::Config, |r| text(&r.mount_opts), "mount options");
        Field {
            heading: Align::Right,
            ..left("origin_sample", "ORIGIN_SAMPLE", 32, Need::Config, |r| text(&r.origin_sample),
                "sample configuration it was made from")
        };
        left("hostname", "HOSTNAME", 32, Need::Config, |r| text(&r.hostname), "host name");
        left("name", "NAME", 32, Need::Config, |r| text(&r.name), "name that stands for its ID");
        right("smart_name", "SMARTNAME", 10, Need::Config,
            |r| r.name.as_deref().map_or(Value::Id(r.ctid), |name| Value::Text(Some(name))),
            "name, or the ID when it has none");
        left("description", "DESCRIPTION", 32, Need::Config, |r| text(&r.description), "free text about it");
        left("ostemplate", "OSTEMPLATE", 32, Need::Config, |r| text(&r.ostemplate),
            "template it was made from");
        left("ip", "IP_ADDR", 15, Need::Addresses, |r| Value::List(&r.ip),
            "addresses: those routed to it while it runs, else those of its config");
        left("nameserver", "NAMESERVER", 15, Need::Config, |r| Value::List(&r.nameserver), "name servers");
        left("searchdomain", "SEARCHDOMAIN", 15, Need::Config, |r| Value::List(&r.searchdomain),
            "search domains");
        left("status", "STATUS", 9, Need::Status, |r| Value::Status(r.status),
            "running, stopped, mounted or suspended");
    }
    counters {
        Kmemsize "kmemsize" "KMEMSIZE" "kernel memory, bytes";
        Lockedpages "lockedpages" "LOCKEDP" "pages locked in memory";
        Privvmpages "privvmpages" "PRIVVMP" "private memory, pages";
        Shmpages "shmpages" "SHMP" "shared memory, pages";
        Numproc "numproc" "NPROC" "processes and threads";
        Physpages "physpages" "PHYSP" "physical memory, pages";
        Vmguarpages "vmguarpages" "VMGUARP" "guaranteed memory, pages";
        Oomguarpages "oomguarpages" "OOMGUARP" "memory safe from the out-of-memory killer, pages";
        Numtcpsock "numtcpsock" "NTCPSOCK" "TCP sockets";
        Numflock "numflock" "NFLOCK" "file locks";
        Numpty "numpty" "NPTY" "pseudo-terminals";
        Numsiginfo "numsiginfo" "NSIGINFO" "queued signals";
        Tcpsndbuf "tcpsndbuf" "TCPSNDB" "TCP send buffers, bytes";
        Tcprcvbuf "tcprcvbuf" "TCPRCVB" "TCP receive buffers, bytes";
        Othersockbuf "othersockbuf" "OTHSOCKB" "other sockets' buffers, bytes";
        Dgramrcvbuf "dgramrcvbuf" "DGRAMRB" "datagram receive buffers, bytes";
        Numothersock "numothersock" "NOTHSOCK" "sockets other than TCP";
        Dcachesize "dcachesize" "DCACHESZ" "locked dentries and inodes, bytes";
        Numfile "numfile" "NFILE" "open files";
        Numiptent "numiptent" "NIPTENT" "packet filter rules";
        Swappages "swappages" "SWAPP" "swap, pages";
    }
    after {
        ten("diskspace", "DSPACE", Need::Disk, Get::Space(DiskColumn::Usage), "disk space in use, KiB");
        ten("diskspace.s", "DSPACE.S", Need::Disk, Get::Space(DiskColumn::Soft),
            "disk space, soft limit, KiB");
        ten("diskspace.h", "DSPACE.H", Need::Disk, Get::Space(DiskColumn::Hard),
            "disk space, hard limit, KiB");
        ten("diskinodes", "DINODES", Need::Disk, Get::Inodes(DiskColumn::Usage), "inodes in use");
        ten("diskinodes.s", "DINODES.S", Need::Disk, Get::Inodes(DiskColumn::Soft), "inodes, soft limit");
        ten("diskinodes.h", "DINODES.H", Need::Disk, Get::Inodes(DiskColumn::Hard), "inodes, hard limit");
        Field {
            align: Align::Bare,
            ..right("laverage", "LAVERAGE", 14, Need::Nothing, |r| Value::Load(r.laverage),
                "load averages over 1, 5 and 15 minutes")
        };
        Field {
            align: Align::Bare,
            ..right("uptime", "UPTIME", 15, Need::Uptime, |r| Value::Uptime(r.uptime), "time since its start")
        };
        right("cpulimit", "CPULIM", 7, Need::Config, |r| Value::Number(r.cpulimit),
            "CPU limit, percent of one CPU; 0 is none");
        right("cpuunits", "CPUUNI", 7, Need::Config, |r| Value::Number(r.cpuunits), "CPU share");
        right("cpus", "CPUS", 5, Need::Config, |r| Value::Limit(r.cpus), "CPUs it sees");
        right("ioprio", "IOP", 3, Need::Config, |r| Value::Level(r.ioprio), "disk priority, 0 to 7");
        right("iolimit", "IOLIMIT", 10, Need::Config, |r| Value::Limit(r.iolimit),
            "disk limit, bytes a second");
        right("iopslimit", "IOPS", 4, Need::Config, |r| Value::Limit(r.iopslimit),
            "disk limit, operations a second");
        right("onboot", "ONBOOT", 6, Need::Config, |r| Value::Flag(r.onboot), "started when the host boots");
        right("bootorder",
            "BOOTORDER", 10, Need::Config, |r| Value::Order { order: r.bootorder, ctid: r.ctid },
            "place in the boot order; higher comes first");
        Field {
            heading: Align::Right,
            ..left("layout", "LAYOUT", 6, Need::Layout, |r| Value::Word(r.layout.as_deref()),
                "form of the private area")
        };
        left("features", "FEATURES", 15, Need::Config, |r| Value::Switches(&r.features),
            "features on and off");
        right("vswap", "VSWAP", 5, Need::Config, |r| Value::Flag(Some(r.vswap())),
            "limited by RAM and swap (VSwap)");
        right("disabled", "DISABL", 6, Need::Config, |r| Value::Flag(Some(r.disabled)),
            "not allowed to start");
        right("vm_overcommit", "VM_OVC", 6, Need::Config, |r| Value::Ratio(r.vm_overcommit),
            "memory overcommit");
        left("netfilter", "NETFILTER", 9, Need::Config, |r| Value::Word(r.netfilter.as_deref()),
            "packet filter modules it may use");
        left("capability", "CAPABILITY", 15, Need::Config, |r| Value::Switches(&r.capability),
            "capabilities on and off");
    }
};

fn text(value: &Option<String>) -> Value<'_> {
    Value::Text(value.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_grouped_fields_carry_their_suffix() {
        let mut names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(all, 16 + 21 * 5 + 6 + 17);
        for field in FIELDS.iter().filter(|field| field.is_suffixed()) {
            let (group, suffix) = field.name.split_once('.').unwrap();
            assert!(Field::find(group).is_some_and(|group| !group.is_suffixed()));
            assert!(field.header.ends_with(&format!(".{}", suffix.to_uppercase())), "{}", field.header);
        }
    }

    #[test]
    fn counters_come_in_the_order_of_their_resources() {
        let order: Vec<_> = FIELDS
            .iter()
            .filter_map(|field| match field.get {
                Get::Counter(resource, Column::Held) => Some((field.name, resource)),
                _ => None,
            })
            .collect();
        assert_eq!(order, Resource::ALL.map(|resource| (resource.name(), resource)));
    }

    #[test]
    fn every_field_is_described_in_one_line() {
        for field in field_table() {
            assert!(!field.about.is_empty() && !field.about.contains('\n'), "{}", field.name);
            assert!(!field.about.ends_with('.'), "{}", field.name);
        }
    }
}
