//! The resources of the beancounter table.

/// A row of the table. The order is the kernel's and that of every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the parameter of the same name")]
pub enum Resource {
    Kmemsize,
    Lockedpages,
    Privvmpages,
    Shmpages,
    Numproc,
    Physpages,
    Vmguarpages,
    Oomguarpages,
    Numtcpsock,
    Numflock,
    Numpty,
    Numsiginfo,
    Tcpsndbuf,
    Tcprcvbuf,
    Othersockbuf,
    Dgramrcvbuf,
    Numothersock,
    Dcachesize,
    Numfile,
    Numiptent,
    Swappages,
}

/// What a resource is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Bytes.
    Bytes,
    /// Pages of 4 KiB on every architecture, as in config files.
    Pages,
    /// Pieces.
    Items,
}

impl Resource {
    /// All of them, in order.
    pub const ALL: [Self; 21] = [
        Self::Kmemsize,
        Self::Lockedpages,
        Self::Privvmpages,
        Self::Shmpages,
        Self::Numproc,
        Self::Physpages,
        Self::Vmguarpages,
        Self::Oomguarpages,
        Self::Numtcpsock,
        Self::Numflock,
        Self::Numpty,
        Self::Numsiginfo,
        Self::Tcpsndbuf,
        Self::Tcprcvbuf,
        Self::Othersockbuf,
        Self::Dgramrcvbuf,
        Self::Numothersock,
        Self::Dcachesize,
        Self::Numfile,
        Self::Numiptent,
        Self::Swappages,
    ];

    /// Its name in tables and (in upper case) in config files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kmemsize => "kmemsize",
            Self::Lockedpages => "lockedpages",
            Self::Privvmpages => "privvmpages",
            Self::Shmpages => "shmpages",
            Self::Numproc => "numproc",
            Self::Physpages => "physpages",
            Self::Vmguarpages => "vmguarpages",
            Self::Oomguarpages => "oomguarpages",
            Self::Numtcpsock => "numtcpsock",
            Self::Numflock => "numflock",
            Self::Numpty => "numpty",
            Self::Numsiginfo => "numsiginfo",
            Self::Tcpsndbuf => "tcpsndbuf",
            Self::Tcprcvbuf => "tcprcvbuf",
            Self::Othersockbuf => "othersockbuf",
            Self::Dgramrcvbuf => "dgramrcvbuf",
            Self::Numothersock => "numothersock",
            Self::Dcachesize => "dcachesize",
            Self::Numfile => "numfile",
            Self::Numiptent => "numiptent",
            Self::Swappages => "swappages",
        }
    }

    /// The resource of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    /// What it is counted in.
    #[must_use]
    pub const fn counted(self) -> Counted {
        match self {
            Self::Kmemsize
            | Self::Tcpsndbuf
            | Self::Tcprcvbuf
            | Self::Othersockbuf
            | Self::Dgramrcvbuf
            | Self::Dcachesize => Counted::Bytes,
            Self::Lockedpages
            | Self::Privvmpages
            | Self::Shmpages
            | Self::Physpages
            | Self::Vmguarpages
            | Self::Oomguarpages
            | Self::Swappages => Counted::Pages,
            _ => Counted::Items,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
