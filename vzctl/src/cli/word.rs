//! The verbs as words: spelling, synopsis, help and examples. What a parsed verb is lives in `verb`.

use super::option::{self, LISTING, ONE, Opt, RESUME, SHOW, START, STATUS, STOP, SUSPEND, SWITCH, TAKE};

/// Which verb a word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Destroy,
    Mount,
    Umount,
    Start,
    Stop,
    Restart,
    Status,
    Enter,
    Exec,
    Exec2,
    Exec3,
    Runscript,
    Console,
    Set,
    Snapshot,
    SnapshotSwitch,
    SnapshotDelete,
    SnapshotMount,
    SnapshotUmount,
    SnapshotList,
    Quotaon,
    Quotaoff,
    Quotainit,
    Suspend,
    Resume,
    CheckpointCheck,
    Convert,
    Compact,
}

/// Which containers completion proposes for a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Containers {
    /// One that does not exist yet.
    New,
    /// Those that are not running.
    Stopped,
    /// Those that run.
    Running,
    /// All.
    Any,
}

/// One verb as the command line spells it.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) kind: Kind,
    /// The canonical spelling.
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// What follows the CTID, on one line.
    pub(crate) synopsis: &'static str,
    pub(crate) about: &'static str,
    pub(crate) containers: Containers,
    /// Command and what it does.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Further paragraphs of help.
    pub(crate) notes: &'static str,
}

impl Word {
    /// The verb spelt so, or under an alias.
    pub(crate) fn find(word: &str) -> Option<&'static Self> {
        WORDS.iter().find(|w| w.name == word || w.aliases.contains(&word))
    }

    /// The options it takes, hidden ones too.
    pub(crate) fn options(&self) -> Vec<Opt> {
        match self.kind {
            Kind::Start => START.to_vec(),
            Kind::Stop => STOP.to_vec(),
            Kind::Restart => [START, STOP].concat(),
            Kind::Status | Kind::CheckpointCheck => STATUS.to_vec(),
            Kind::Suspend => SUSPEND.to_vec(),
            Kind::Resume => RESUME.to_vec(),
            Kind::Set => option::set(),
            Kind::Create => option::create(),
            Kind::Snapshot => TAKE.to_vec(),
            Kind::SnapshotSwitch => SWITCH.to_vec(),
            Kind::SnapshotDelete | Kind::SnapshotUmount => ONE.to_vec(),
            Kind::SnapshotMount => SHOW.to_vec(),
            Kind::SnapshotList => LISTING.to_vec(),
            Kind::Convert => option::convert(),
            _ => Vec::new(),
        }
    }

    /// Options of the opposite verb, recognised only to be refused by name.
    pub(crate) fn foreign(&self) -> &'static [Opt] {
        match self.kind {
            Kind::Start => STOP,
            Kind::Stop => START,
            _ => &[],
        }
    }

    /// Whether everything after the CTID belongs to the verb as it stands, dashes included.
    pub(crate) fn verbatim(&self) -> bool {
        matches!(self.kind, Kind::Enter | Kind::Exec | Kind::Exec2 | Kind::Exec3)
    }
}

/// Words in place of a verb that need no container.
pub(crate) const PLAIN: &[&str] = &["help", "completion"];

/// All verbs, in the order the usage text lists them.
pub(crate) const WORDS: &[Word] = &[
    Word {
        kind: Kind::Create,
        name: "create",
        aliases: &[],
        synopsis: "[--ostemplate <name>] [--config <sample>] [--layout auto|overlay|simfs|ploop|btrfs] [options]",
        about: "Make a container: its private area from a template, and its configuration file",
        containers: Containers::New,
        examples: &[
            ("vzctl create 101 --ostemplate debian-12-x86_64-minimal", "from that template"),
            ("vzctl create 101 --ipadd 10.0.0.101 --hostname web", "with an address and a host name"),
            (
                "vzctl create 102 --from 101",
                "a clone of container 101, running or not; 101@{UUID} or 101@NAME of a snapshot",
            ),
            ("vzctl create 101 --name web --config vswap-1g", "resources of a sample; a name for the CTID"),
        ],
        notes: "Without --ostemplate, DEF_OSTEMPLATE of /etc/vz/vz.conf is used; without --config, its CONFIGFILE.\n\
                Everything else is changed with `vzctl set` afterwards. `vztmpl list` shows the templates.",
    },
    Word {
        kind: Kind::Start,
        name: "start",
        aliases: &[],
        synopsis: "[--force] [--wait] [--skip-fsck] [--skip-remount]",
        about: "Start a container, mounting it if needed",
        containers: Containers::Stopped,
        examples: &[
            ("vzctl start 101", "returns as soon as the container's init runs"),
            ("vzctl start web --wait", "returns when it has booted"),
        ],
        notes: "",
    },
    Word {
        kind: Kind::Stop,
        name: "stop",
        aliases: &[],
        synopsis: "[--fast] [--skip-umount]",
        about: "Shut a container down and unmount it",
        containers: Containers::Running,
        examples: &[
            ("vzctl stop 101", "waits for a clean shutdown, kills after STOP_TIMEOUT (120 s)"),
            ("vzctl stop 101 --fast", "kills it at once"),
        ],
        notes: "Stopping a container that does not run is not an error.",
    },
    Word {
        kind: Kind::Restart,
        name: "restart",
        aliases: &[],
        synopsis: "[--force] [--wait] [--fast] [--skip-fsck] [--skip-remount] [--skip-umount]",
        about: "Stop a container if it runs, then start it",
        containers: Containers::Any,
        examples: &[("vzctl restart 101 --wait", "returns when it has booted again")],
        notes: "",
    },
    Word {
        kind: Kind::Suspend,
        name: "suspend",
        aliases: &["chkpnt"],
        synopsis: "[--dumpfile <path>] [--suspend|--dump|--kill|--resume]",
        about: "Save a running container's processes to disk and end them",
        containers: Containers::Running,
        examples: &[
            ("vzctl suspend 101", "to be brought back by resume or start"),
            ("vzctl suspend 101 --dumpfile /vz/dump/before", "to another place"),
            ("vzctl suspend 101 --suspend", "only freezes it; --resume lets it go on"),
        ],
        notes: "What may be in the way is told by checkpoint-check. If it fails the container runs on.",
    },
    Word {
        kind: Kind::Resume,
        name: "resume",
        aliases: &["restore"],
        synopsis: "[--dumpfile <path>] [--undump|--resume|--kill]",
        about: "Bring a suspended container back, as it was",
        containers: Containers::Stopped,
        examples: &[("vzctl resume 101", "as start does, when there is a dump")],
        notes: "If it fails, the dump stays as it is.",
    },
    Word {
        kind: Kind::CheckpointCheck,
        name: "checkpoint-check",
        aliases: &[],
        synopsis: "[--json]",
        about: "Say what keeps a running container from being saved or moved",
        containers: Containers::Running,
        examples: &[
            ("vzctl checkpoint-check 101", "exit 0: nothing; 16: what, by process and unit"),
            ("vzctl checkpoint-check 101 --json", "the same as a JSON object"),
        ],
        notes: "Nothing is stopped for it.",
    },
    Word {
        kind: Kind::Destroy,
        name: "destroy",
        aliases: &["delete"],
        synopsis: "",
        about: "Remove a stopped container's files and retire its configuration",
        containers: Containers::Stopped,
        examples: &[("vzctl destroy 101", "the configuration is kept as 101.conf.destroyed")],
        notes: "The files are deleted in the background.",
    },
    Word {
        kind: Kind::Mount,
        name: "mount",
        aliases: &[],
        synopsis: "",
        about: "Mount a container's root without starting it",
        containers: Containers::Stopped,
        examples: &[("vzctl mount 101", "its files are then below /vz/root/101")],
        notes: "",
    },
    Word {
        kind: Kind::Umount,
        name: "umount",
        aliases: &["unmount"],
        synopsis: "",
        about: "Unmount a container's root",
        containers: Containers::Stopped,
        examples: &[("vzctl umount 101", "also unmounts what is mounted below it")],
        notes: "",
    },
    Word {
        kind: Kind::Convert,
        name: "convert",
        aliases: &[],
        synopsis: "[--layout overlay|simfs|ploop]",
        about: "Give a stopped container another layout, with all its files",
        containers: Containers::Stopped,
        examples: &[
            ("vzctl convert 101", "to ploop: a file system of its own in an image"),
            ("vzctl convert 101 --layout overlay", "above the template, which others share"),
        ],
        notes: "The files are copied; after Ctrl-C or a crash the container is as it was.",
    },
    Word {
        kind: Kind::Compact,
        name: "compact",
        aliases: &[],
        synopsis: "",
        about: "Give what is free in a container's image back to the host, running or not",
        containers: Containers::Any,
        examples: &[("vzctl compact 101", "says how much that was")],
        notes: "",
    },
    Word {
        kind: Kind::Status,
        name: "status",
        aliases: &[],
        synopsis: "[--json]",
        about: "Print one line: does it exist, is it mounted, does it run",
        containers: Containers::Any,
        examples: &[
            ("vzctl status 101", "prints: CTID 101 exist mounted running"),
            ("vzctl status 101 --json", "the same as a JSON object"),
        ],
        notes: "The exit code is 0 whatever the status is.",
    },
    Word {
        kind: Kind::Enter,
        name: "enter",
        aliases: &[],
        synopsis: "[--exec <command> [arg ...]]",
        about: "Open a root shell in a running container",
        containers: Containers::Running,
        examples: &[
            ("vzctl enter 101", "a shell on a terminal of the container"),
            ("vzctl enter 101 --exec top", "types that command into the shell first"),
        ],
        notes: "",
    },
    Word {
        kind: Kind::Exec,
        name: "exec",
        aliases: &[],
        synopsis: "<command> [arg ...]",
        about: "Run a command through a container's shell; exit 8 if it fails",
        containers: Containers::Running,
        examples: &[
            ("vzctl exec 101 ps ax", "runs there, prints here"),
            ("vzctl exec 101 'ls /tmp | wc -l'", "the container's shell makes the pipe"),
            ("echo 'uptime; df' | vzctl exec 101 -", "the shell reads commands from standard input"),
        ],
        notes: "The words are joined with blanks and read by the container's shell. Standard input is consumed: \
                in a loop, give it </dev/null.",
    },
    Word {
        kind: Kind::Exec2,
        name: "exec2",
        aliases: &[],
        synopsis: "<command> [arg ...]",
        about: "As exec, but exit with the command's own code",
        containers: Containers::Running,
        examples: &[("vzctl exec2 101 systemctl is-active ssh", "the code is systemctl's")],
        notes: "",
    },
    Word {
        kind: Kind::Exec3,
        name: "exec3",
        aliases: &[],
        synopsis: "<command> [arg ...]",
        about: "As exec2, but without a shell: the arguments arrive as they are",
        containers: Containers::Running,
        examples: &[("vzctl exec3 101 printf '%s\\n' 'a  b'", "nothing is split or expanded")],
        notes: "",
    },
    Word {
        kind: Kind::Runscript,
        name: "runscript",
        aliases: &[],
        synopsis: "<script-file>",
        about: "Run a script of the host inside a container, running or not",
        containers: Containers::Any,
        examples: &[("vzctl runscript 101 ./setup.sh", "the code is the script's")],
        notes: "",
    },
    Word {
        kind: Kind::Console,
        name: "console",
        aliases: &[],
        synopsis: "[<ttynum>]",
        about: "Attach to a container's console; Esc . at the start of a line detaches",
        containers: Containers::Any,
        examples: &[("vzctl console 101", "works before start, and survives stop")],
        notes: "",
    },
    Word {
        kind: Kind::Set,
        name: "set",
        aliases: &[],
        synopsis: "[--save] [--force] [--reset_ub] [--setmode restart|ignore] [parameters]",
        about: "Change parameters of a container, running or not",
        containers: Containers::Any,
        examples: &[
            (
                "vzctl set 101 --ipadd 10.0.0.101 --hostname web --save",
                "an address and a host name, for good",
            ),
            ("vzctl set 101 --ram 1G --swap 512M --cpus 2 --save", "memory and CPUs"),
            ("vzctl set 101 --ipdel all --ipadd 10.0.0.7/24 --save", "replace the addresses"),
            ("vzctl set 101 --netif_add eth0,,,,br0 --save", "a network card on the bridge br0"),
            ("vzctl set 101 --onboot yes --name web --save", "start with the host; call it web"),
        ],
        notes: "Without --save a change lasts until the container stops. With --save a running container gets it at \
                once as well; if that fails, nothing is saved.",
    },
    Word {
        kind: Kind::Snapshot,
        name: "snapshot",
        aliases: &[],
        synopsis: "[--id <uuid>] [--name <name>] [--description <text>] [--skip-suspend] [--skip-config]",
        about: "Keep a container's files and configuration as they are now",
        containers: Containers::Any,
        examples: &[
            ("vzctl snapshot 101 --name 'before the upgrade'", "a running container goes on"),
            ("vzctl --verbose snapshot 101", "tells for how long it stood still"),
        ],
        notes: "Of a running container the files are kept, as they were at one moment, and not its memory.",
    },
    Word {
        kind: Kind::SnapshotSwitch,
        name: "snapshot-switch",
        aliases: &[],
        synopsis: "--id <uuid> [--skip-resume | --must-resume] [--skip-config]",
        about: "Make a container what it was; what it is now is lost",
        containers: Containers::Any,
        examples: &[(
            "vzctl snapshot-switch 101 --id {UUID}",
            "a running container is killed; start it again afterwards",
        )],
        notes: "The configuration before is kept as 101.conf.old.",
    },
    Word {
        kind: Kind::SnapshotDelete,
        name: "snapshot-delete",
        aliases: &[],
        synopsis: "--id <uuid>",
        about: "Delete a snapshot; the container and its other snapshots stay as they are",
        containers: Containers::Any,
        examples: &[("vzctl snapshot-delete 101 --id {UUID}", "running or not")],
        notes: "",
    },
    Word {
        kind: Kind::SnapshotMount,
        name: "snapshot-mount",
        aliases: &[],
        synopsis: "--id <uuid> --target <dir>",
        about: "Mount the files of a snapshot on the host, to be read only",
        containers: Containers::Any,
        examples: &[(
            "vzctl snapshot-mount 101 --id {UUID} --target /mnt",
            "take back a file that was deleted",
        )],
        notes: "",
    },
    Word {
        kind: Kind::SnapshotUmount,
        name: "snapshot-umount",
        aliases: &[],
        synopsis: "--id <uuid>",
        about: "Unmount a snapshot",
        containers: Containers::Any,
        examples: &[("vzctl snapshot-umount 101 --id {UUID}", "from wherever it is mounted")],
        notes: "",
    },
    Word {
        kind: Kind::SnapshotList,
        name: "snapshot-list",
        aliases: &[],
        synopsis: "[-H] [-o <field>[,...]] [--id <uuid>] [-L] [--json]",
        about: "List the snapshots of a container",
        containers: Containers::Any,
        examples: &[
            ("vzctl snapshot-list 101", "a * marks the one it stands on"),
            ("vzctl snapshot-list 101 -H -o uuid,name", "for scripts; or --json"),
        ],
        notes: "",
    },
    Word {
        kind: Kind::Quotaon,
        name: "quotaon",
        aliases: &[],
        synopsis: "",
        about: "Have a container's disk limits hold now",
        containers: Containers::Any,
        examples: &[("vzctl quotaon 101", "DISKSPACE and DISKINODES of its configuration")],
        notes: "mount and start do so as well.",
    },
    Word {
        kind: Kind::Quotaoff,
        name: "quotaoff",
        aliases: &[],
        synopsis: "",
        about: "Lift a stopped container's disk limits until it is mounted or started",
        containers: Containers::Stopped,
        examples: &[("vzctl quotaoff 101", "what it uses goes on being counted")],
        notes: "For good: vzctl set 101 --diskquota no --save",
    },
    Word {
        kind: Kind::Quotainit,
        name: "quotainit",
        aliases: &[],
        synopsis: "",
        about: "Count a stopped container's files anew, and have its disk limits hold",
        containers: Containers::Stopped,
        examples: &[("vzctl quotainit 101", "after files came into its private area from elsewhere")],
        notes: "Goes through all of the container's files.",
    },
];
