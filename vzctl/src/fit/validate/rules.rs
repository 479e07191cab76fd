//! The rules, in the order in which they are told. What is unlimited holds every rule that asks for more of it.

use vzconf::Pair;
use vzconf::units::UNLIMITED;

use super::super::limits::Limits;
use super::Facts;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    /// It cannot work.
    Error,
    /// It will not work well.
    Warning,
    /// It could be better; such a configuration is valid.
    Recommendation,
}

impl Grade {
    pub(super) fn word(self) -> &'static str {
        match self {
            Grade::Error => "Error",
            Grade::Warning => "Warning",
            Grade::Recommendation => "Recommendation",
        }
    }
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    /// What is wrong.
    pub(super) text: String,
    /// What would mend it, as it is told.
    pub(super) mended: String,
    /// The limit to change, and what to.
    pub(super) name: &'static str,
    pub(super) to: Pair,
}

/// A rule about one limit. Names of two limits are `(what must be large enough, what it must be large enough for)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Barrier and limit are equal.
    Equal(&'static str),
    /// The barrier is not above the limit.
    Ordered(&'static str),
    /// There is no limit.
    Open(&'static str),
    /// The barrier is 0.
    NoBarrier(&'static str),
    /// VSwap: the barrier is 0, in other words.
    OnlyLimit(&'static str),
    /// VSwap: the limit is no more than the node has.
    Within(&'static str),
    /// The cache of names is large enough for the files.
    Names,
    /// Kernel memory is large enough for the processes and the names.
    Kernel,
    /// What can be allocated is as much as is guaranteed.
    Guarantee,
    /// Between barrier and limit of a buffer there is room for each socket.
    Room(&'static str, &'static str, Grade),
    /// The barrier of a buffer is large enough for one connection, and better for a large datagram.
    Buffer(&'static str, u64, Option<u64>),
    /// There are files enough for processes and sockets.
    Files,
}

use Rule::{Equal, NoBarrier, Open, Ordered};

/// Of 32-bit nodes, for each file.
const NAME: u64 = 384;
/// Of kernel memory, for each process.
const PROCESS: u64 = 40 << 10;
/// Of a buffer, for each socket.
const SOCKET: u64 = 2560;
/// Of files, for each process.
const FILES: u64 = 32;

const CLASSIC: [Rule; 21] = [
    Equal("numproc"),
    Equal("numtcpsock"),
    Equal("numothersock"),
    Open("vmguarpages"),
    Ordered("kmemsize"),
    Ordered("tcpsndbuf"),
    Ordered("tcprcvbuf"),
    Ordered("othersockbuf"),
    Ordered("dgramrcvbuf"),
    Open("oomguarpages"),
    Ordered("privvmpages"),
    Ordered("lockedpages"),
    Equal("shmpages"),
    NoBarrier("physpages"),
    Open("physpages"),
    Equal("numfile"),
    Ordered("numflock"),
    Equal("numpty"),
    Equal("numsiginfo"),
    Ordered("dcachesize"),
    Equal("numiptent"),
];
const DISK: [Rule; 2] = [Ordered("diskspace"), Ordered("diskinodes")];
const FORMULAS: [Rule; 11] = [
    Rule::Names,
    Rule::Kernel,
    Rule::Guarantee,
    Rule::Room("tcpsndbuf", "numtcpsock", Grade::Error),
    Rule::Room("othersockbuf", "numothersock", Grade::Error),
    Rule::Room("tcprcvbuf", "numtcpsock", Grade::Warning),
    Rule::Buffer("tcprcvbuf", 64 << 10, None),
    Rule::Buffer("tcpsndbuf", 64 << 10, None),
    Rule::Buffer("dgramrcvbuf", 32 << 10, Some(129 << 10)),
    Rule::Buffer("othersockbuf", 32 << 10, Some(129 << 10)),
    Rule::Files,
];
const VSWAP: [Rule; 4] = [
    Rule::OnlyLimit("physpages"),
    Rule::Within("physpages"),
    Rule::OnlyLimit("swappages"),
    Rule::Within("swappages"),
];

/// The rules for such a configuration.
pub(super) fn rules(facts: &Facts) -> Vec<Rule> {
    if facts.vswap {
        return VSWAP.to_vec();
    }
    let disk: &[Rule] = if facts.quota { &DISK } else { &[] };
    [&CLASSIC[..], disk, &FORMULAS[..]].concat()
}

/// The limits that such a configuration must have.
pub(super) fn needed(facts: &Facts) -> Vec<&'static str> {
    let mut names: Vec<&str> = rules(facts).into_iter().filter_map(Rule::subject).collect();
    names.dedup();
    names
}

impl Rule {
    fn subject(self) -> Option<&'static str> {
        match self {
            Equal(name) | Ordered(name) | Open(name) | NoBarrier(name) | Rule::OnlyLimit(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the rule is broken, and how.
    pub(super) fn find(self, limits: &Limits, facts: &Facts) -> Option<Finding> {
        match self {
            Equal(name) => equal(name, limits),
            Ordered(name) => ordered(name, limits),
            Open(name) => open(name, limits),
            NoBarrier(name) => {
                no_barrier(name, limits, |now| format!("barrier should be = 0 for {name} (currently, {now})"))
            }
            Rule::OnlyLimit(name) => {
                no_barrier(name, limits, |now| format!("{name}.bar should be = 0 (currently, {now})"))
            }
            Rule::Within(name) => within(name, limits, facts),
            Rule::Names => names(limits),
            Rule::Kernel => kernel(limits),
            Rule::Guarantee => guarantee(limits),
            Rule::Room(name, sockets, grade) => room(name, sockets, grade, limits),
            Rule::Buffer(name, least, better) => buffer(name, least, better, limits),
            Rule::Files => files(limits),
        }
    }
}

fn equal(name: &'static str, limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    let to = Pair::both(barrier.max(limit));
    (barrier != limit).then(|| Finding {
        grade: Grade::Error,
        text: format!("barrier should be equal to limit for {name} (currently, {barrier}:{limit})"),
        mended: both(to),
        name,
        to,
    })
}

fn ordered(name: &'static str, limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    (barrier > limit).then(|| Finding {
        grade: Grade::Error,
        text: format!("barrier should be <= limit for {name} (currently, {barrier}:{limit})"),
        mended: both(Pair::both(barrier)),
        name,
        to: Pair::both(barrier),
    })
}

fn open(name: &'static str, limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    (limit != UNLIMITED).then(|| Finding {
        grade: Grade::Error,
        text: format!("limit should be = {UNLIMITED} for {name} (currently, {limit})"),
        mended: UNLIMITED.to_string(),
        name,
        to: Pair { barrier, limit: UNLIMITED },
    })
}

fn no_barrier(name: &'static str, limits: &Limits, text: impl FnOnce(u64) -> String) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    (barrier != 0).then(|| Finding {
        grade: Grade::Error,
        text: text(barrier),
        mended: "0".to_owned(),
        name,
        to: Pair { barrier: 0, limit },
    })
}

fn within(name: &'static str, limits: &Limits, facts: &Facts) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    let most = if name == "physpages" { facts.node.ram } else { facts.node.swap };
    // Where the node has no swap at all, the limit of it says nothing wrong: it is not used.
    let grade = if name == "swappages" && most == 0 { Grade::Recommendation } else { Grade::Warning };
    (limit > most).then(|| Finding {
        grade,
        text: format!("{name}.lim should be <= {most} (currently, {limit})"),
        mended: most.to_string(),
        name,
        to: Pair { barrier, limit: most },
    })
}

fn names(limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get("dcachesize")?;
    let least = times(limits.barrier("numfile"), NAME);
    (limit < least).then(|| Finding {
        grade: Grade::Warning,
        text: format!("dcachesize.lim should be > {least} (currently, {limit})"),
        mended: least.to_string(),
        name: "dcachesize",
        to: Pair { barrier, limit: least },
    })
}

fn kernel(limits: &Limits) -> Option<Finding> {
    let least = plus(times(processes(limits), PROCESS), limits.limit("dcachesize"));
    raised("kmemsize", least, Grade::Error, "kmemsize.bar", limits)
}

fn guarantee(limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get("privvmpages")?;
    let least = limits.barrier("vmguarpages");
    (barrier < least).then(|| Finding {
        grade: Grade::Warning,
        text: format!("privvmpages.bar should be > {least} (currently, {barrier})"),
        mended: least.to_string(),
        name: "privvmpages",
        to: Pair { barrier: least, limit: limit.max(least) },
    })
}

fn room(name: &'static str, sockets: &str, grade: Grade, limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    let least = times(limits.barrier(sockets), SOCKET);
    let now = i128::from(limit) - i128::from(barrier);
    let to = Pair { barrier, limit: plus(barrier, least) };
    (limit != UNLIMITED && now < i128::from(least)).then(|| Finding {
        grade,
        text: format!("{name}.lim-{name}.bar should be > {least} (currently, {limit}-{barrier}={now})"),
        mended: both(to),
        name,
        to,
    })
}

fn buffer(name: &'static str, least: u64, better: Option<u64>, limits: &Limits) -> Option<Finding> {
    let what = format!("{name}.bar");
    raised(name, least, Grade::Warning, &what, limits)
        .or_else(|| raised(name, better?, Grade::Recommendation, &what, limits))
}

fn files(limits: &Limits) -> Option<Finding> {
    let open = ["numtcpsock", "numothersock", "numpty"].map(|name| limits.barrier(name));
    let least = times(processes(limits), FILES).max(open.into_iter().fold(0, plus));
    raised("numfile", least, Grade::Warning, "numfile", limits)
}

/// A barrier that should be at least `least`; the limit keeps its distance to it.
fn raised(name: &'static str, least: u64, grade: Grade, what: &str, limits: &Limits) -> Option<Finding> {
    let Pair { barrier, limit } = limits.get(name)?;
    let to = Pair { barrier: least, limit: plus(limit, least.saturating_sub(barrier)) };
    (barrier < least).then(|| Finding {
        grade,
        text: format!("{what} should be > {least} (currently, {barrier})"),
        mended: both(to),
        name,
        to,
    })
}

/// How many processes there are on the average.
fn processes(limits: &Limits) -> u64 {
    limits.get("avnumproc").map_or_else(|| limits.barrier("numproc") / 2, |pair| pair.barrier)
}

fn both(pair: Pair) -> String {
    format!("{}:{}", pair.barrier, pair.limit)
}

fn times(value: u64, by: u64) -> u64 {
    value.saturating_mul(by).min(UNLIMITED)
}

fn plus(value: u64, more: u64) -> u64 {
    value.saturating_add(more).min(UNLIMITED)
}
