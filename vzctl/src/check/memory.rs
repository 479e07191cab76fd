//! vzmemcheck(8): what the running VEs use of the node's memory, and what they were promised.

use std::fmt::Write as _;

use beancounters::Beancounter;
use vzconf::Paths;

use super::burden::{promised, used};
use super::host::Memory;
use super::words::{Grammar, Request};
use super::{Answer, Error, source};

const GRAMMAR: Grammar =
    Grammar { program: "vzmemcheck", flags: &[('v', "verbose"), ('A', "absolute")], operands: 0, exit: 1 };

/// Runs vzmemcheck.
///
/// # Errors
/// Those of the command line and of the accounts.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let Request::Work { flags, .. } = GRAMMAR.read(words)? else {
        return Ok(include_str!("help/vzmemcheck.txt").to_owned().into());
    };
    let tables = source::all(paths)?;
    let unit = if flags.contains(&'A') { Unit::Mbytes } else { Unit::Percent };
    Ok(report(&tables, &Memory::read()?, unit, flags.contains(&'v')).into())
}

/// What the numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Shares of what the node has.
    Percent,
    /// MiB.
    Mbytes,
}

/// The eight columns: low memory used and promised, RAM used, RAM and swap used and promised, allocated, promised to
/// be allocated, and allocated at most.
type Columns = [f64; 8];

/// Needed for one VE each.
fn columns(ve: &Beancounter, node: &Memory) -> Columns {
    let (used, promised) = (used(ve), promised(ve, node));
    [
        used.low,
        promised.low,
        used.ram,
        used.both,
        promised.both,
        used.allocated,
        promised.allocated,
        promised.at_most,
    ]
}

/// What there is of each.
fn capacities(node: &Memory) -> [u64; 8] {
    let (low, ram, both) = (node.low, node.ram, node.both());
    [low, low, ram, both, both, both, both, both]
}

const MIB: f64 = 1_048_576.0;

fn report(tables: &[Beancounter], node: &Memory, unit: Unit, verbose: bool) -> String {
    let capacities = capacities(node);
    let mut text = match unit {
        Unit::Percent => "Output values in %\n".to_owned(),
        Unit::Mbytes => "Output values in Mbytes\n".to_owned(),
    };
    let indent = |word: &'static str| if verbose { format!("{word:<11}") } else { String::new() };
    let _ = write!(
        text,
        "{} LowMem  LowMem     RAM MemSwap MemSwap   Alloc   Alloc   Alloc\n\
         {}   util  commit    util    util  commit    util  commit   limit\n",
        indent("CTID"),
        indent("")
    );
    let mut sum = Columns::default();
    for ve in tables.iter().filter(|ve| ve.id != 0) {
        let mut row = columns(ve, node);
        for ((number, sum), capacity) in row.iter_mut().zip(&mut sum).zip(capacities) {
            *number = match unit {
                Unit::Percent => *number / capacity as f64 * 100.0,
                Unit::Mbytes => *number / MIB,
            };
            *sum += *number;
        }
        if verbose {
            let _ = writeln!(text, "{:<10} {}", ve.id, line(&row));
        }
    }
    if verbose {
        let _ = writeln!(text, "{}", "-".repeat(74));
    }
    let _ = writeln!(text, "{}{}", indent("Summary:"), line(&sum));
    if unit == Unit::Mbytes {
        // Full ones, as always.
        let whole = capacities.map(|bytes| (bytes >> 20) as f64);
        let _ = writeln!(text, "{}{}", indent(""), line(&whole));
    }
    text
}

fn line(columns: &Columns) -> String {
    columns.map(|number| format!("{number:7.2}")).join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::burden::tests::{NODE, classic, vswap};
    use super::*;

    fn host() -> Beancounter {
        let mut host = classic();
        host.id = 0;
        host
    }

    #[test]
    fn the_sum_is_of_the_ves_alone() {
        // 14680064/429496729 = 3.418 %, 29360128/429496729 = 6.836 %
        // (40960000+14680064)/1073741824 = 5.182 %; with vswap 4096000/1073741824 = 0.381 %
        // (49152000+14680064)/1610612736 = 3.963 %; with vswap 4300800/1610612736 = 0.267 %
        // (106496000+29360128)/1610612736 = 8.435 %; with vswap 268435456/1610612736 = 16.667 %
        // (61440000+14680064)/1610612736 = 4.726 %
        // (135168000+29360128)/1610612736 = 10.215 %; with vswap 402653184/1610612736 = 25 %
        // (268435456+29360128)/1610612736 = 18.490 %; with vswap 25 %
        assert_eq!(
            report(&[vswap(), classic(), host()], &NODE, Unit::Percent, true),
            "\
Output values in %
CTID        LowMem  LowMem     RAM MemSwap MemSwap   Alloc   Alloc   Alloc
              util  commit    util    util  commit    util  commit   limit
102           0.00    0.00    0.38    0.27   16.67    0.00   25.00   25.00
101           3.42    6.84    5.18    3.96    8.44    4.73   10.22   18.49
--------------------------------------------------------------------------
Summary:      3.42    6.84    5.56    4.23   25.10    4.73   35.22   43.49
"
        );
    }

    #[test]
    fn absolute_values_come_with_what_there_is() {
        // kernel 14 MiB of 28; pages 10000 = 39.0625 MiB, 12000 = 46.875, 26000 = 101.5625, 15000 = 58.59375,
        // 33000 = 128.90625, 65536 = 256; the node 409.6, 1024 and 1536 MiB
        assert_eq!(
            report(&[classic()], &NODE, Unit::Mbytes, false),
            "\
Output values in Mbytes
 LowMem  LowMem     RAM MemSwap MemSwap   Alloc   Alloc   Alloc
   util  commit    util    util  commit    util  commit   limit
  14.00   28.00   53.06   60.88  129.56   72.59  156.91  284.00
 409.00  409.00 1024.00 1536.00 1536.00 1536.00 1536.00 1536.00
"
        );
    }

    #[test]
    fn without_a_ve_all_is_nothing() {
        let text = report(&[host()], &NODE, Unit::Percent, false);
        assert_eq!(
            text.lines().last(),
            Some("   0.00    0.00    0.00    0.00    0.00    0.00    0.00    0.00")
        );
        assert_eq!(text.lines().count(), 4);
    }
}
