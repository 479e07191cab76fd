//! vzsplit(8): a sample configuration with which N VEs fill the node.

mod disk;
mod levels;
#[cfg(test)]
mod tests;
mod text;

use std::io::ErrorKind;

use vzconf::params::{Kind, Origin};
use vzconf::{ConfFile, Paths};

use super::validate::node_config;
use super::words::{Grammar, Known, Words};
use super::{Error, Outcome, Talk};
use crate::check::host::{self, Memory};

const GRAMMAR: Grammar = Grammar {
    program: "vzsplit",
    options: &[
        Known { short: 'n', long: "number", value: true },
        Known { short: 'f', long: "file", value: true },
        Known { short: 's', long: "swap", value: true },
        Known { short: 'v', long: "vswap", value: true },
    ],
    operands: 0,
};

/// What the host keeps of its memory.
const RESERVE: u64 = 50 << 20;
/// The least of a VE: RAM and swap, and what of it the kernel can use directly.
const LEAST: u64 = 5_542_912;
const LEAST_LOW: u64 = 1_348_608;
/// So many processes a node bears, and twice as many with more than 2 GiB of low memory.
const PROCESSES: u64 = 8000;
/// As many VEs as there are numbers for them.
const MOST: u64 = vzconf::Ctid::MAX as u64;

/// What there is to split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    /// Bytes of RAM, of swap, and of the RAM that the kernel can use directly.
    ram: u64,
    swap: u64,
    low: u64,
    /// Processes that it bears.
    threads: u64,
    /// Bytes in a page.
    page: u64,
}

impl Node {
    fn new(memory: Memory, swap: Option<u64>, threads: u64) -> Self {
        let most = if memory.direct > 2 << 30 { 2 * PROCESSES } else { PROCESSES };
        Self {
            ram: memory.ram,
            swap: swap.unwrap_or(memory.swap),
            low: memory.direct,
            threads: threads.min(most),
            page: vzconf::units::page_size(),
        }
    }

    fn both(&self) -> u64 {
        self.ram.saturating_add(self.swap)
    }

    /// Whether it holds so many VEs.
    fn holds(&self, count: u64) -> Result<(), Error> {
        if self.ram < RESERVE {
            return Err(Error::TinyNode { mib: RESERVE >> 20 });
        }
        let all = (self.both() - RESERVE) / LEAST;
        let low = self.low.saturating_sub(RESERVE) / LEAST_LOW;
        let mut reasons = Vec::new();
        let mut lacks = |what: &str, bytes: u64| {
            let mib = bytes >> 20;
            reasons
                .push(format!("On node with {mib} Mb of {what} {count} containers can not be allocated\n"));
        };
        if all < count {
            lacks("memory (RAM + swap)", self.both());
        }
        if low < count.min(all) {
            lacks("Low Memory", self.low);
        }
        if reasons.is_empty() { Ok(()) } else { Err(Error::TooMany { reasons, allowed: all.min(low) }) }
    }
}

/// Runs vzsplit.
///
/// # Errors
/// Those of the command line; a node that is too small; a sample that cannot be written.
pub fn run(words: &[String], paths: &Paths, talk: &mut Talk<'_>) -> Result<Outcome, Error> {
    let Some(words) = GRAMMAR.read(words)? else {
        talk.print(include_str!("../help/vzsplit.txt"))?;
        return Ok(Outcome::Good);
    };
    let request = Request::read(&words, paths)?;
    let count = request.count.map_or_else(|| ask(talk), Ok)?;
    if count < 1 {
        return Err(Error::NoContainers);
    }
    let node = Node::new(Memory::read()?, request.swap, host::threads_max()?);
    node.holds(count)?;
    if node.swap > 2 * node.ram {
        let mib = (2 * node.ram) >> 20;
        talk.complain(&format!("The optimal swap space size is {mib} Mb, twice bigger than the RAM size"));
    }
    let mut share = levels::share(&node, count).ok_or(Error::Shortage)?;
    let (space, inodes) = disk::share(&node_config(paths, talk), count, talk);
    share.limits.set("diskspace", space);
    share.limits.set("diskinodes", inodes);
    let text = text::sample(&node, count, &share, request.vswap);
    let Some(name) = request.name else {
        talk.print(text)?;
        return Ok(Outcome::Good);
    };
    let path = paths.sample(&name);
    match ConfFile::parse(&text).save_new(&path) {
        // Somebody has just made it.
        Err(vzconf::Error::Save { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::Exists(path.display().to_string()));
        }
        done => done?,
    }
    talk.complain(&format!("Config {} was created", path.display()));
    Ok(Outcome::Good)
}

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    count: Option<u64>,
    /// The sample's.
    name: Option<String>,
    /// Bytes.
    swap: Option<u64>,
    vswap: bool,
}

impl Request {
    fn read(words: &Words, paths: &Paths) -> Result<Self, Error> {
        let vswap = match words.value('v') {
            None | Some("yes") => true,
            Some("no") => false,
            Some(other) => return Err(GRAMMAR.invalid('v', other)),
        };
        let count = words.value('n').map(|value| number(value).ok_or_else(|| GRAMMAR.invalid('n', value)));
        let swap = words.value('s').map(|value| {
            if value.starts_with('-') {
                return Err(GRAMMAR.refuse("Negative value for -s"));
            }
            // No node has more than 2^54 bytes.
            let kib = number(value).filter(|kib| *kib < 1 << 44);
            kib.map(|kib| kib << 10).ok_or_else(|| GRAMMAR.invalid('s', value))
        });
        let name = words
            .value('f')
            .map(|name| Kind::Sample.canonical(name, Origin::Option).map_err(|_| GRAMMAR.invalid('f', name)));
        let name = name.transpose()?;
        if let Some(path) = name.as_deref().map(|name| paths.sample(name)).filter(|path| path.exists()) {
            return Err(Error::Exists(path.display().to_string()));
        }
        Ok(Self { count: count.transpose()?, name, swap: swap.transpose()?, vswap })
    }
}

/// A number of VEs; one below 0 is 0, so that it is refused as a number of them.
fn number(text: &str) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let known = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value = known.then(|| digits.parse::<u64>().ok())??;
    if negative { Some(0) } else { Some(value) }
}

fn ask(talk: &mut Talk<'_>) -> Result<u64, Error> {
    // On standard error, where it does not become part of the sample.
    let answer = talk.ask("Enter the number of containers: ").ok_or(Error::NoNumber)?;
    number(answer.trim()).filter(|count| *count <= MOST).ok_or(Error::NoNumber)
}
