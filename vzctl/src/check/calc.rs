//! vzcalc(8): how much of the node one VE takes.

use std::fmt::Write as _;

use beancounters::{Beancounter, Resource, configured};
use vzconf::units::UNLIMITED;
use vzconf::{Config, Ctid, Paths};

use super::burden::{promised, used};
use super::host::{self, Memory};
use super::words::{Grammar, Request};
use super::{Answer, Error, source};

const GRAMMAR: Grammar = Grammar { program: "vzcalc", flags: &[('v', "verbose")], operands: 1, exit: 1 };

/// What a configuration without a limit of RAM has to say.
const NEEDED: [Resource; 8] = [
    Resource::Numproc,
    Resource::Vmguarpages,
    Resource::Kmemsize,
    Resource::Tcpsndbuf,
    Resource::Tcprcvbuf,
    Resource::Othersockbuf,
    Resource::Dgramrcvbuf,
    Resource::Privvmpages,
];

/// Runs vzcalc.
///
/// # Errors
/// Those of the command line, the configuration and the accounts.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let Request::Work { flags, operands } = GRAMMAR.read(words)? else {
        return Ok(include_str!("help/vzcalc.txt").to_owned().into());
    };
    let [word] = operands.as_slice() else { return Err(GRAMMAR.refuse("no container is named")) };
    let ctid: Ctid = word.parse().map_err(|_| Error::BadCtid(word.clone()))?;
    source::need_root()?;
    let path = paths.ve_conf(ctid);
    if !path.exists() {
        return Err(Error::NoConfig(path.display().to_string()));
    }
    let config = Config::global(paths)?.for_ve(ctid)?;
    let limits = configured(&config, ctid.get());
    if limits[Resource::Physpages].limit >= UNLIMITED {
        let missing = NEEDED.into_iter().filter(|resource| config.ubc(resource.name()).is_none());
        let missing: Vec<String> = missing.map(|resource| resource.name().to_uppercase()).collect();
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
    }
    let running = source::of(paths, ctid)?;
    let node = Node { memory: Memory::read()?, threads: host::threads_max()? };
    Ok(report(running.as_ref(), &limits, &node, flags.contains(&'v')).into())
}

/// What shares are of.
#[derive(Debug, Clone, Copy)]
struct Node {
    memory: Memory,
    threads: u64,
}

/// One line: per cent of the node; `None` where it does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Line {
    current: Option<f64>,
    promised: Option<f64>,
    max: Option<f64>,
}

impl Line {
    fn text(&self) -> String {
        [self.current, self.promised, self.max].map(column).join(" ")
    }
}

/// Low memory, RAM, RAM and swap, allocated memory, processes.
fn lines(running: Option<&Beancounter>, limits: &Beancounter, node: &Node) -> [Line; 5] {
    let (low, ram, both) = (node.memory.low, node.memory.ram, node.memory.both());
    let share = |part: f64, whole: u64| Some(part / whole as f64 * 100.0);
    let promised = promised(limits, &node.memory);
    let numproc = limits[Resource::Numproc].barrier;
    let mut lines = [
        Line { promised: share(promised.low, low), max: share(promised.low, low), ..Line::default() },
        Line::default(),
        Line { promised: share(promised.both, both), ..Line::default() },
        Line {
            promised: share(promised.allocated, both),
            max: share(promised.at_most, both),
            ..Line::default()
        },
        Line {
            max: (numproc < UNLIMITED).then(|| share(numproc as f64, node.threads)).flatten(),
            ..Line::default()
        },
    ];
    if let Some(ve) = running {
        let used = used(ve);
        let current = [
            share(used.low, low),
            share(used.ram, ram),
            share(used.both, both),
            share(used.allocated, both),
            share(ve[Resource::Numproc].held as f64, node.threads),
        ];
        for (line, current) in lines.iter_mut().zip(current) {
            line.current = current;
        }
    }
    lines
}

fn report(running: Option<&Beancounter>, limits: &Beancounter, node: &Node, verbose: bool) -> String {
    let lines = lines(running, limits, node);
    let mut text = String::from("Resource     Current(%)  Promised(%)  Max(%)\n");
    if verbose {
        let names = ["Low Mem", "Total RAM", "Mem + Swap", "Alloc. Mem", "Num. Proc"];
        for (name, line) in names.into_iter().zip(&lines) {
            // This one always ended with a blank.
            let end = if name == "Total RAM" { " " } else { "" };
            let _ = writeln!(text, "{name:<10} {}{end}", line.text());
        }
        let _ = writeln!(text, "{}", "-".repeat(44));
    }
    let most = |number: fn(&Line) -> Option<f64>| lines.iter().filter_map(number).reduce(f64::max);
    let greatest = Line {
        current: most(|line| line.current),
        promised: most(|line| line.promised),
        max: most(|line| line.max),
    };
    let _ = writeln!(text, "{:<10} {}", "Memory", greatest.text());
    text
}

fn column(number: Option<f64>) -> String {
    number.map_or_else(|| format!("{:>10}", "n/a"), |number| format!("{number:10.2}"))
}

#[cfg(test)]
mod tests {
    use super::super::burden::tests::{NODE, classic, vswap};
    use super::*;

    const HOST: Node = Node { memory: NODE, threads: 8000 };

    #[test]
    fn a_running_ve_has_three_columns() {
        // The shares are those of vzmemcheck's test; 32/8000 = 0.4 %, 240/8000 = 3 %.
        let ve = classic();
        assert_eq!(
            report(Some(&ve), &ve, &HOST, true),
            "Resource     Current(%)  Promised(%)  Max(%)\n\
             Low Mem          3.42       6.84       6.84\n\
             Total RAM        5.18        n/a        n/a \n\
             Mem + Swap       3.96       8.44        n/a\n\
             Alloc. Mem       4.73      10.22      18.49\n\
             Num. Proc        0.40        n/a       3.00\n\
             --------------------------------------------\n\
             Memory           5.18      10.22      18.49\n"
        );
    }

    #[test]
    fn a_stopped_one_uses_nothing() {
        assert_eq!(
            report(None, &classic(), &HOST, false),
            "Resource     Current(%)  Promised(%)  Max(%)\n\
             Memory            n/a      10.22      18.49\n"
        );
    }

    #[test]
    fn ram_and_swap_stand_for_what_has_no_limit() {
        let ve = vswap();
        assert_eq!(
            report(Some(&ve), &ve, &HOST, true),
            "Resource     Current(%)  Promised(%)  Max(%)\n\
             Low Mem          0.00       0.00       0.00\n\
             Total RAM        0.38        n/a        n/a \n\
             Mem + Swap       0.27      16.67        n/a\n\
             Alloc. Mem       0.00      25.00      25.00\n\
             Num. Proc        0.00        n/a        n/a\n\
             --------------------------------------------\n\
             Memory           0.38      25.00      25.00\n"
        );
    }
}
