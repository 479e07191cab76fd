//! vzcfgvalidate(8): whether the limits of a configuration fit to one another and to the node; mends them if wanted.

pub mod at_start;
mod rules;
#[cfg(test)]
mod tests;

use std::path::Path;

use vzconf::params::{Origin, by_key};
use vzconf::{Config, Paths};

use self::rules::{Finding, Grade};
use super::limits::{Limits, of_key};
use super::subject::Subject;
use super::words::{Grammar, Known, Words};
use super::{Error, Outcome, Talk};
use crate::check::host::Memory;

const GRAMMAR: Grammar = Grammar {
    program: "vzcfgvalidate",
    options: &[
        Known { short: 'r', long: "repair", value: false },
        Known { short: 'i', long: "interactive", value: false },
        Known { short: 'v', long: "vswap", value: true },
    ],
    operands: 1,
};
/// A repair may break what was checked before it; the rules have no longer chain than this.
const PASSES: usize = 8;

/// Runs vzcfgvalidate.
///
/// # Errors
/// Those of the command line and the file; a configuration that does not fit is none.
pub fn run(words: &[String], paths: &Paths, talk: &mut Talk<'_>) -> Result<Outcome, Error> {
    let Some(words) = GRAMMAR.read(words)? else {
        talk.print(include_str!("../help/vzcfgvalidate.txt"))?;
        return Ok(Outcome::Good);
    };
    let vswap = forced(&words)?;
    let [path] = words.operands.as_slice() else {
        return Err(GRAMMAR.refuse("no configuration file is named"));
    };
    let mending = match (words.has('r'), words.has('i')) {
        (_, true) => Mending::Asked,
        (true, false) => Mending::All,
        (false, false) => Mending::None,
    };
    let global = node_config(paths, talk);
    let subject = Subject::open(Path::new(path), paths)?;
    let before = Limits::of(&subject.config(&global));
    let node = Node::of(Memory::read()?);
    let mut validation = Validation::new(before.clone(), mending, talk);
    validation.lines(&subject);
    validation.values(&subject);
    validation.limits(&facts(&subject, &global, vswap, node))?;
    let Validation { limits, unfit, .. } = validation;
    if unfit {
        if limits != before {
            talk.complain(&format!("{path} is left as it was: not everything is mended"));
        }
        return Ok(Outcome::Unfit);
    }
    let mut file = subject.file.clone();
    limits.write(&before, &mut file)?;
    subject.replace(&file, &global, GRAMMAR.program)?;
    talk.complain("Validation completed: success");
    Ok(Outcome::Good)
}

/// Tells what is wrong with a configuration that is about to be written.
///
/// # Errors
/// When the node does not say what it has.
pub(super) fn check(config: &Config, talk: &mut Talk<'_>) -> Result<Outcome, Error> {
    let limits = Limits::of(config);
    let facts =
        Facts { vswap: limits.is_vswap(), quota: config.disk_quota(), node: Node::of(Memory::read()?) };
    let mut validation = Validation::new(limits, Mending::None, talk);
    validation.limits(&facts)?;
    Ok(if validation.unfit { Outcome::Unfit } else { Outcome::Good })
}

/// The node's configuration; a file for another node can be validated without one.
pub(super) fn node_config(paths: &Paths, talk: &mut Talk<'_>) -> Config {
    Config::global(paths).unwrap_or_else(|_| {
        let path = paths.vz_conf();
        talk.complain(&format!("WARNING: Global configuration file {} not found", path.display()));
        Config::without_node(paths)
    })
}

fn forced(words: &Words) -> Result<Option<bool>, Error> {
    match words.value('v') {
        None => Ok(None),
        Some("yes") => Ok(Some(true)),
        Some("no") => Ok(Some(false)),
        Some(other) => Err(GRAMMAR.invalid('v', other)),
    }
}

fn facts(subject: &Subject, global: &Config, forced: Option<bool>, node: Node) -> Facts {
    let config = subject.config(global);
    let vswap = forced.unwrap_or_else(|| Limits::of(&config).is_vswap());
    Facts { vswap, quota: config.disk_quota(), node }
}

/// The node's memory in pages.
#[derive(Debug, Clone, Copy)]
struct Node {
    ram: u64,
    swap: u64,
}

impl Node {
    fn of(memory: Memory) -> Self {
        let page = vzconf::units::page_size();
        Self { ram: memory.ram / page, swap: memory.swap / page }
    }
}

/// What decides which rules there are.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// RAM and swap are limited, and not each kind of memory by itself.
    vswap: bool,
    /// Disk limits are kept.
    quota: bool,
    node: Node,
}

/// What is done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mending {
    /// It is told.
    None,
    /// It is mended.
    All,
    /// It is mended if that is wanted.
    Asked,
}

struct Validation<'t, 'a> {
    limits: Limits,
    mending: Mending,
    /// What was not to be mended; nobody is asked twice.
    declined: Vec<Finding>,
    unfit: bool,
    talk: &'t mut Talk<'a>,
}

impl<'t, 'a> Validation<'t, 'a> {
    fn new(limits: Limits, mending: Mending, talk: &'t mut Talk<'a>) -> Self {
        Self { limits, mending, declined: Vec::new(), unfit: false, talk }
    }

    /// Lines that nobody reads.
    fn lines(&mut self, subject: &Subject) {
        for line in subject.file.stray_lines() {
            let path = subject.path.display();
            self.talk.complain(&format!("WARNING: {path}:{line}: not a KEY=value line, ignored"));
        }
    }

    /// Values that nobody understands. Of limits that is an error: they would not be there.
    fn values(&mut self, subject: &Subject) {
        for (key, value) in subject.file.entries().filter(|(_, value)| !value.is_empty()) {
            let Some(param) = by_key(key) else { continue };
            let Err(allowed) = param.kind.canonical(value, Origin::File) else { continue };
            let limit = of_key(key).is_some();
            let kind = if limit { "Error" } else { "WARNING" };
            self.talk.complain(&format!("{kind}: invalid value for {key}: {value} (expected {allowed})"));
            self.unfit |= limit;
        }
    }

    fn limits(&mut self, facts: &Facts) -> Result<(), Error> {
        let missing: Vec<&str> =
            rules::needed(facts).iter().filter(|name| self.limits.get(name).is_none()).copied().collect();
        for name in &missing {
            self.talk.complain(&format!("Error: parameter {name} not found"));
        }
        // The formulas would be about nothing.
        if !missing.is_empty() {
            self.unfit = true;
            return Ok(());
        }
        for _ in 0..PASSES {
            if !self.pass(facts)? || self.unfit {
                break;
            }
        }
        Ok(())
    }

    /// Goes through the rules once; tells whether something was mended.
    fn pass(&mut self, facts: &Facts) -> Result<bool, Error> {
        let mut mended = false;
        for rule in rules::rules(facts) {
            if let Some(finding) = rule.find(&self.limits, facts) {
                mended |= self.settle(finding)?;
            }
        }
        Ok(mended)
    }

    fn settle(&mut self, finding: Finding) -> Result<bool, Error> {
        if self.declined.contains(&finding) {
            return Ok(false);
        }
        self.talk.complain(&format!("{}: {}", finding.grade.word(), finding.text));
        if self.mending != Mending::None {
            self.talk.print(format!("set to {}\n", finding.mended))?;
            if self.mending == Mending::All || self.talk.agrees() {
                self.limits.set(finding.name, finding.to);
                return Ok(true);
            }
        }
        self.unfit |= finding.grade != Grade::Recommendation;
        self.declined.push(finding);
        Ok(false)
    }
}

/// What is said of limits on a node with so many bytes of RAM and swap.
#[cfg(test)]
pub(super) fn said_of(limits: &Limits, (ram, swap): (u64, u64)) -> String {
    let mut session = super::testing::Session::default();
    let page = vzconf::units::page_size();
    let facts =
        Facts { vswap: limits.is_vswap(), quota: true, node: Node { ram: ram / page, swap: swap / page } };
    let judged = session.run(|talk| Validation::new(limits.clone(), Mending::None, talk).limits(&facts));
    judged.map_or_else(|error| format!("Error: {error}"), |()| session.err())
}
