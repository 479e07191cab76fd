//! The first line of each side.

use std::io::{BufRead, Write};
use std::time::Duration;

use super::frame::WireError;

const WORD: &str = "VZMIGRATE";
/// Versions that are spoken here, lowest and highest.
const VERSIONS: (u16, u16) = (3, 3);
/// What a login shell may print before our program begins.
const NOISE: usize = 64 << 10;
/// How long a side waits for a sign of life, where the source does not say it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The most that a source may say, in seconds.
pub const LONGEST: u64 = 3600;

/// The source's side, which says how long the connection may be silent; returns the version that is spoken. `from` must
/// not read more than the line: what follows is not for it.
///
/// # Errors
/// [`WireError`]; what was printed instead of a greeting is in it.
pub fn greet(out: &mut impl Write, from: &mut impl BufRead, patience: Duration) -> Result<u16, WireError> {
    let (low, high) = VERSIONS;
    writeln!(out, "{WORD} {low} {high} {}", patience.as_secs())?;
    out.flush()?;
    let mut noise = Vec::new();
    loop {
        let start = noise.len();
        let mut limited = std::io::Read::take(&mut *from, (NOISE - start) as u64);
        if limited.read_until(b'\n', &mut noise)? == 0 {
            let said = String::from_utf8_lossy(&noise).trim().to_owned();
            return Err(if said.is_empty() {
                WireError::Closed
            } else {
                WireError::Protocol(format!("instead of a greeting it said: {}", shortened(&said)))
            });
        }
        let line = String::from_utf8_lossy(&noise[start..]).into_owned();
        let Some(rest) = line.trim_end().strip_prefix(WORD) else { continue };
        let version = rest.trim().parse().ok().filter(|version| (low..=high).contains(version));
        let here = format!("{low} to {high}");
        return version.ok_or_else(|| WireError::Version { here, there: shortened(rest.trim()) });
    }
}

/// The destination's side; returns the version that is spoken, and how long the connection may be silent.
///
/// # Errors
/// [`WireError`].
pub fn accept(out: &mut impl Write, from: &mut impl BufRead) -> Result<(u16, Duration), WireError> {
    let mut line = Vec::new();
    std::io::Read::take(&mut *from, 256).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split_whitespace();
    let theirs = match (words.next(), words.next().map(str::parse), words.next().map(str::parse)) {
        (Some(WORD), Some(Ok(low)), Some(Ok(high))) => (low, high),
        _ => {
            return Err(WireError::Protocol("no greeting; this is for vzmigrate on another host".to_owned()));
        }
    };
    let patience = words.next().and_then(|word| word.parse().ok());
    let patience = patience.map_or(PATIENCE, |seconds: u64| Duration::from_secs(seconds.clamp(1, LONGEST)));
    let (low, high) = VERSIONS;
    let common: (u16, u16) = (low.max(theirs.0), high.min(theirs.1));
    if common.0 > common.1 {
        writeln!(out, "{WORD} speaks {low} to {high}")?;
        out.flush()?;
        let there = format!("{} to {}", theirs.0, theirs.1);
        return Err(WireError::Version { here: format!("{low} to {high}"), there });
    }
    writeln!(out, "{WORD} {}", common.1)?;
    out.flush()?;
    Ok((common.1, patience))
}

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
