//! Which devices a VE may open.
use rustix::fs::{Mode, OFlags};
use vzconf::{DeviceKind, DeviceRule};
use vzsys::bpf::{self, DeviceClass, DeviceEntry};

use crate::error::{Error, Result};
use crate::hierarchy::Controller;
use crate::knob;
use crate::limits::Param;
use crate::ve_cgroup::VeCgroup;

const READ: u8 = bpf::READ;
const WRITE: u8 = bpf::WRITE;
const MKNOD: u8 = bpf::MKNOD;

/// Open to every VE: null zero full random urandom, tty console ptmx, pts.
const USUAL: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The devices a VE may open; all others are refused. Making nodes is allowed by this list, and
/// refused by the VE's user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePolicy {
    entries: Vec<DeviceEntry>,
}

impl Default for DevicePolicy {
    /// What every VE has.
    fn default() -> DevicePolicy {
        let any = |class| DeviceEntry { class, major: None, minor: None, access: MKNOD };
        let mut entries = vec![any(DeviceClass::Char), any(DeviceClass::Block)];
        entries.extend(USUAL.map(|(major, minor)| DeviceEntry {
            class: DeviceClass::Char,
            major: Some(major),
            minor,
            access: READ | WRITE | MKNOD,
        }));
        DevicePolicy { entries }
    }
}

impl DevicePolicy {
    /// Adds `/dev/fuse`.
    #[must_use]
    pub fn with_fuse(self) -> DevicePolicy {
        self.with_char(10, 229)
    }

    /// Adds `/dev/net/tun`.
    #[must_use]
    pub fn with_tun(self) -> DevicePolicy {
        self.with_char(10, 200)
    }

    fn with_char(mut self, major: u32, minor: u32) -> DevicePolicy {
        let (major, minor) = (Some(major), Some(minor));
        self.entries.push(DeviceEntry {
            class: DeviceClass::Char,
            major,
            minor,
            access: READ | WRITE | MKNOD,
        });
        self
    }

    /// Adds an entry of DEVICES; one without access adds nothing.
    #[must_use]
    pub fn with_rule(mut self, rule: &DeviceRule) -> DevicePolicy {
        let access = if rule.access.read { READ } else { 0 } | if rule.access.write { WRITE } else { 0 };
        if access != 0 {
            let class = match rule.kind {
                DeviceKind::Block => DeviceClass::Block,
                DeviceKind::Char => DeviceClass::Char,
            };
            self.entries.push(DeviceEntry {
                class,
                major: Some(rule.major),
                minor: rule.minor,
                access: access | MKNOD,
            });
        }
        self
    }

    /// Puts the policy into force, in place of an earlier one. Devices that are open already stay so.
    ///
    /// # Errors
    /// [`Error::Refused`] (v1), [`Error::DeviceFilter`] (v2), [`Error::NoHierarchy`]; a VE must not
    /// run without it.
    pub fn apply(&self, ve: &VeCgroup) -> Result<()> {
        match ve.v1_dir(Controller::Devices) {
            Some(dir) => self.plan_v1().into_iter().try_for_each(|(file, value)| {
                let path = dir.join(file);
                knob::write(&path, &value).map_err(|errno| Error::Refused {
                    param: Param::Devices,
                    path,
                    value,
                    source: errno.into(),
                })
            }),
            None => self.apply_v2(ve),
        }
    }

    pub(crate) fn apply_v2(&self, ve: &VeCgroup) -> Result<()> {
        let dir = ve.v2_dir().ok_or(Error::NoHierarchy)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd =
            rustix::fs::open(&dir, flags, Mode::empty()).map_err(|errno| Error::file("open", dir, errno))?;
        bpf::restrict_devices(&fd, &self.entries)
            .map_err(|source| Error::DeviceFilter { ctid: ve.ctid(), source })
    }

    fn plan_v1(&self) -> Vec<(&'static str, String)> {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let allow = self.entries.iter().map(|entry| {
            let class = if entry.class == DeviceClass::Block { 'b' } else { 'c' };
            let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
            let access: String =
                letters.iter().filter(|(bit, _)| entry.access & bit != 0).map(|(_, letter)| letter).collect();
            ("devices.allow", format!("{class} {}:{} {access}", number(entry.major), number(entry.minor)))
        });
        std::iter::once(("devices.deny", "a".to_owned())).chain(allow).collect()
    }
}

#[cfg(test)]
mod tests {
    use vzconf::Ctid;

    use super::*;
    use crate::hierarchy::Hierarchies;

    #[test]
    fn v2_filter_refuses_gives_and_is_replaced() {
        let hierarchies = Hierarchies::detect().unwrap();
        let ctid = Ctid::new(2_102_000_000 + std::process::id() % 1_000_000).unwrap();
        let ve = VeCgroup::create(&hierarchies, ctid, None).unwrap();
        let Some(dir) = ve.v2_dir() else { return };
        // Hybrid hosts too have this filter: only v2 is joined. /dev/kmsg is 1:11, which no VE has.
        let script = format!(
            "echo 0 > '{}/cgroup.procs'; : < /dev/null && echo 1; (: < /dev/kmsg) 2>/dev/null && echo open || echo refused",
            dir.display()
        );
        let ask = |policy: &DevicePolicy| {
            policy.apply_v2(&ve).unwrap();
            let output = std::process::Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(ask(&DevicePolicy::default()), "1\nrefused\n");
        assert_eq!(ask(&DevicePolicy::default().with_rule(&"c:1:all:r".parse().unwrap())), "1\nopen\n");
        assert_eq!(ask(&DevicePolicy::default().with_fuse()), "1\nrefused\n");
    }

    #[test]
    fn v1_lines() {
        let policy = DevicePolicy::default()
            .with_tun()
            .with_rule(&"b:8:all:r".parse().unwrap())
            .with_rule(&"c:4:1:none".parse().unwrap())
            .with_rule(&"c:10:57:rwq".parse().unwrap());
        let lines: Vec<String> =
            policy.plan_v1().into_iter().map(|(file, value)| format!("{file} {value}")).collect();
        assert_eq!(
            lines[..4],
            ["devices.deny a", "devices.allow c *:* m", "devices.allow b *:* m", "devices.allow c 1:3 rwm"]
        );
        let last = &lines[lines.len() - 4..];
        let want =
            ["c 136:* rwm", "c 10:200 rwm", "b 8:* rm", "c 10:57 rwm"].map(|l| format!("devices.allow {l}"));
        assert_eq!(last, want);
    }
}
