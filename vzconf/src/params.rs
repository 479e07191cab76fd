//! THE table of parameters: every option of `set` and `create`, its config key, syntax and effect.
//!
//! Commands, `--help`, completions and the manual's check are made from it; nothing else lists options.
mod kind;
mod table;

pub use kind::{CAPABILITIES, FEATURES, IPTABLES, Kind, Origin};
pub use table::PARAMS;

/// The commands that take parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `vzctl create`
    Create,
    /// `vzctl set`
    Set,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applies {
    /// On a running VE at once.
    Live,
    /// It only lives in the config (or is used at the next start anyway); nothing to apply.
    ConfigOnly,
    /// A running VE has to be restarted.
    Restart,
}

/// The section of help and manual an option stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Name, boot, paths.
    General,
    /// Addresses, names, devices.
    Network,
    /// `--ram` and `--swap`.
    Memory,
    /// Beancounters.
    Ubc,
    /// CPU shares and limits.
    Cpu,
    /// Disk space and quota.
    Disk,
    /// I/O bandwidth and priority.
    Io,
    /// Devices.
    Devices,
    /// Capabilities, features, packet filter.
    Security,
    /// How `set` itself behaves.
    Control,
}

impl Group {
    /// Every group, in the order of help and manual.
    pub const ALL: [Group; 10] = [
        Group::General,
        Group::Network,
        Group::Memory,
        Group::Ubc,
        Group::Cpu,
        Group::Disk,
        Group::Io,
        Group::Devices,
        Group::Security,
        Group::Control,
    ];

    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Group::General => "General",
            Group::Network => "Network",
            Group::Memory => "Memory",
            Group::Ubc => "Beancounters",
            Group::Cpu => "CPU",
            Group::Disk => "Disk",
            Group::Io => "I/O",
            Group::Devices => "Devices",
            Group::Security => "Capabilities and features",
            Group::Control => "How the change is made",
        }
    }
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name without dashes.
    pub option: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// The config key it changes.
    pub key: Option<&'static str>,
    /// What values it takes.
    pub kind: Kind,
    /// The value in help: empty if it takes none.
    pub syntax: &'static str,
    /// When a change takes effect.
    pub applies: Applies,
    /// Whether `set` refuses it without `--save`.
    pub needs_save: bool,
    /// Whether it may be given several times (otherwise the last one counts).
    pub repeats: bool,
    /// The commands that take it.
    pub verbs: &'static [Verb],
    /// One line of help.
    pub help: &'static str,
    /// Its section.
    pub group: Group,
}

impl Param {
    /// Whether a running VE has to be restarted for a change.
    #[must_use]
    pub fn restart_required(&self) -> bool {
        self.applies == Applies::Restart
    }

    /// Whether it takes a value.
    #[must_use]
    pub fn takes_value(&self) -> bool {
        self.kind != Kind::Flag
    }

    /// Whether this command takes it.
    #[must_use]
    pub fn is_for(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

/// The option of this name or alias.
#[must_use]
pub fn by_option(name: &str) -> Option<&'static Param> {
    PARAMS.iter().find(|p| p.option == name || p.aliases.contains(&name))
}

/// The option that sets this config key as a whole.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Param> {
    let key = crate::canonical_key(key);
    // `--ram` is another way to write PHYSPAGES.
    PARAMS.iter().find(|p| p.key == Some(key) && p.kind != Kind::Ram)
}

/// The options of a command, in table order.
pub fn of(verb: Verb) -> impl Iterator<Item = &'static Param> {
    PARAMS.iter().filter(move |p| p.is_for(verb))
}

#[cfg(test)]
mod tests;
