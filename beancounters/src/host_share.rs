//! The host's share of CPU time against that of all VEs together.
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::hierarchy::{Controller, Hierarchies};
use crate::knob;
use crate::ve_cgroup::parent_in;

/// Gives the parent of all VEs the weight that leaves the host its units: with 1000 the parent counts as much as one
/// cgroup or slice of the host beside it with the kernel's default weight, with 2000 half as much.
///
/// # Errors
/// [`Error::File`]. A host without the controller has no shares.
pub fn share_with_host(hierarchies: &Hierarchies, units: u32) -> Result<()> {
    let v1 = hierarchies.v1_with(Controller::Cpu);
    let (mount, file, value) = match (v1, hierarchies.v2()) {
        (Some(mount), _) => (mount, "cpu.shares", shares(units)),
        (None, Some(mount)) => (mount, "cpu.weight", weight(units)),
        (None, None) => return Ok(()),
    };
    let path = parent_in(mount).join(file);
    if knob::number(&path) == Some(value) {
        return Ok(());
    }
    match knob::write(&path, &value.to_string()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::file("write", path, errno)),
    }
}

fn weight(units: u32) -> u64 {
    (100_000 / u64::from(units.max(1))).clamp(1, 10_000)
}

fn shares(units: u32) -> u64 {
    (1_024_000 / u64::from(units.max(1))).clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_units_of_the_host_are_less_weight_of_the_ves() {
        for (units, v2, v1) in [(1000, 100, 1024), (2000, 50, 512), (8, 10_000, 128_000), (500_000, 1, 2)] {
            assert_eq!((weight(units), shares(units)), (v2, v1), "{units}");
        }
    }
}
