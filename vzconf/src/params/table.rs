//! The rows.
use super::{Applies, Group, Kind, Param, Verb};
use crate::Unit;

/// The highest first id of a range of 65536.
const LOCAL_ID_MAX: u64 = u32::MAX as u64 - 65536;

const CREATE: &[Verb] = &[Verb::Create];
const SET: &[Verb] = &[Verb::Set];
const BOTH: &[Verb] = &[Verb::Create, Verb::Set];

/// A row of `set` without aliases that needs no `--save` and counts once.
const fn row(option: &'static str, key: &'static str, kind: Kind, syntax: &'static str) -> Param {
    Param {
        option,
        aliases: &[],
        key: if key.is_empty() { None } else { Some(key) },
        kind,
        syntax,
        applies: Applies::Live,
        needs_save: false,
        repeats: false,
        verbs: SET,
        help: "",
        group: Group::General,
    }
}

impl Param {
    const fn help(mut self, group: Group, help: &'static str) -> Param {
        self.group = group;
        self.help = help;
        self
    }
    const fn aliases(mut self, aliases: &'static [&'static str]) -> Param {
        self.aliases = aliases;
        self
    }
    const fn verbs(mut self, verbs: &'static [Verb]) -> Param {
        self.verbs = verbs;
        self
    }
    const fn stored(mut self) -> Param {
        self.applies = Applies::ConfigOnly;
        self
    }
    const fn restart(mut self) -> Param {
        self.applies = Applies::Restart;
        self
    }
    const fn saved(mut self) -> Param {
        self.needs_save = true;
        self
    }
    const fn repeats(mut self) -> Param {
        self.repeats = true;
        self
    }
}

/// Every option, grouped as help shows them.
pub const PARAMS: &[Param] = &[
    row("onboot", "ONBOOT", Kind::YesNo, "yes|no")
        .stored()
        .help(Group::General, "Start the VE when the node boots"),
    row("bootorder", "BOOTORDER", Kind::Uint { min: 0, max: u64::MAX }, "N")
        .stored()
        .help(Group::General, "Boot priority: higher starts earlier, unset starts last"),
    row("root", "VE_ROOT", Kind::Path, "PATH")
        .verbs(BOTH)
        .stored()
        .help(Group::General, "Mount point of the root; may contain $VEID"),
    row("private", "VE_PRIVATE", Kind::Path, "PATH")
        .verbs(BOTH)
        .stored()
        .help(Group::General, "Private area; may contain $VEID"),
    row("layout", "VE_LAYOUT", Kind::Layout, "auto|overlay|simfs|ploop|btrfs")
        .aliases(&["ve_layout", "velayout"])
        .verbs(CREATE)
        .stored()
        .help(Group::General, "How the private area is kept on disk"),
    row("config", "", Kind::Sample, "NAME")
        .verbs(CREATE)
        .stored()
        .help(Group::General, "Sample config to begin with (ve-NAME.conf-sample)"),
    row("ostemplate", "OSTEMPLATE", Kind::Template, "NAME")
        .verbs(BOTH)
        .stored()
        .saved()
        .help(Group::General, "OS template; decides the distribution scripts used"),
    row("name", "NAME", Kind::Name, "NAME")
        .verbs(BOTH)
        .stored()
        .saved()
        .help(Group::General, "Name usable instead of the CTID; empty removes it"),
    row("description", "DESCRIPTION", Kind::Text, "TEXT")
        .verbs(BOTH)
        .stored()
        .help(Group::General, "Free text"),
    row("disabled", "DISABLED", Kind::YesNo, "yes|no")
        .stored()
        .help(Group::General, "Refuse to start the VE"),
    row("stop-timeout", "STOP_TIMEOUT", Kind::Uint { min: 0, max: u32::MAX as u64 }, "SECONDS")
        .aliases(&["stop_timeout"])
        .stored()
        .saved()
        .help(Group::General, "How long stop waits before it kills; 0 is the default of 120"),
    row("userpasswd", "", Kind::Password, "USER:PASSWORD")
        .repeats()
        .help(Group::General, "Set a password in the VE, creating the user if absent; never saved"),
    row("mount_opts", "MOUNT_OPTS", Kind::MountOpts, "OPTION[,OPTION...]")
        .restart()
        .help(Group::General, "Mount options of the root (ploop only)"),
    row("local_uid", "LOCAL_UID", Kind::Uint { min: 0, max: LOCAL_ID_MAX }, "UID")
        .verbs(CREATE)
        .stored()
        .help(Group::General, "First host uid of the VE's range; 0 is a privileged VE"),
    row("local_gid", "LOCAL_GID", Kind::Uint { min: 0, max: LOCAL_ID_MAX }, "GID")
        .verbs(CREATE)
        .stored()
        .help(Group::General, "First host gid of the VE's range"),
    row("applyconfig", "", Kind::Sample, "NAME")
        .help(Group::General, "Take the parameters of a sample config (not names, addresses, paths)"),
    row("applyconfig_map", "", Kind::OneOf(&["name"]), "name")
        .stored()
        .help(Group::General, "Make the name link again from NAME"),
    row("ipadd", "IP_ADDRESS", Kind::IpAdd, "ADDRESS[/PREFIX]...")
        .aliases(&["ip"])
        .verbs(BOTH)
        .repeats()
        .help(Group::Network, "Add IPv4 or IPv6 addresses"),
    row("ipdel", "", Kind::IpDel, "ADDRESS|all")
        .repeats()
        .help(Group::Network, "Remove addresses; with --ipadd: first remove, then add"),
    row("skip_arpdetect", "", Kind::Flag, "")
        .help(Group::Network, "Do not look for another owner of an added address"),
    row("hostname", "HOSTNAME", Kind::Hostname, "NAME")
        .verbs(BOTH)
        .help(Group::Network, "Host name of the VE"),
    row("nameserver", "NAMESERVER", Kind::Servers, "ADDRESS|inherit")
        .repeats()
        .help(Group::Network, "Name server; repeat for several; inherit takes the node's"),
    row("searchdomain", "SEARCHDOMAIN", Kind::Domains, "DOMAIN|inherit")
        .repeats()
        .help(Group::Network, "DNS search domain; repeat for several; inherit takes the node's"),
    row("netif_add", "NETIF", Kind::NetifAdd, "IFNAME[,MAC,HOST_IFNAME,HOST_MAC,BRIDGE]")
        .repeats()
        .help(Group::Network, "Add a veth device"),
    row("netif_del", "", Kind::NetifDel, "IFNAME|all").repeats().help(Group::Network, "Remove a veth device"),
    row("ifname", "", Kind::Ifname, "IFNAME")
        .repeats()
        .help(Group::Network, "The veth device that the next five options change"),
    row("mac", "", Kind::Mac, "XX:XX:XX:XX:XX:XX").repeats().help(Group::Network, "Its address in the VE"),
    row("host_ifname", "", Kind::Ifname, "IFNAME").repeats().help(Group::Network, "Its name on the node"),
    row("host_mac", "", Kind::Mac, "XX:XX:XX:XX:XX:XX")
        .repeats()
        .help(Group::Network, "Its address on the node"),
    row("bridge", "", Kind::Bridge, "BRIDGE")
        .repeats()
        .help(Group::Network, "The bridge of the node it is attached to; empty detaches"),
    row("mac_filter", "", Kind::OneOf(&["on", "off"]), "on|off")
        .repeats()
        .help(Group::Network, "Whether the VE is held to its own address"),
    row("netdev_add", "NETDEV", Kind::NetdevAdd, "DEVICE")
        .repeats()
        .help(Group::Network, "Move a network device of the node into the VE"),
    row("netdev_del", "", Kind::NetdevDel, "DEVICE").repeats().help(Group::Network, "Move it back"),
    row("ram", "PHYSPAGES", Kind::Ram, "SIZE")
        .help(Group::Memory, "Memory limit in bytes (K, M, G, T, P for pages)"),
    row("swap", "SWAPPAGES", Kind::Ram, "SIZE")
        .help(Group::Memory, "Swap limit in bytes (K, M, G, T, P for pages)"),
    row("vm_overcommit", "VM_OVERCOMMIT", Kind::Float { max: 1000 }, "FACTOR")
        .help(Group::Memory, "Address space allowed, as a multiple of memory plus swap"),
    row("kmemsize", "KMEMSIZE", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Kernel memory (bytes)"),
    row("lockedpages", "LOCKEDPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Locked memory (pages)"),
    row("privvmpages", "PRIVVMPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Private address space (pages)"),
    row("shmpages", "SHMPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Shared memory (pages)"),
    row("numproc", "NUMPROC", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Processes and threads (items)"),
    row("physpages", "PHYSPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Memory in use (pages)"),
    row("vmguarpages", "VMGUARPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Guaranteed address space (pages)"),
    row("oomguarpages", "OOMGUARPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Memory safe from being killed for (pages)"),
    row("numtcpsock", "NUMTCPSOCK", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "TCP sockets (items)"),
    row("numflock", "NUMFLOCK", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "File locks (items)"),
    row("numpty", "NUMPTY", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Pseudo terminals (items)"),
    row("numsiginfo", "NUMSIGINFO", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Queued signals (items)"),
    row("tcpsndbuf", "TCPSNDBUF", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "TCP send buffers (bytes)"),
    row("tcprcvbuf", "TCPRCVBUF", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "TCP receive buffers (bytes)"),
    row("othersockbuf", "OTHERSOCKBUF", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Other socket buffers (bytes)"),
    row("dgramrcvbuf", "DGRAMRCVBUF", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Datagram receive buffers (bytes)"),
    row("numothersock", "NUMOTHERSOCK", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Sockets other than TCP (items)"),
    row("dcachesize", "DCACHESIZE", Kind::Ubc(Unit::Bytes), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Directory entry cache (bytes)"),
    row("numfile", "NUMFILE", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Open files (items)"),
    row("avnumproc", "AVNUMPROC", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Average number of processes (only stored) (items)"),
    row("numiptent", "NUMIPTENT", Kind::Ubc(Unit::Items), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Packet filter rules (items)"),
    row("swappages", "SWAPPAGES", Kind::Ubc(Unit::Pages), "BARRIER[:LIMIT]")
        .help(Group::Ubc, "Swap in use (pages)"),
    row("cpuunits", "CPUUNITS", Kind::Uint { min: 8, max: 500_000 }, "N")
        .help(Group::Cpu, "Share of CPU time against other VEs (8..500000, default 1000)"),
    row("cpuweight", "CPUWEIGHT", Kind::Uint { min: 1, max: 500_000 }, "N")
        .help(Group::Cpu, "Raw scheduler weight"),
    row("cpulimit", "CPULIMIT", Kind::CpuLimit, "N[%]")
        .help(Group::Cpu, "Cap in percent of one CPU; with % a share of the whole node; 0 is none"),
    row("cpuburst", "CPUBURST", Kind::Uint { min: 0, max: 409_600 }, "N")
        .help(Group::Cpu, "Unused time a capped VE may save up, in percent of one CPU; 0 is none"),
    row("cpus", "CPUS", Kind::Uint { min: 0, max: 4096 }, "N")
        .help(Group::Cpu, "How many CPUs the VE sees; 0 is all"),
    row("cpumask", "CPUMASK", Kind::CpuMask, "LIST|all|auto")
        .help(Group::Cpu, "CPUs the VE may run on; auto takes those of --nodemask"),
    row("nodemask", "NODEMASK", Kind::NodeMask, "LIST|all")
        .help(Group::Cpu, "NUMA nodes the VE may use; needs --cpumask"),
    row("diskspace", "DISKSPACE", Kind::Disk(Unit::Kib), "SOFT[:HARD]")
        .verbs(BOTH)
        .help(Group::Disk, "Disk space in KiB (suffixes K, M, G, T)"),
    row("diskinodes", "DISKINODES", Kind::Disk(Unit::Items), "SOFT[:HARD]")
        .verbs(BOTH)
        .help(Group::Disk, "Number of files"),
    row("diskquota", "DISK_QUOTA", Kind::YesNo, "yes|no")
        .restart()
        .help(Group::Disk, "Whether disk limits are kept"),
    row("quotatime", "QUOTATIME", Kind::Uint { min: 0, max: u32::MAX as u64 }, "SECONDS")
        .help(Group::Disk, "How long the soft limit may be exceeded"),
    row("quotaugidlimit", "QUOTAUGIDLIMIT", Kind::Uint { min: 0, max: u32::MAX as u64 }, "N")
        .restart()
        .help(Group::Disk, "Users and groups with quota inside the VE; 0 is off"),
    row("offline-resize", "", Kind::Flag, "")
        .aliases(&["offline"])
        .help(Group::Disk, "Resize the image while it is not mounted (ploop only)"),
    row("ioprio", "IOPRIO", Kind::Uint { min: 0, max: 7 }, "0..7").help(Group::Io, "I/O priority, default 4"),
    row("iolimit", "IOLIMIT", Kind::IoLimit, "N[B|K|M|G]|unlimited")
        .help(Group::Io, "I/O bandwidth, by default in megabytes per second; 0 is none"),
    row("iopslimit", "IOPSLIMIT", Kind::IopsLimit, "N|unlimited")
        .help(Group::Io, "I/O operations per second; 0 is none"),
    row("devnodes", "DEVNODES", Kind::DevNodes, "DEVICE:[r][w][q]|none")
        .repeats()
        .help(Group::Devices, "Give a device file of the node to the VE"),
    row("devices", "DEVICES", Kind::Devices, "b|c:MAJOR:MINOR|all:[r][w][q]|none")
        .repeats()
        .help(Group::Devices, "Give access to devices by number"),
    row("pci_add", "PCI", Kind::PciAdd, "[DOMAIN:]BUS:SLOT.FUNCTION")
        .repeats()
        .help(Group::Devices, "Give a PCI device to the VE"),
    row("pci_del", "", Kind::PciDel, "[DOMAIN:]BUS:SLOT.FUNCTION")
        .repeats()
        .help(Group::Devices, "Take it back"),
    row("capability", "CAPABILITY", Kind::Capabilities, "NAME:on|off[,...]")
        .restart()
        .repeats()
        .help(Group::Security, "Switch capabilities of the VE"),
    row("features", "FEATURES", Kind::Features, "NAME:on|off[,...]")
        .restart()
        .repeats()
        .help(Group::Security, "Switch features of the VE"),
    row(
        "netfilter",
        "NETFILTER",
        Kind::OneOf(&["disabled", "stateless", "stateful", "full"]),
        "disabled|stateless|stateful|full",
    )
    .restart()
    .help(Group::Security, "What of the packet filter the VE may use"),
    row("iptables", "IPTABLES", Kind::IptablesModules, "MODULE[,...]")
        .restart()
        .help(Group::Security, "Obsolete: packet filter modules; see --netfilter"),
    row("meminfo", "MEMINFO", Kind::MemInfo, "none|pages:N|privvmpages:N")
        .help(Group::Security, "What /proc/meminfo shows when --ram is not used"),
    row("save", "", Kind::Flag, "")
        .stored()
        .help(Group::Control, "Save the parameters to the VE's config file"),
    row("force", "", Kind::Flag, "")
        .stored()
        .help(Group::Control, "Save even if the kernel is not supported"),
    row("setmode", "", Kind::OneOf(&["restart", "ignore"]), "restart|ignore")
        .stored()
        .help(Group::Control, "What to do if a parameter needs a restart"),
    row("reset_ub", "", Kind::Flag, "").help(
        Group::Control,
        "Apply the config's beancounters to the running VE again; no other option with it",
    ),
];
