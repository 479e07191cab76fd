//! What `vzlist` knows of one VE: plain typed data, made by [`super::source`] or by a test's hand.

pub use beancounters::Resource;
use vzconf::Ctid;

/// How a VE stands. The order is the sort order of the `status` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Status {
    /// Its init is alive.
    Running,
    /// Nothing of it is active.
    #[default]
    Stopped,
    /// Its root is mounted, nothing runs in it (wins over a dump that lies there).
    Mounted,
    /// A dump of it is there to be restored.
    Suspended,
}

impl Status {
    /// The word of the `status` column.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Mounted => "mounted",
            Self::Suspended => "suspended",
        }
    }
}

/// One beancounter of one VE, in its own unit. What is not counted (of a VE that does not run:
/// anything) is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// In use now.
    pub held: Option<u64>,
    /// The highest use since the VE started.
    pub maxheld: Option<u64>,
    /// Barrier of the limit.
    pub barrier: u64,
    /// The limit itself.
    pub limit: u64,
    /// How often the limit refused.
    pub failcnt: Option<u64>,
}

/// Which number of a [`Counter`] a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// In use now (no suffix).
    Held,
    /// `.m`
    Maxheld,
    /// `.b`
    Barrier,
    /// `.l`
    Limit,
    /// `.f`
    Failcnt,
}

impl Counter {
    /// The number of one column.
    pub fn column(&self, column: Column) -> Option<u64> {
        match column {
            Column::Held => self.held,
            Column::Maxheld => self.maxheld,
            Column::Barrier => Some(self.barrier),
            Column::Limit => Some(self.limit),
            Column::Failcnt => self.failcnt,
        }
    }
}

/// Disk space (KiB) or inodes of one VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    /// In use; 0 when it is not known.
    pub usage: u64,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Which number of a [`Disk`] a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskColumn {
    /// In use now (no suffix).
    Usage,
    /// `.s`
    Soft,
    /// `.h`
    Hard,
}

impl Disk {
    /// The number of one column.
    pub fn column(&self, column: DiskColumn) -> u64 {
        match column {
            DiskColumn::Usage => self.usage,
            DiskColumn::Soft => self.soft,
            DiskColumn::Hard => self.hard,
        }
    }
}

/// A name with its switch, as in `FEATURES` and `CAPABILITY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Lower-case name.
    pub name: String,
    /// `on` or `off`.
    pub on: bool,
}

/// One VE. What was not asked for, or is not set, is `None` or empty.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the field of the same name in the field table")]
pub struct Row {
    pub ctid: Ctid,
    pub status: Status,
    pub private: Option<String>,
    pub root: Option<String>,
    pub mount_opts: Option<String>,
    pub origin_sample: Option<String>,
    pub hostname: Option<String>,
    /// Only when the link below `/etc/vz/names` points to this VE.
    pub name: Option<String>,
    pub description: Option<String>,
    pub ostemplate: Option<String>,
    pub ip: Vec<String>,
    pub nameserver: Vec<String>,
    pub searchdomain: Vec<String>,
    /// Indexed by [`Resource`].
    pub counters: [Counter; Resource::ALL.len()],
    pub diskspace: Option<Disk>,
    pub diskinodes: Option<Disk>,
    pub laverage: Option<[f64; 3]>,
    /// Seconds.
    pub uptime: Option<f64>,
    pub cpulimit: Option<u64>,
    pub cpuunits: Option<u64>,
    pub cpus: Option<u64>,
    pub ioprio: Option<u64>,
    /// Bytes a second.
    pub iolimit: Option<u64>,
    pub iopslimit: Option<u64>,
    pub onboot: Option<bool>,
    pub bootorder: Option<u64>,
    pub layout: Option<String>,
    pub features: Vec<Switch>,
    pub disabled: bool,
    pub vm_overcommit: Option<f64>,
    pub netfilter: Option<String>,
    pub capability: Vec<Switch>,
}

impl Row {
    /// A stopped VE of which nothing else is known.
    pub fn new(ctid: Ctid) -> Self {
        Self {
            ctid,
            status: Status::default(),
            private: None,
            root: None,
            mount_opts: None,
            origin_sample: None,
            hostname: None,
            name: None,
            description: None,
            ostemplate: None,
            ip: Vec::new(),
            nameserver: Vec::new(),
            searchdomain: Vec::new(),
            counters: [Counter::default(); Resource::ALL.len()],
            diskspace: None,
            diskinodes: None,
            laverage: None,
            uptime: None,
            cpulimit: None,
            cpuunits: None,
            cpus: None,
            ioprio: None,
            iolimit: None,
            iopslimit: None,
            onboot: None,
            bootorder: None,
            layout: None,
            features: Vec::new(),
            disabled: false,
            vm_overcommit: None,
            netfilter: None,
            capability: Vec::new(),
        }
    }

    /// One beancounter.
    pub fn counter(&self, resource: Resource) -> &Counter {
        &self.counters[resource as usize]
    }

    /// One beancounter, to be filled in.
    pub fn counter_mut(&mut self, resource: Resource) -> &mut Counter {
        &mut self.counters[resource as usize]
    }

    /// Whether its memory limits are those of a VSwap configuration: a real limit on physical pages.
    pub fn vswap(&self) -> bool {
        const LONG_MAX: u64 = i64::MAX as u64;
        const INT_MAX: u64 = i32::MAX as u64;
        self.vswap_limit().is_some_and(|limit| limit != LONG_MAX && limit != INT_MAX)
    }

    /// The physpages limit, when one is set at all: a limit of 0 pages is how "unset" is stored.
    fn vswap_limit(&self) -> Option<u64> {
        Some(self.counter(Resource::Physpages).limit).filter(|limit| *limit != 0)
    }
}
