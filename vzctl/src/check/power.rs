//! vzcpucheck(8): the CPU units given away, and those the node is worth.

use std::fmt::Write as _;

use ve::accounts::Accounts;
use vzconf::{Config, Ctid, Paths};

use super::words::{Grammar, Request};
use super::{Answer, Error, host, source};

const GRAMMAR: Grammar = Grammar { program: "vzcpucheck", flags: &[('v', "verbose")], operands: 0, exit: 2 };
/// Of a VE, or a host, whose configuration does not say.
const USUAL: u64 = 1000;

/// Runs vzcpucheck.
///
/// # Errors
/// Those of the command line, the accounts and `/proc/cpuinfo`.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let Request::Work { flags, .. } = GRAMMAR.read(words)? else {
        return Ok(include_str!("help/vzcpucheck.txt").to_owned().into());
    };
    source::need_root()?;
    let global = Config::global(paths)?;
    let running = Accounts::new(paths)?.running();
    let mut units: Vec<(u32, u64)> =
        running.iter().map(|(ctid, _)| (ctid.get(), of_ve(&global, *ctid))).collect();
    units.push((0, of_host(&global)));
    Ok(report(&units, host::power()?, flags.contains(&'v')).into())
}

fn of_ve(global: &Config, ctid: Ctid) -> u64 {
    let config = global.for_ve(ctid).ok();
    config.and_then(|config| config.cpuunits()).map_or(USUAL, u64::from)
}

fn of_host(global: &Config) -> u64 {
    global.get("VE0CPUUNITS").and_then(|value| value.trim().parse().ok()).unwrap_or(USUAL)
}

fn report(units: &[(u32, u64)], power: Option<u64>, verbose: bool) -> String {
    let mut text = String::new();
    if verbose {
        text.push_str("VEID\t\tCPUUNITS\n-------------------------\n");
        for (id, units) in units {
            let _ = writeln!(text, "{id}\t\t{units}");
        }
    }
    let sum: u64 = units.iter().map(|(_, units)| units).sum();
    let worth = power.map_or_else(|| "n/a".to_owned(), |power| power.to_string());
    let _ = writeln!(text, "Current CPU utilization: {sum}\nPower of the node: {worth}");
    if power.is_some_and(|power| sum > power) {
        text.push_str("Warning: hardware node is overcommitted\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_away_is_set_against_what_there_is() {
        let units = [(102, 2000), (101, 1000), (0, 1000)];
        assert_eq!(
            report(&units, Some(200_012), false),
            "Current CPU utilization: 4000\nPower of the node: 200012\n"
        );
        assert_eq!(
            report(&units, Some(3999), true),
            "VEID\t\tCPUUNITS\n-------------------------\n102\t\t2000\n101\t\t1000\n0\t\t1000\n\
             Current CPU utilization: 4000\nPower of the node: 3999\n\
             Warning: hardware node is overcommitted\n"
        );
        assert_eq!(
            report(&[(0, 1000)], None, false),
            "Current CPU utilization: 1000\nPower of the node: n/a\n"
        );
    }
}
