//! The long options of every verb: one form that the parser, `--help` and completion share.
//!
//! The parameters of `set` and `create` come from [`vzconf::params`]; only what steers a verb itself is listed here.

use vzconf::params::{self, Group, Kind, Param};

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
    /// Its one-letter form.
    pub(crate) short: Option<char>,
    /// The form of its value; `None` for a flag.
    pub(crate) value: Option<&'static str>,
    /// One line of help; empty hides the option from help and completion.
    pub(crate) help: &'static str,
    /// The help section it is listed under.
    pub(crate) group: &'static str,
    /// The parameter behind it, if it is one.
    pub(crate) param: Option<&'static Param>,
}

/// The section of options that are no parameters.
pub(super) const GENERAL: &str = "Options";

impl Opt {
    const fn flag(long: &'static str, help: &'static str) -> Self {
        Self { long, aliases: &[], short: None, value: None, help, group: GENERAL, param: None }
    }

    const fn with(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { value: Some(value), ..Self::flag(long, help) }
    }

    const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    fn of(param: &'static Param) -> Self {
        Self {
            long: param.option,
            aliases: param.aliases,
            short: None,
            value: param.takes_value().then_some(param.syntax),
            help: param.help,
            group: param.group.title(),
            param: Some(param),
        }
    }

    /// Whether help and completion leave it out.
    pub(crate) const fn hidden(&self) -> bool {
        self.help.is_empty()
    }

    /// Whether it makes sense more than once.
    pub(crate) fn repeats(&self) -> bool {
        self.param.is_some_and(|param| param.repeats)
    }

    /// What completion proposes as its value.
    pub(crate) fn values(&self) -> Values {
        match self.param.map(|param| param.kind) {
            Some(Kind::YesNo) => Values::Of(&["yes", "no"]),
            Some(Kind::OneOf(words)) => Values::Of(words),
            Some(Kind::Template) => Values::Template,
            Some(Kind::Sample) => Values::Sample,
            Some(Kind::Path) => Values::Path,
            Some(Kind::Layout) => Values::Of(&["auto", "overlay", "simfs", "ploop", "btrfs"]),
            Some(Kind::IpDel | Kind::NetifDel | Kind::NodeMask) => Values::Of(&["all"]),
            Some(Kind::CpuMask) => Values::Of(&["all", "auto"]),
            Some(Kind::Servers | Kind::Domains) => Values::Of(&["inherit"]),
            Some(Kind::Bridge | Kind::NetdevAdd | Kind::NetdevDel) => Values::HostDevice,
            _ if self.long == DUMPFILE.long => Values::Path,
            _ => Values::Free,
        }
    }
}

/// A snapshot by its id.
const SNAPSHOT: Opt = Opt { aliases: &["uuid"], ..Opt::with("id", "UUID", "Which snapshot") };

/// Options of `snapshot`.
pub(crate) const TAKE: &[Opt] = &[
    Opt { help: "The id of the new snapshot (a new one)", ..SNAPSHOT },
    Opt::with("name", "NAME", "What it is called"),
    Opt::with("description", "TEXT", "What it is for"),
    Opt::flag("skip-suspend", "Without the memory of a running container"),
    Opt::flag("skip-config", "Without the configuration"),
];

/// Options of `snapshot-switch`.
pub(crate) const SWITCH: &[Opt] = &[
    SNAPSHOT,
    Opt::flag("skip-resume", "Leave the memory of the snapshot alone"),
    Opt::flag("must-resume", "A snapshot without memory is an error"),
    Opt::flag("skip-config", "Keep the configuration as it is"),
    Opt::flag("skip_arpdetect", ""),
];

/// Options of `snapshot-delete` and `snapshot-umount`.
pub(crate) const ONE: &[Opt] = &[SNAPSHOT];

/// Options of `snapshot-mount`.
pub(crate) const SHOW: &[Opt] = &[SNAPSHOT, Opt::with("target", "DIR", "Where, a directory of the host")];

/// Options of `snapshot-list`.
pub(crate) const LISTING: &[Opt] = &[
    Opt { help: "This one and all that it grew out of", ..SNAPSHOT }.short('u'),
    Opt::flag("no-header", "Without the line of headings").short('H'),
    Opt::with("output", "FIELD[,...]", "These columns").short('o'),
    Opt::flag("list", "Print the names of all columns").short('L'),
    Opt::flag("json", "Print a JSON array instead"),
];

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

const DUMPFILE: Opt = Opt {
    long: "dumpfile",
    short: None,
    aliases: &[],
    value: Some("path"),
    help: "The directory of the dump, in place of Dump.CTID in DUMPDIR",
    group: GENERAL,
    param: None,
};

/// Of OpenVZ's kernel: accepted, without effect.
const fn kernel_only(long: &'static str, value: &'static str) -> Opt {
    Opt { long, short: None, aliases: &[], value: Some(value), help: "", group: GENERAL, param: None }
}

/// Options of `suspend`.
pub(crate) const SUSPEND: &[Opt] = &[
    DUMPFILE,
    Opt::flag("suspend", "Only freeze the container"),
    Opt::flag("dump", "Only dump a frozen container, which stays frozen"),
    Opt::flag("kill", "Only kill a frozen container"),
    Opt::flag("resume", "Let a frozen container go on"),
    kernel_only("flags", "number"),
    kernel_only("context", "number"),
];

/// Options of `resume`.
pub(crate) const RESUME: &[Opt] = &[
    DUMPFILE,
    Opt::flag("undump", "Only restore the container, frozen"),
    Opt::flag("resume", "Let a container that was restored frozen go on"),
    Opt::flag("kill", "Kill a container that was restored frozen"),
    kernel_only("flags", "number"),
    kernel_only("context", "number"),
    kernel_only("skip_arpdetect", "yes|no"),
];

/// Gone since vzctl 4, but hosters' scripts still pass it: accepted, without effect.
pub(super) const NOATIME: Opt = Opt::with("noatime", "yes|no", "");

/// What makes `create` a clone.
const FROM: &[Opt] = &[
    Opt::with("from", "CTID[@SNAPSHOT]", "Make it from another container, or from a snapshot of it"),
    Opt::flag("keep-identity", "With --from: the same machine ID and SSH host keys"),
];

/// The options of `create`.
pub(crate) fn create() -> Vec<Opt> {
    FROM.iter().copied().chain(params::of(params::Verb::Create).map(Opt::of)).collect()
}

/// The options of `convert`.
pub(crate) fn convert() -> Vec<Opt> {
    create().into_iter().filter(|opt| opt.long == "layout").collect()
}

/// The options of `set`, those that steer it first.
pub(crate) fn set() -> Vec<Opt> {
    let control = |wanted: bool| {
        params::of(params::Verb::Set).filter(move |param| (param.group == Group::Control) == wanted)
    };
    control(true).chain(control(false)).map(Opt::of).chain([NOATIME]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{create, set};

    #[test]
    fn no_option_is_spelt_twice() {
        for options in [set(), create()] {
            let mut seen = HashSet::new();
            for opt in options {
                let words = std::iter::once(&opt.long).chain(opt.aliases).map(|word| word.replace('-', "_"));
                for word in words.collect::<HashSet<_>>() {
                    assert!(seen.insert(word.clone()), "{word} twice");
                }
            }
        }
    }
}
