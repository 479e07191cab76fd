//! vzoversell(8): RAM and swap that the VEs may use, against what there is.

use std::fmt::Write as _;

use beancounters::{Beancounter, Counter, Resource};
use vzconf::Paths;
use vzconf::units::UNLIMITED;

use super::host::Memory;
use super::suffix::{pages, percent, plain};
use super::words::{Grammar, Request};
use super::{Answer, Error, source};

const GRAMMAR: Grammar = Grammar { program: "vzoversell", flags: &[], operands: 1, exit: 1 };

/// What a letter in the last column means.
const FLAGS: [(char, &str); 5] = [
    ('R', "non-VSwap container, RAM limit guessed based on privvmpages"),
    ('U', "unlimited container, RAM limit not included into totals"),
    ('S', "unlimited swap (ok for non-vswap), not counted into total swap limit"),
    ('f', "RAM failcnt > 0 (swap used), use vzubc to check details"),
    ('F', "beancounter failcnt > 0, use vzubc to check details"),
];

/// Runs vzoversell.
///
/// # Errors
/// Those of the command line, the file and the accounts.
pub fn run(words: &[String], paths: &Paths) -> Result<Answer, Error> {
    let Request::Work { operands, .. } = GRAMMAR.read(words)? else {
        return Ok(include_str!("help/vzoversell.txt").to_owned().into());
    };
    let tables = match operands.first() {
        Some(path) => source::file(path)?,
        None => source::all(paths)?,
    };
    Ok(report(&tables, &Memory::read()?).into())
}

/// The numbers of one VE, or of all: used, highest, limit and refusals of RAM and of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    ram: Column,
    swap: Column,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Column {
    held: u64,
    maxheld: u64,
    limit: u64,
    failcnt: u64,
}

impl Column {
    fn of(counter: &Counter, limit: u64) -> Self {
        Self { held: counter.held, maxheld: counter.maxheld, limit, failcnt: counter.failcnt }
    }

    fn add(&mut self, other: &Self) {
        for (sum, number) in [
            (&mut self.held, other.held),
            (&mut self.maxheld, other.maxheld),
            (&mut self.limit, other.limit),
            (&mut self.failcnt, other.failcnt),
        ] {
            *sum = sum.saturating_add(number);
        }
    }

    fn text(&self) -> String {
        let Self { held, maxheld, limit, failcnt } = *self;
        format!("{:>5} {:>5} {:>5} {:>5}", pages(held), pages(maxheld), pages(limit), plain(failcnt))
    }
}

/// The numbers of one VE, with its flags.
fn sums(ve: &Beancounter) -> (Sums, String) {
    let mut flags = String::new();
    let finite = |limit: u64| Some(limit).filter(|limit| *limit < UNLIMITED);
    let (ram, swap) = (&ve[Resource::Physpages], &ve[Resource::Swappages]);
    let ram_limit = finite(ram.limit).filter(|limit| *limit > 0).unwrap_or_else(|| {
        let guess = finite(ve[Resource::Privvmpages].limit);
        flags.push(if guess.is_some() { 'R' } else { 'U' });
        guess.unwrap_or(0) / 2
    });
    let swap_limit = finite(swap.limit).unwrap_or_else(|| {
        flags.push('S');
        0
    });
    let failures = ve.iter().fold(0_u64, |sum, (_, counter)| sum.saturating_add(counter.failcnt));
    if failures > 0 {
        flags.push(if failures == ram.failcnt { 'f' } else { 'F' });
    }
    (Sums { ram: Column::of(ram, ram_limit), swap: Column::of(swap, swap_limit) }, flags)
}

fn report(tables: &[Beancounter], node: &Memory) -> String {
    let mut text = String::from(
        "           --------- RAM ---------  -------- Swap ---------  Flags\n            \
         used  peak limit fails   used  peak limit fails\n",
    );
    let (mut total, mut seen) = (Sums::default(), String::new());
    for ve in tables.iter().filter(|ve| ve.id != 0) {
        let (one, flags) = sums(ve);
        let _ = writeln!(text, "{:>10} {}  {}  {flags}", ve.id, one.ram.text(), one.swap.text());
        total.ram.add(&one.ram);
        total.swap.add(&one.swap);
        seen.push_str(&flags);
    }
    text.push_str("           ----- ----- ----- -----  ----- ----- ----- -----\n");
    let _ = writeln!(text, " TOTAL     {}  {}\n", total.ram.text(), total.swap.text());
    let (ram, swap) = (node.ram / 4096, node.swap / 4096);
    for (name, available, allocated) in [
        ("RAM", ram, total.ram.limit),
        ("Swap", swap, total.swap.limit),
        ("RAM+Swap", ram + swap, total.ram.limit.saturating_add(total.swap.limit)),
    ] {
        let (there, given, share) = (pages(available), pages(allocated), percent(allocated, available));
        let _ = writeln!(text, "{name:<10} available: {there:>5}  allocated: {given:>5}  oversell: {share}");
    }
    let known: Vec<&(char, &str)> = FLAGS.iter().filter(|(flag, _)| seen.contains(*flag)).collect();
    if !known.is_empty() {
        text.push_str("\nFlags:\n");
        for (flag, meaning) in known {
            let _ = writeln!(text, "  {flag}: {meaning}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::burden::tests::{NODE, classic, vswap};
    use super::*;

    #[test]
    fn limits_of_ram_and_swap_are_summed() {
        let mut thirsty = vswap();
        thirsty.id = 103;
        thirsty[Resource::Physpages].failcnt = 7;
        let mut classic = classic();
        classic[Resource::Numproc].failcnt = 2;
        let mut host = vswap();
        host.id = 0;
        let all = [vswap(), thirsty, classic, Beancounter::new(104), host];
        // 256 + 256 MiB and half of 256 MiB of RAM, 2 x 128 MiB of swap; the node has 1 GiB and 512 MiB.
        assert_eq!(
            report(&all, &NODE),
            "           --------- RAM ---------  -------- Swap ---------  Flags
            used  peak limit fails   used  peak limit fails
       102 3.91M 7.81M  256M    -    200K  240K  128M    -   \n\
       \x20      103 3.91M 7.81M  256M    7    200K  240K  128M    -   f
       101 39.1M 39.1M  128M    -      -     -     -     -   RSF
       104    -     -     -     -      -     -     -     -   US
           ----- ----- ----- -----  ----- ----- ----- -----
 TOTAL     46.9M 54.7M  640M    7    400K  480K  256M    - \n\
 \nRAM        available:    1G  allocated:  640M  oversell: 62%
Swap       available:  512M  allocated:  256M  oversell: 50%
RAM+Swap   available:  1.5G  allocated:  896M  oversell: 58%

Flags:
  R: non-VSwap container, RAM limit guessed based on privvmpages
  U: unlimited container, RAM limit not included into totals
  S: unlimited swap (ok for non-vswap), not counted into total swap limit
  f: RAM failcnt > 0 (swap used), use vzubc to check details
  F: beancounter failcnt > 0, use vzubc to check details
"
        );
    }

    #[test]
    fn an_empty_node_has_room() {
        let text = report(&[], &NODE);
        assert!(text.contains("allocated:    -   oversell: - \n") && !text.contains("\nFlags:"), "{text}");
    }
}
