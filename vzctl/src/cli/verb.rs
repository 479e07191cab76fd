//! A verb as the rest of the program sees it: typed, with everything the command line said.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use ve::snapshot::Id;
use vzconf::Exit;
use vzconf::params::{Kind, Param};

use super::snapshots::{ListOptions, SwitchOptions, TakeOptions};

/// A parameter of `set` or `create`, its value checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Which parameter.
    pub param: &'static Param,
    /// Its value as the configuration stores it ([`vzconf::params::Kind::canonical`]; a CPU limit may still end in
    /// `%`). Empty for a flag.
    pub value: String,
    /// Its value as given.
    pub given: String,
}

impl Setting {
    /// The option's canonical long name, without dashes, such as `ipadd`.
    pub fn option(&self) -> &'static str {
        self.param.option
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password must not end up in a log through {:?}.
        let value = if self.param.kind == Kind::Password { "***" } else { &self.given };
        write!(f, "--{}={value:?}", self.option())
    }
}

/// What `create` was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// `--config`: the name of a sample.
    pub sample: Option<String>,
    /// `--layout`, with its mode if it has one (`ploop:raw`).
    pub layout: Option<String>,
    /// `--ostemplate`.
    pub ostemplate: Option<String>,
    /// `--from`: another container, and perhaps a snapshot of it.
    pub from: Option<String>,
    /// `--keep-identity`.
    pub keep_identity: bool,
    /// Every other option, in the order given; among them `local_uid` and `local_gid`.
    pub settings: Vec<Setting>,
}

/// Options of `start`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// Even if it is disabled.
    pub force: bool,
    /// Return when it has booted.
    pub wait: bool,
    /// No file system check.
    pub skip_fsck: bool,
    /// Keep the mount that is there.
    pub skip_remount: bool,
    /// No set-up of limits and network; for restore.
    pub skip_setup: bool,
}

/// Options of `stop`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Kill at once.
    pub fast: bool,
    /// Leave the root mounted.
    pub skip_umount: bool,
}

/// `--setmode`: what to do with a parameter that needs a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Restart the container.
    Restart,
    /// Say nothing and do nothing about it.
    Ignore,
}

/// What `set` was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// The parameters, in the order given.
    pub settings: Vec<Setting>,
    /// Write them to the configuration.
    pub save: bool,
    /// Save even what this kernel cannot apply.
    pub force: bool,
    /// `--setmode`.
    pub mode: Option<SetMode>,
    /// Apply the configuration's beancounters again; then there are no settings.
    pub reset_ub: bool,
}

/// What to do with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Make it.
    Create(CreateOptions),
    /// Remove it.
    Destroy,
    /// Mount its root.
    Mount,
    /// Unmount its root.
    Umount,
    /// Start it.
    Start(StartOptions),
    /// Stop it.
    Stop(StopOptions),
    /// Stop it if it runs, and start it.
    Restart(StopOptions, StartOptions),
    /// Print its state.
    Status {
        /// As a JSON object.
        json: bool,
    },
    /// Open a shell in it.
    Enter {
        /// Words to type into the shell.
        exec: Option<Vec<OsString>>,
    },
    /// Run a command through its shell, any failure is exit 8.
    Exec {
        /// The words; never empty.
        argv: Vec<OsString>,
    },
    /// Run a command through its shell and pass its code on.
    Exec2 {
        /// The words; never empty.
        argv: Vec<OsString>,
    },
    /// Run a command without a shell and pass its code on.
    Exec3 {
        /// The words; never empty.
        argv: Vec<OsString>,
    },
    /// Run a script of the host in it.
    Runscript {
        /// The script, on the host.
        file: PathBuf,
    },
    /// Attach to its console.
    Console {
        /// The terminal's number, from 0.
        tty: u32,
    },
    /// Change parameters.
    Set(SetOptions),
    /// Keep what it is now.
    Snapshot(TakeOptions),
    /// Make it what it was.
    SnapshotSwitch(Id, SwitchOptions),
    /// Delete a snapshot.
    SnapshotDelete(Id),
    /// Mount a snapshot.
    SnapshotMount(Id, PathBuf),
    /// Unmount it.
    SnapshotUmount(Id),
    /// List the snapshots.
    SnapshotList(ListOptions),
    /// Have its disk limits hold.
    Quotaon,
    /// Lift them.
    Quotaoff,
    /// Count its files anew.
    Quotainit,
    /// Save its processes and end them, or a part of that.
    Suspend {
        /// Which.
        part: ve::suspend::Part,
        /// Where to; `None` is the usual place.
        dumpfile: Option<PathBuf>,
    },
    /// Bring it back, or a part of that.
    Resume {
        /// Which.
        part: ve::suspend::RestorePart,
        /// Where from; `None` is the usual place.
        dumpfile: Option<PathBuf>,
    },
    /// Say what keeps it from being saved.
    CheckpointCheck {
        /// As a JSON object.
        json: bool,
    },
    /// Give it another layout.
    Convert {
        /// `--layout`.
        layout: String,
    },
    /// Give free blocks of its image back.
    Compact,
}

impl Verb {
    /// The verb's canonical word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Destroy => "destroy",
            Self::Mount => "mount",
            Self::Umount => "umount",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(..) => "restart",
            Self::Status { .. } => "status",
            Self::Enter { .. } => "enter",
            Self::Exec { .. } => "exec",
            Self::Exec2 { .. } => "exec2",
            Self::Exec3 { .. } => "exec3",
            Self::Runscript { .. } => "runscript",
            Self::Console { .. } => "console",
            Self::Set(_) => "set",
            Self::Snapshot(_) => "snapshot",
            Self::SnapshotSwitch(..) => "snapshot-switch",
            Self::SnapshotDelete(_) => "snapshot-delete",
            Self::SnapshotMount(..) => "snapshot-mount",
            Self::SnapshotUmount(_) => "snapshot-umount",
            Self::SnapshotList(_) => "snapshot-list",
            Self::Quotaon => "quotaon",
            Self::Quotaoff => "quotaoff",
            Self::Quotainit => "quotainit",
            Self::Suspend { .. } => "suspend",
            Self::Resume { .. } => "resume",
            Self::CheckpointCheck { .. } => "checkpoint-check",
            Self::Convert { .. } => "convert",
            Self::Compact => "compact",
        }
    }

    /// Whether the verb takes the container's lock.
    pub fn locks(&self) -> bool {
        !matches!(
            self,
            Self::Exec { .. }
                | Self::Exec2 { .. }
                | Self::Exec3 { .. }
                | Self::Enter { .. }
                | Self::Console { .. }
                | Self::Status { .. }
                | Self::SnapshotList(_)
                | Self::CheckpointCheck { .. }
        )
    }

    /// Whether the console shows nothing but errors, so that nothing can spoil what clients parse.
    pub fn errors_only(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::SnapshotList(_) | Self::CheckpointCheck { .. })
    }

    /// Whether a container without a configuration file is accepted.
    pub fn works_without_config(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Status { .. } | Self::Set(_))
    }

    /// The exit code of the program when the verb ended with `code`: `exec` knows only 0 and 8.
    pub fn exit_code(&self, code: u8) -> u8 {
        match self {
            Self::Exec { .. } if code != 0 => Exit::CommandExecution.code(),
            _ => code,
        }
    }

    /// The same when it ended with an error. What is found out before the verb begins (who may run it, vz.conf,
    /// which container) has the same code for every verb.
    pub fn failure_code(&self, exit: Exit) -> u8 {
        match exit {
            Exit::NoConfig | Exit::NoAccess | Exit::NoVeConfig | Exit::InvalidValue => exit.code(),
            _ => self.exit_code(exit.code()),
        }
    }
}
