//! Where everything lies.
use std::path::{Path, PathBuf};

use crate::Ctid;

/// The events action scripts are run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Before the root is mounted.
    Premount,
    /// After the root was mounted.
    Mount,
    /// In the VE, before its init runs.
    Start,
    /// In the VE, before it is stopped.
    Stop,
    /// Before the root is unmounted.
    Umount,
    /// After the root was unmounted.
    Postumount,
    /// At the end of create (global only).
    Create,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 7] = [
        Action::Premount,
        Action::Mount,
        Action::Start,
        Action::Stop,
        Action::Umount,
        Action::Postumount,
        Action::Create,
    ];

    /// The suffix of the script's file name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Action::Premount => "premount",
            Action::Mount => "mount",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Umount => "umount",
            Action::Postumount => "postumount",
            Action::Create => "create",
        }
    }
}

/// One action script: `vps.<action>` or `<CTID>.<action>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Script {
    /// Run for every VE.
    Global(Action),
    /// Run for one VE.
    Ve(Ctid, Action),
}

/// Base directories and what lies in them. Real runs use [`Paths::host`]; tests point it at a directory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `/etc/vz`
    pub etc: PathBuf,
    /// `/vz`
    pub vz: PathBuf,
    /// `/run/vz`
    pub run: PathBuf,
    /// `/var/lib/vzctl`
    pub state: PathBuf,
    /// `/var/log`
    pub log: PathBuf,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths::host()
    }
}

impl Paths {
    /// The paths of this host.
    #[must_use]
    pub fn host() -> Paths {
        Paths::under(Path::new("/"))
    }

    /// The same tree below another root.
    #[must_use]
    pub fn under(root: &Path) -> Paths {
        Paths {
            etc: root.join("etc/vz"),
            vz: root.join("vz"),
            run: root.join("run/vz"),
            state: root.join("var/lib/vzctl"),
            log: root.join("var/log"),
        }
    }

    /// `/etc/vz`
    #[must_use]
    pub fn etc(&self) -> &Path {
        &self.etc
    }

    /// `/vz`, the default home of everything big.
    #[must_use]
    pub fn vz(&self) -> &Path {
        &self.vz
    }

    /// `/etc/vz/vz.conf`
    #[must_use]
    pub fn vz_conf(&self) -> PathBuf {
        self.etc.join("vz.conf")
    }

    /// `/etc/vz/conf`
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.etc.join("conf")
    }

    /// `/etc/vz/conf/<CTID>.conf`
    #[must_use]
    pub fn ve_conf(&self, ctid: Ctid) -> PathBuf {
        self.conf_dir().join(format!("{ctid}.conf"))
    }

    /// `/etc/vz/names`
    #[must_use]
    pub fn names_dir(&self) -> PathBuf {
        self.etc.join("names")
    }

    /// `/etc/vz/names/<name>`; the name is one that [`crate::names::check`] accepts.
    #[must_use]
    pub fn name_link(&self, name: &str) -> PathBuf {
        self.names_dir().join(name)
    }

    /// `/etc/vz/conf/ve-<name>.conf-sample`
    #[must_use]
    pub fn sample(&self, name: &str) -> PathBuf {
        self.conf_dir().join(format!("ve-{name}.conf-sample"))
    }

    /// `/etc/vz/dists`
    #[must_use]
    pub fn dists_dir(&self) -> PathBuf {
        self.etc.join("dists")
    }

    /// `/etc/vz/conf/vps.<action>` or `/etc/vz/conf/<CTID>.<action>`
    #[must_use]
    pub fn action_script(&self, script: Script) -> PathBuf {
        self.conf_dir().join(match script {
            Script::Global(action) => format!("vps.{}", action.suffix()),
            Script::Ve(ctid, action) => format!("{ctid}.{}", action.suffix()),
        })
    }

    /// `/run/vz`
    #[must_use]
    pub fn run_root(&self) -> &Path {
        &self.run
    }

    /// `/run/vz/<CTID>`, the runtime state of a running VE.
    #[must_use]
    pub fn run_dir(&self, ctid: Ctid) -> PathBuf {
        self.run.join(ctid.to_string())
    }

    /// `/var/lib/vzctl`
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// `/var/lib/vzctl/idmap`, which VE owns which id range.
    #[must_use]
    pub fn idmap_dir(&self) -> PathBuf {
        self.state.join("idmap")
    }

    /// `/var/log/vzctl.log`, where LOGFILE points unless set.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.log.join("vzctl.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_the_documented_ones() {
        let p = Paths::host();
        let ve = Ctid::new(101).unwrap();
        for (got, want) in [
            (p.vz_conf(), "/etc/vz/vz.conf"),
            (p.ve_conf(ve), "/etc/vz/conf/101.conf"),
            (p.name_link("web"), "/etc/vz/names/web"),
            (p.sample("basic"), "/etc/vz/conf/ve-basic.conf-sample"),
            (p.dists_dir(), "/etc/vz/dists"),
            (p.action_script(Script::Global(Action::Premount)), "/etc/vz/conf/vps.premount"),
            (p.action_script(Script::Ve(ve, Action::Stop)), "/etc/vz/conf/101.stop"),
            (p.run_dir(ve), "/run/vz/101"),
            (p.idmap_dir(), "/var/lib/vzctl/idmap"),
            (p.log_file(), "/var/log/vzctl.log"),
        ] {
            assert_eq!(got, Path::new(want));
        }
    }
}
