//! The long options of every verb: one table that the parser, `--help` and completion share.

/// What a shell may propose as an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Nothing can be guessed.
    Free,
    /// One of these words.
    Of(&'static [&'static str]),
    /// An operating system template in the cache.
    Template,
    /// A sample configuration (`ve-NAME.conf-sample`).
    Sample,
    /// A path on the host.
    Path,
    /// A bridge or other network device of the host.
    HostDevice,
}

/// One long option as the command line spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opt {
    /// The canonical spelling, without dashes.
    pub(crate) long: &'static str,
    /// Other accepted spellings; `_` and `-` are always interchangeable besides.
    pub(crate) aliases: &'static [&'static str],
    /// The value's name in help; `None` for a flag.
    pub(crate) value: Option<&'static str>,
    /// One line of help; empty hides the option from help and completion.
    pub(crate) help: &'static str,
    /// The help section it is listed under.
    pub(crate) group: &'static str,
    /// What completion proposes.
    pub(crate) values: Values,
}

const YES_NO: Values = Values::Of(&["yes", "no"]);

/// The section of options that are no parameters.
pub(super) const GENERAL: &str = "Options";
const BOOT: &str = "Name and boot";
const FILES: &str = "Files and disk";
const NETWORK: &str = "Network";
const CPU: &str = "CPU and I/O";
const MEMORY: &str = "Memory";
const RIGHTS: &str = "Devices and rights";
const UBC: &str = "Beancounters (barrier[:limit])";

impl Opt {
    const fn flag(long: &'static str, help: &'static str) -> Self {
        Self { long, aliases: &[], value: None, help, group: GENERAL, values: Values::Free }
    }

    const fn value(group: &'static str, long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { long, aliases: &[], value: Some(value), help, group, values: Values::Free }
    }

    const fn of(mut self, values: Values) -> Self {
        self.values = values;
        self
    }

    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn under(mut self, group: &'static str) -> Self {
        self.group = group;
        self
    }

    /// Whether help and completion leave it out.
    pub(crate) const fn hidden(&self) -> bool {
        self.help.is_empty()
    }
}

/// Options of `start`; the last one belongs to restore and is not for people.
pub(crate) const START: &[Opt] = &[
    Opt::flag("force", "Start even if the container is disabled (DISABLED=yes)"),
    Opt::flag("wait", "Return only when the container has booted"),
    Opt::flag("skip-fsck", "Do not check the container's file system"),
    Opt::flag("skip-remount", "If it is mounted already, keep that mount"),
    Opt::flag("skip_ve_setup", ""),
];

/// Options of `stop`.
pub(crate) const STOP: &[Opt] = &[
    Opt::flag("fast", "Kill it at once instead of shutting it down"),
    Opt::flag("skip-umount", "Leave the container's root mounted"),
];

/// Options of `status`.
pub(crate) const STATUS: &[Opt] = &[Opt::flag("json", "Print one JSON object instead of the classic line")];

/// Options that only `create` has.
pub(crate) const CREATE_ONLY: &[Opt] = &[
    Opt::value(GENERAL, "config", "SAMPLE", "Start from ve-SAMPLE.conf-sample").of(Values::Sample),
    Opt::value(GENERAL, "layout", "LAYOUT", "How the files are kept: overlay, simfs or auto")
        .of(Values::Of(&["auto", "overlay", "simfs"]))
        .also(&["ve_layout", "velayout"]),
    Opt::value(RIGHTS, "local_uid", "UID", "First host uid of the container's own range"),
    Opt::value(RIGHTS, "local_gid", "GID", "First host gid of the container's own range"),
];

/// The options of `set` that `create` takes too.
pub(crate) const CREATE_SHARED: &[&str] =
    &["ostemplate", "diskspace", "diskinodes", "private", "root", "ipadd", "hostname", "name", "description"];

/// What steers `set` itself, rather than being a parameter.
pub(crate) const SET_CONTROL: &[Opt] = &[
    Opt::flag("save", "Write the parameters to the container's configuration file"),
    Opt::flag("force", "With --save: save even if the kernel cannot apply the value"),
    Opt::value(GENERAL, "setmode", "restart|ignore", "What to do with parameters that need a restart")
        .of(Values::Of(&["restart", "ignore"])),
    Opt::flag("reset_ub", "Apply all beancounters of the configuration again (alone only)"),
];

/// The parameters of `set`, in the order help shows them.
pub(crate) const SET: &[Opt] = &[
    Opt::value(BOOT, "name", "NAME", "Name usable in place of the CTID; empty removes it"),
    Opt::value(BOOT, "description", "TEXT", "Free text"),
    Opt::value(BOOT, "onboot", "yes|no", "Start when the host starts").of(YES_NO),
    Opt::value(BOOT, "bootorder", "N", "The higher, the earlier it starts"),
    Opt::value(BOOT, "disabled", "yes|no", "Refuse to start it").of(YES_NO),
    Opt::value(BOOT, "stop-timeout", "SECONDS", "How long stop waits before it kills"),
    Opt::value(BOOT, "userpasswd", "USER:PASSWORD", "Set a password inside; never saved"),
    Opt::value(BOOT, "applyconfig", "SAMPLE", "Take over the resources of a sample").of(Values::Sample),
    Opt::value(BOOT, "applyconfig_map", "name", "").of(Values::Of(&["name"])),
    Opt::value(FILES, "ostemplate", "NAME", "The template it is made of").of(Values::Template),
    Opt::value(FILES, "root", "PATH", "Mount point; may contain $VEID").of(Values::Path),
    Opt::value(FILES, "private", "PATH", "Private area; may contain $VEID").of(Values::Path),
    Opt::value(FILES, "mount_opts", "OPTION[,…]", "Mount options of the root"),
    Opt::value(FILES, "diskquota", "yes|no", "Disk quota on or off").of(YES_NO),
    Opt::value(FILES, "diskspace", "SOFT[:HARD]", "Disk space; plain numbers are KiB, suffixes K M G T"),
    Opt::flag("offline-resize", "Resize a disk image while it is not mounted")
        .also(&["offline"])
        .under(FILES),
    Opt::value(FILES, "diskinodes", "SOFT[:HARD]", "Number of files"),
    Opt::value(FILES, "quotatime", "SECONDS", "How long the soft limit may be exceeded"),
    Opt::value(FILES, "quotaugidlimit", "N", "Users and groups with own quota inside; 0 is off"),
    Opt::value(NETWORK, "ipadd", "ADDRESS[/PREFIX]", "Add an address; repeatable").also(&["ip"]),
    Opt::value(NETWORK, "ipdel", "ADDRESS|all", "Remove an address; repeatable").of(Values::Of(&["all"])),
    Opt::flag("skip_arpdetect", "Do not look for another host with the address").under(NETWORK),
    Opt::value(NETWORK, "hostname", "NAME", "Host name"),
    Opt::value(NETWORK, "nameserver", "ADDRESS|inherit", "DNS server; repeatable, replaces all")
        .of(Values::Of(&["inherit"])),
    Opt::value(NETWORK, "searchdomain", "DOMAIN|inherit", "DNS search domain; repeatable, replaces all")
        .of(Values::Of(&["inherit"])),
    Opt::value(NETWORK, "netif_add", "VETH", "Add a veth pair: IFNAME[,MAC,HOST_IFNAME,HOST_MAC,BRIDGE]"),
    Opt::value(NETWORK, "netif_del", "IFNAME|all", "Remove a veth pair").of(Values::Of(&["all"])),
    Opt::value(NETWORK, "ifname", "IFNAME", "The veth that the five options below change"),
    Opt::value(NETWORK, "mac", "MAC", "Its address inside"),
    Opt::value(NETWORK, "host_ifname", "IFNAME", "The name of its host end"),
    Opt::value(NETWORK, "host_mac", "MAC", "The address of its host end"),
    Opt::value(NETWORK, "bridge", "BRIDGE", "The bridge of its host end").of(Values::HostDevice),
    Opt::value(NETWORK, "mac_filter", "on|off", "Refuse other source MACs").of(Values::Of(&["on", "off"])),
    Opt::value(NETWORK, "netdev_add", "DEVICE", "Move a network device of the host in")
        .of(Values::HostDevice),
    Opt::value(NETWORK, "netdev_del", "DEVICE", "Give the device back to the host").of(Values::HostDevice),
    Opt::value(NETWORK, "netfilter", "MODE", "disabled, stateless, stateful or full").of(Values::Of(&[
        "disabled",
        "stateless",
        "stateful",
        "full",
    ])),
    Opt::value(NETWORK, "iptables", "MODULE[,…]", "Old form of --netfilter"),
    Opt::value(CPU, "cpus", "N", "Number of CPUs"),
    Opt::value(CPU, "cpulimit", "N[%]", "Most CPU time: percent of one CPU, or of the machine with %"),
    Opt::value(CPU, "cpuunits", "N", "CPU share, 8 to 500000 (1000 is the default)"),
    Opt::value(CPU, "cpuweight", "N", "Raw CPU weight"),
    Opt::value(CPU, "cpumask", "LIST|all|auto", "CPUs it may use, as 0-2,7").of(Values::Of(&["all", "auto"])),
    Opt::value(CPU, "nodemask", "LIST|all", "NUMA nodes it may use").of(Values::Of(&["all"])),
    Opt::value(CPU, "ioprio", "0..7", "Disk priority (4 is the default)")
        .of(Values::Of(&["0", "1", "2", "3", "4", "5", "6", "7"])),
    Opt::value(CPU, "iolimit", "N[BKMG]", "Disk bandwidth, MB/s by default; 0 is none"),
    Opt::value(CPU, "iopslimit", "N", "Disk operations per second; 0 is none"),
    Opt::value(MEMORY, "ram", "BYTES", "Memory, suffixes K M G T"),
    Opt::value(MEMORY, "swap", "BYTES", "Swap, suffixes K M G T"),
    Opt::value(MEMORY, "vm_overcommit", "FACTOR", "privvmpages as a multiple of ram + swap"),
    Opt::value(MEMORY, "meminfo", "MODE", "Memory seen inside: none, pages:N, privvmpages:N"),
    Opt::value(RIGHTS, "features", "NAME:on|off[,…]", "Kernel features"),
    Opt::value(RIGHTS, "capability", "NAME:on|off[,…]", "Capabilities"),
    Opt::value(RIGHTS, "devnodes", "DEVICE:RIGHTS", "Access with a node in /dev: NAME:[r][w][q]|none"),
    Opt::value(
        RIGHTS,
        "devices",
        "DEVICE:RIGHTS",
        "Access without a node: b|c:MAJOR:MINOR|all:[r][w][q]|none",
    ),
    Opt::value(RIGHTS, "pci_add", "[DOM:]BUS:SLOT.FN", "Give a PCI device"),
    Opt::value(RIGHTS, "pci_del", "[DOM:]BUS:SLOT.FN", "Take a PCI device back"),
    Opt::value(UBC, "kmemsize", "BYTES", "Kernel memory"),
    Opt::value(UBC, "lockedpages", "PAGES", "Locked memory"),
    Opt::value(UBC, "privvmpages", "PAGES", "Private virtual memory"),
    Opt::value(UBC, "shmpages", "PAGES", "Shared memory"),
    Opt::value(UBC, "numproc", "N", "Processes and threads"),
    Opt::value(UBC, "physpages", "PAGES", "Physical memory"),
    Opt::value(UBC, "vmguarpages", "PAGES", "Guaranteed virtual memory"),
    Opt::value(UBC, "oomguarpages", "PAGES", "Memory safe from the OOM killer"),
    Opt::value(UBC, "numtcpsock", "N", "TCP sockets"),
    Opt::value(UBC, "numflock", "N", "File locks"),
    Opt::value(UBC, "numpty", "N", "Pseudo terminals"),
    Opt::value(UBC, "numsiginfo", "N", "Queued signals"),
    Opt::value(UBC, "tcpsndbuf", "BYTES", "TCP send buffers"),
    Opt::value(UBC, "tcprcvbuf", "BYTES", "TCP receive buffers"),
    Opt::value(UBC, "othersockbuf", "BYTES", "Buffers of other sockets"),
    Opt::value(UBC, "dgramrcvbuf", "BYTES", "Datagram receive buffers"),
    Opt::value(UBC, "numothersock", "N", "Other sockets"),
    Opt::value(UBC, "dcachesize", "BYTES", "Directory entry cache"),
    Opt::value(UBC, "numfile", "N", "Open files"),
    Opt::value(UBC, "numiptent", "N", "Packet filter rules"),
    Opt::value(UBC, "avnumproc", "N", "Average number of processes (stored only)"),
    Opt::value(UBC, "swappages", "PAGES", "Swap space"),
    // Gone since vzctl 4, but hosters' scripts still pass it.
    Opt::value(FILES, "noatime", "yes|no", ""),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CREATE_ONLY, CREATE_SHARED, SET, SET_CONTROL};

    #[test]
    fn no_option_is_spelt_twice() {
        for set in [&[SET, SET_CONTROL][..], &[SET, CREATE_ONLY][..]] {
            let mut seen = HashSet::new();
            for opt in set.iter().flat_map(|opts| opts.iter()) {
                for word in std::iter::once(&opt.long).chain(opt.aliases) {
                    assert!(seen.insert(word.replace('-', "_")), "{word} twice");
                }
            }
        }
    }

    #[test]
    fn create_shares_only_what_set_has() {
        for name in CREATE_SHARED {
            assert!(SET.iter().any(|opt| opt.long == *name), "{name}");
        }
    }
}
