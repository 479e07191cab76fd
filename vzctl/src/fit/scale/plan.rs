//! What becomes of a configuration.

use vzconf::params::{Kind, Origin, by_key};
use vzconf::units::UNLIMITED;
use vzconf::{ConfFile, Config, Error as ConfError, Pair};

use super::super::Error;
use super::super::limits::{Limits, of_key};
use super::factor::Factor;

/// Numbers about CPU time.
const CPU: [&str; 4] = ["CPUUNITS", "CPUWEIGHT", "CPULIMIT", "CPUBURST"];
/// Bandwidth: `DEVICE:CLASS:RATE`, several with blanks between them.
const RATE: &str = "RATE";
/// What belongs to one VE and would be wrong for any other.
const OWN: [&str; 17] = [
    "HOSTNAME",
    "NAMESERVER",
    "SEARCHDOMAIN",
    "IP_ADDRESS",
    "NETIF",
    "NETDEV",
    "VE_ROOT",
    "VE_PRIVATE",
    "TEMPLATES",
    "TEMPLATESET",
    "NAME",
    "DESCRIPTION",
    "VEID",
    "UUID",
    "LOCAL_UID",
    "LOCAL_GID",
    "ORIGIN_SAMPLE",
];

/// What is scaled, and by how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Factors {
    pub(super) ubc: Option<Factor>,
    pub(super) cpu: Option<Factor>,
    pub(super) disk: Option<Factor>,
    pub(super) net: Option<Factor>,
}

/// A configuration that has been scaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) file: ConfFile,
    /// What of it `vzctl set` can apply: options and values.
    pub(super) options: Vec<(&'static str, String)>,
    /// What could not be scaled.
    pub(super) doubts: Vec<String>,
}

/// Scales a configuration. `config` is the view of the file by itself.
///
/// # Errors
/// A value that is none.
pub(super) fn scale(config: &Config, factors: &Factors) -> Result<Scaled, Error> {
    let mut scaled =
        Scaled { file: config.file().cloned().unwrap_or_default(), options: Vec::new(), doubts: Vec::new() };
    check(&scaled.file)?;
    scaled.limits(&Limits::of(config), factors)?;
    if let Some(factor) = factors.cpu {
        scaled.cpu(config, factor)?;
    }
    if let Some(factor) = factors.net {
        scaled.net(factor)?;
    }
    Ok(scaled)
}

/// Takes out what belongs to one VE.
pub(super) fn strip(file: &mut ConfFile) {
    for key in OWN {
        file.remove(key);
    }
}

/// What is not understood would be left as it is, among what has changed.
fn check(file: &ConfFile) -> Result<(), Error> {
    for (key, value) in file.entries().filter(|(_, value)| !value.is_empty()) {
        let Some(param) = by_key(key).filter(|_| of_key(key).is_some() || CPU.contains(&key)) else {
            continue;
        };
        if let Err(allowed) = param.kind.canonical(value, Origin::File) {
            let (option, value) = (param.option.to_owned(), value.to_owned());
            return Err(ConfError::BadValue { option, value, allowed }.into());
        }
    }
    Ok(())
}

impl Scaled {
    fn limits(&mut self, before: &Limits, factors: &Factors) -> Result<(), Error> {
        let mut after = before.clone();
        for (name, pair) in before.iter() {
            let disk = name.starts_with("disk");
            let Some(factor) = (if disk { factors.disk } else { factors.ubc }) else { continue };
            let mut to = factor.of_pair(pair);
            if disk {
                // There is no unlimited disk.
                to = Pair { barrier: to.barrier.min(UNLIMITED - 1), limit: to.limit.min(UNLIMITED - 1) };
            }
            if to != pair {
                after.set(name, to);
                self.options.push((name, format!("{}:{}", amount(to.barrier), amount(to.limit))));
            }
        }
        Ok(after.write(before, &mut self.file)?)
    }

    fn cpu(&mut self, config: &Config, factor: Factor) -> Result<(), Error> {
        for key in CPU {
            let Some(param) = by_key(key) else { continue };
            let Some(value) = config.get(key).and_then(|value| value.parse::<u64>().ok()) else { continue };
            let (least, most) = match param.kind {
                Kind::Uint { min, max } => (min, max),
                // As much as `vzctl set` takes.
                _ => (0, 6_553_600),
            };
            // 0 is "none", and stays that.
            let to = if value == 0 { 0 } else { factor.of(value).clamp(least, most) };
            if to != value {
                self.file.set(key, &to.to_string())?;
                self.options.push((param.option, to.to_string()));
            }
        }
        Ok(())
    }

    fn net(&mut self, factor: Factor) -> Result<(), Error> {
        let Some(rates) = self.file.get(RATE).map(str::to_owned) else { return Ok(()) };
        let scaled: Vec<String> = rates
            .split_whitespace()
            .map(|rate| match rated(rate) {
                Some((before, value)) => format!("{before}:{}", factor.of(value)),
                None => {
                    self.doubts.push(format!("{RATE}: {rate} is not DEVICE:CLASS:RATE, left as it is"));
                    rate.to_owned()
                }
            })
            .collect();
        Ok(self.file.set(RATE, &scaled.join(" "))?)
    }
}

fn rated(rate: &str) -> Option<(&str, u64)> {
    let (before, value) = rate.rsplit_once(':')?;
    (before.split(':').count() == 2).then(|| value.parse().ok().map(|value| (before, value)))?
}

fn amount(value: u64) -> String {
    vzconf::units::format_amount(value)
}
