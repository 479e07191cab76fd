//! Which cgroup hierarchies this host has, and where.
//!
//! ```text
//! unified   one v2 tree has every controller                 (today's hosts)
//! hybrid    v1 trees have the controllers, v2 is there too   (v2 still kills, freezes, tells of emptiness)
//! legacy    v1 trees only
//! ```
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mountinfo::{self, CgroupMount};

/// A resource controller that VEs need; the v2 name of `blkio` is `io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // they are the kernel's own names
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    Io,
    Pids,
}

impl Controller {
    /// Those that v2 has to enable for its children.
    pub(crate) const V2: [(Controller, &'static str); 5] = [
        (Controller::Cpu, "cpu"),
        (Controller::Cpuset, "cpuset"),
        (Controller::Io, "io"),
        (Controller::Memory, "memory"),
        (Controller::Pids, "pids"),
    ];

    fn from_v1(name: &str) -> Option<Controller> {
        Some(match name {
            "cpu" => Controller::Cpu,
            "cpuacct" => Controller::Cpuacct,
            "cpuset" => Controller::Cpuset,
            "memory" => Controller::Memory,
            "devices" => Controller::Devices,
            "freezer" => Controller::Freezer,
            "blkio" => Controller::Io,
            "pids" => Controller::Pids,
            _ => return None,
        })
    }
}

/// The interface of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// One tree per set of controllers.
    V1,
    /// The unified tree.
    V2,
}

/// How a host mounts its cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// v2 only.
    Unified,
    /// Both.
    Hybrid,
    /// v1 only.
    Legacy,
}

/// A v1 hierarchy that VEs are placed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1 {
    pub(crate) mount: PathBuf,
    pub(crate) controllers: Vec<Controller>,
    /// `name=systemd`: without controllers, for the guest's own use.
    pub(crate) systemd: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    v1: Vec<V1>,
    v2: Option<PathBuf>,
    /// What a VE may own, as listed by the kernel.
    delegate: PathBuf,
}

/// The hierarchies of this host; cheap to clone. Ask once, pass it along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies(Arc<Found>);

impl Hierarchies {
    /// Finds the hierarchies of this host. Reads `/proc/self/mountinfo` only as far as needed: a host
    /// with many VEs has thousands of lines there, and cgroups come early.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`]; [`Error::File`] when `/proc` cannot be read.
    pub fn detect() -> Result<Hierarchies> {
        let membership = Path::new("/proc/self/cgroup");
        let expected = std::fs::read_to_string(membership)
            .map_err(|e| Error::file("read", membership, e))?
            .lines()
            .filter(|line| wanted_membership(line))
            .count();
        let path = Path::new("/proc/self/mountinfo");
        let failed = |e| Error::file("read", path, e);
        let mut file = File::open(path).map_err(failed)?;
        let mut mounts = Mounts::default();
        let mut text = Vec::with_capacity(16384);
        let mut buffer = [0; 8192];
        while mounts.complete < expected {
            let n = file.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..n]);
            let end = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            String::from_utf8_lossy(&text[..end]).lines().for_each(|line| mounts.add(line));
            text.drain(..end);
        }
        mounts.into_hierarchies(Path::new("/")).ok_or(Error::NoHierarchy)
    }

    /// The hierarchies in the text of a mountinfo file, with every path taken below `root`.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`].
    pub fn parse(mountinfo: &str, root: &Path) -> Result<Hierarchies> {
        let mut mounts = Mounts::default();
        mountinfo.lines().for_each(|line| mounts.add(line));
        mounts.into_hierarchies(root).ok_or(Error::NoHierarchy)
    }

    /// Unified, hybrid or legacy.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match (self.0.v1.is_empty(), &self.0.v2) {
            (true, _) => Layout::Unified,
            (false, Some(_)) => Layout::Hybrid,
            (false, None) => Layout::Legacy,
        }
    }

    /// Whether old systemd guests find their v1 `name=systemd` hierarchy here.
    #[must_use]
    pub fn has_named_systemd(&self) -> bool {
        self.0.v1.iter().any(|h| h.systemd)
    }

    pub(crate) fn v1(&self) -> &[V1] {
        &self.0.v1
    }

    /// Where v2 is mounted; `None` on legacy hosts.
    #[must_use]
    pub fn v2(&self) -> Option<&Path> {
        self.0.v2.as_deref()
    }

    /// The v1 mount that has the controller.
    pub(crate) fn v1_with(&self, controller: Controller) -> Option<&Path> {
        let found = self.0.v1.iter().find(|h| h.controllers.contains(&controller));
        found.map(|h| h.mount.as_path())
    }

    /// Which interface the controller has here. v2 is assumed to have all that v1 does not: whether it
    /// really does shows when its files are opened.
    pub(crate) fn generation(&self, controller: Controller) -> Option<Generation> {
        match (self.v1_with(controller), self.v2()) {
            (Some(_), _) => Some(Generation::V1),
            (None, Some(_)) => Some(Generation::V2),
            (None, None) => None,
        }
    }

    /// Whether some tree has the controller: v1 by its mount, v2 by what its root says.
    pub(crate) fn offers(&self, controller: Controller) -> bool {
        if self.v1_with(controller).is_some() {
            return true;
        }
        let listed = |root: &Path| crate::knob::read(&root.join("cgroup.controllers")).unwrap_or_default();
        let name = Controller::V2.iter().find(|(of, _)| *of == controller).map(|(_, name)| *name);
        self.v2().zip(name).is_some_and(|(root, name)| listed(root).split(' ').any(|n| n == name))
    }

    pub(crate) fn delegate_list(&self) -> &Path {
        &self.0.delegate
    }

    /// Every mount point, v2 first: it answers most questions.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.v2().into_iter().chain(self.0.v1.iter().map(|h| h.mount.as_path()))
    }
}

/// Whether a line of `/proc/self/cgroup` is about a hierarchy that VEs are placed in.
fn wanted_membership(line: &str) -> bool {
    let mut fields = line.splitn(3, ':');
    let (id, names) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
    id == "0" || names.split(',').any(|name| name == "name=systemd" || Controller::from_v1(name).is_some())
}

#[derive(Default)]
struct Mounts {
    found: Vec<CgroupMount>,
    /// How many hierarchies were found with their root visible.
    complete: usize,
}

impl Mounts {
    fn add(&mut self, line: &str) {
        let Some(mount) = mountinfo::parse_line(line) else { return };
        let wanted = |names: &Vec<String>| {
            names.iter().any(|n| n == "name=systemd" || Controller::from_v1(n).is_some())
        };
        if !mount.v1.as_ref().is_none_or(wanted) {
            return;
        }
        match self.found.iter_mut().find(|other| other.v1 == mount.v1) {
            // A bind mount of a part of the tree is worse than the tree.
            Some(other) if mount.whole && !other.whole => {
                *other = mount;
                self.complete += 1;
            }
            Some(_) => {}
            None => {
                self.complete += usize::from(mount.whole);
                self.found.push(mount);
            }
        }
    }

    fn into_hierarchies(self, root: &Path) -> Option<Hierarchies> {
        let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let mut found =
            Found { delegate: below(Path::new("/sys/kernel/cgroup/delegate")), ..Found::default() };
        for mount in self.found {
            let point = below(&mount.point);
            match mount.v1 {
                None => found.v2 = Some(point),
                Some(names) => found.v1.push(V1 {
                    mount: point,
                    controllers: names.iter().filter_map(|n| Controller::from_v1(n)).collect(),
                    systemd: names.iter().any(|n| n == "name=systemd"),
                }),
            }
        }
        let any = found.v2.is_some() || !found.v1.is_empty();
        any.then(|| Hierarchies(Arc::new(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 30 0:22 / /sys rw shared:7 - sysfs sysfs rw
29 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
90 27 0:29 /docker/ab /run/part rw - cgroup cgroup rw,cpu,cpuacct
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
34 31 0:31 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn unified_host() {
        let h = Hierarchies::parse(UNIFIED, Path::new("/")).unwrap();
        assert_eq!(h.layout(), Layout::Unified);
        assert_eq!(h.v2(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(h.generation(Controller::Memory), Some(Generation::V2));
        assert!(!h.has_named_systemd());
        assert_eq!(h.mounts().count(), 1);
    }

    #[test]
    fn hybrid_host_with_comounted_controllers() {
        let h = Hierarchies::parse(HYBRID, Path::new("/t")).unwrap();
        assert_eq!(h.layout(), Layout::Hybrid);
        assert_eq!(h.v2(), Some(Path::new("/t/sys/fs/cgroup/unified")));
        assert_eq!(h.v1_with(Controller::Cpu), Some(Path::new("/t/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(h.v1_with(Controller::Cpuacct), h.v1_with(Controller::Cpu));
        assert_eq!(h.v1_with(Controller::Io), Some(Path::new("/t/sys/fs/cgroup/blkio")));
        assert_eq!(h.generation(Controller::Memory), Some(Generation::V2));
        assert!(h.has_named_systemd());
        assert_eq!(h.mounts().count(), 4, "net_cls is not for us");
    }

    #[test]
    fn legacy_host_and_none() {
        let text: String =
            HYBRID.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        let h = Hierarchies::parse(&text, Path::new("/")).unwrap();
        assert_eq!(h.layout(), Layout::Legacy);
        assert_eq!(h.generation(Controller::Pids), None);
        assert!(matches!(Hierarchies::parse("", Path::new("/")), Err(Error::NoHierarchy)));
    }

    #[test]
    fn membership_lines() {
        for (line, want) in [
            ("0::/", true),
            ("3:cpu,cpuacct:/a:b", true),
            ("1:name=systemd:/", true),
            ("7:net_cls:/", false),
            ("", false),
        ] {
            assert_eq!(wanted_membership(line), want, "{line}");
        }
    }

    #[test]
    fn this_host_is_found_the_same_way_by_both_readers() {
        let whole = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(Hierarchies::detect().unwrap(), Hierarchies::parse(&whole, Path::new("/")).unwrap());
    }
}
