//! The command lines of vzbackup, vzdump and vzrestore.

use clap::{Arg, ArgAction, Command, value_parser};

const CODES: &str = "\
Exit codes: 0 success, 9 locked, 14 no such container, 20 bad command line, 21 bad value, 44 exists already,
46 disk full, 48 a backup is damaged, missing or cannot be made.";

fn flag(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name(value).help(help)
}

fn common(command: Command) -> Command {
    command
        .version(env!("CARGO_PKG_VERSION"))
        .arg(flag("quiet", "Say nothing but errors").short('q'))
        .arg(flag("verbose", "Say more").short('v').conflicts_with("quiet"))
        .arg(flag("json", "Print what was done as JSON"))
}

/// vzbackup's.
pub(super) fn save() -> Command {
    let command = Command::new("vzbackup")
        .about("Back up a container, running or not")
        .arg(
            Arg::new("ctid")
                .value_name("CTID|NAME")
                .required_unless_present_any(["list", "serve"])
                .help("Container"),
        )
        // The far side of an ssh.
        .arg(flag("serve", "").hide(true).exclusive(true))
        .arg(option(
            "to",
            "WHERE",
            "File, directory, - for standard output, or ssh://[USER@]HOST[:PORT]/PATH [default: a new file in BACKUP_DIR]",
        ))
        .arg(option(
            "base",
            "WHERE",
            "Earlier backup to go on from [default: the newest one in the same directory]",
        ))
        .arg(flag("full", "Go on from no earlier backup").conflicts_with("base"))
        .arg(
            option("level", "N", "Compression, 1 (fast) to 19 (small)")
                .default_value("3")
                .value_parser(value_parser!(i32).range(1..=19)),
        )
        .arg(flag("list", "List the backups, of one container or all").conflicts_with_all(["base", "full"]));
    common(command).after_help(format!(
        "Examples:\n  vzbackup 101                            into BACKUP_DIR; only what changed since the last one\n  \
         vzbackup web --to /mnt/usb/web.vzb --full\n  \
         vzbackup 101 --to ssh://backup@vault/srv/vz/\n  \
         vzbackup 101 --to - | gpg -e > 101.gpg\n  \
         vzbackup --list 101\n\n\
         After an interruption the same command goes on where it was.\n\n{CODES}"
    ))
}

/// vzdump's.
pub(super) fn dump() -> Command {
    let command = Command::new("vzdump")
        .about("Write a container, running or not, as a tar archive")
        .arg(Arg::new("ctid").value_name("CTID|NAME").required(true).help("Container"))
        .arg(option(
            "to",
            "WHERE",
            "File, directory, or - for standard output [default: a new file in BACKUP_DIR]",
        ))
        .arg(
            option("compress", "HOW", "How to compress [default: by the file's name, else zst]")
                .value_parser(["zst", "gz", "xz", "none"]),
        );
    common(command).after_help(format!(
        "Examples:\n  vzdump 101\n  vzdump web --to /mnt/usb/web.tar.gz\n  \
         vzdump 101 --to - --compress none | tar -tf - | less\n  \
         vzrestore vzdump-openvz-101-2026_11_28-03_00_00.tar.zst\n\n{CODES}"
    ))
}

/// vzrestore's.
pub(super) fn restore() -> Command {
    let command = Command::new("vzrestore")
        .about("Make a container from a backup")
        .arg(Arg::new("from").value_name("FILE|-|ssh://...").required(true).help(
            "Backup, or archive of vzdump: a file, - for standard input, or ssh://[USER@]HOST[:PORT]/PATH",
        ))
        .arg(option("as", "CTID", "Number of the new container [default: the one it had]"))
        .arg(option("name", "NAME", "Its name [default: the one it had, but none for a new number]"))
        .arg(option(
            "layout",
            "LAYOUT",
            "simfs or ploop [default: simfs where that can keep its disk limits]",
        ))
        .arg(
            option("base", "WHERE", "Where to look for the backups it goes on from [default: beside it]")
                .action(ArgAction::Append),
        )
        .arg(flag("scripts", "Install its action scripts too; they run as root of this host"))
        .arg(flag("check", "Read and verify all of it, and write nothing").conflicts_with("list"))
        .arg(flag("list", "Tell what is in it"));
    common(command).after_help(format!(
        "Examples:\n  vzrestore /vz/backup/101-20261128-030000.vzb\n  \
         vzrestore 101.vzb --as 201 --name copy\n  \
         vzrestore ssh://backup@vault/srv/vz/101-20261128-030000.vzb\n  \
         gpg -d 101.gpg | vzrestore -\n  \
         vzrestore --check 101.vzb && vzrestore --list 101.vzb | less\n\n{CODES}"
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammars_are_sound() {
        super::save().debug_assert();
        super::dump().debug_assert();
        super::restore().debug_assert();
    }
}
