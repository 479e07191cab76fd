//! The CPUs that a VE sees.
use std::path::Path;

use vzconf::Mask;

use crate::hierarchy::Controller;
use crate::knob::Length;
use crate::ve_cgroup::VeCgroup;

/// CPUs of the host, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpus(Vec<u32>);

impl Cpus {
    /// Of those that the VE may run on, as many as its cap is worth, a part of one counted as one. Empty when nothing
    /// is known.
    #[must_use]
    pub fn of(ve: &VeCgroup) -> Cpus {
        let mask = ve
            .file(Controller::Cpuset, "cpuset.effective_cpus", "cpuset.cpus.effective")
            .and_then(|file| ve.read(&file, Length::Short).ok())
            .filter(|text| !text.is_empty())
            .or_else(|| ve.read(Path::new("/sys/devices/system/cpu/online"), Length::Short).ok());
        let mask: Option<Mask> = mask.and_then(|text| text.parse().ok());
        let mut cpus: Vec<u32> = mask.iter().flat_map(Mask::iter).collect();
        if let Some(worth) = quota(ve).and_then(worth) {
            cpus.truncate(usize::try_from(worth).unwrap_or(usize::MAX).max(1));
        }
        Cpus(cpus)
    }

    /// How many CPUs' time the VE may use in all; `None` without a limit.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // microseconds of one period
    pub fn cap(ve: &VeCgroup) -> Option<f64> {
        let (quota, period) = quota(ve)?;
        (period > 0).then(|| quota as f64 / period as f64)
    }

    /// Their numbers, ascending.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }
}

/// The cap: so much time in each period.
fn quota(ve: &VeCgroup) -> Option<(u64, u64)> {
    if let Some(dir) = ve.v1_dir(Controller::Cpu) {
        // No limit is -1 here, which is no number of ours.
        let quota = ve.number(&dir.join("cpu.cfs_quota_us"))?;
        return Some((quota, ve.number(&dir.join("cpu.cfs_period_us"))?));
    }
    let text = ve.read(&ve.v2_dir()?.join("cpu.max"), Length::Short).ok()?;
    let (quota, period) = text.split_once(' ')?;
    Some((quota.parse().ok()?, period.parse().ok()?))
}

/// In whole CPUs, rounded up.
fn worth((quota, period): (u64, u64)) -> Option<u64> {
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_cpu_is_one() {
        assert_eq!(worth((25_000, 100_000)), Some(1));
        assert_eq!(worth((150_000, 100_000)), Some(2));
        assert_eq!(worth((200_000, 100_000)), Some(2));
        assert_eq!(worth((1, 0)), None);
    }
}
