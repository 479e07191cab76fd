//! The command line of vzimport.

use clap::{Arg, ArgAction, Command, value_parser};

const AFTER: &str = "\
The source is only read. It is one of:
  NNN.conf            of OpenVZ, Virtuozzo or Proxmox; the files are where it says
  a private area      of OpenVZ (with fs/ or root.hdd/), its configuration by --conf
  an LXC container    its directory, or the file config in it
  vzdump-lxc-*.tar*   a backup of Proxmox

Examples:
  vzimport /mnt/old/etc/vz/conf/101.conf --rootfs /mnt/old/vz/private/101
  vzimport /vz-old/private/101 --conf 101.conf --dry-run
  vzimport /var/lib/lxc/web 120 --name web
  vzimport vzdump-lxc-105-2026_01_01-00_00_00.tar.zst

Exit codes: 0 success, 3 failure, 20 bad command line, 21 bad value, 43 no files, 44 container exists,
46 disk full, 47 files or configuration cannot be read.";

fn flag(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name(value).help(help)
}

/// The whole grammar.
pub(super) fn command() -> Command {
    Command::new("vzimport")
        .about("Make a container of one of OpenVZ, LXC or Proxmox")
        .version(env!("CARGO_PKG_VERSION"))
        .arg_required_else_help(true)
        .arg(Arg::new("source").value_name("SOURCE").required(true).help("What to import"))
        .arg(Arg::new("ctid").value_name("CTID").help("Its number here [default: the one it had]"))
        .arg(option("kind", "KIND", "openvz, lxc or pct [default: what the configuration looks like]"))
        .arg(option("conf", "FILE", "Its configuration"))
        .arg(option("rootfs", "PATH", "Its files: a directory, root.hdd, an image or an archive"))
        .arg(
            option(
                "shift",
                "N",
                "What all ids on its disk are shifted by [default: as its configuration says]",
            )
            .value_parser(value_parser!(u32)),
        )
        .arg(option("layout", "LAYOUT", "simfs or ploop [default: what can keep its disk limits]"))
        .arg(option("name", "NAME", "Its name here"))
        .arg(flag("dry-run", "Only tell what would be mapped, and how"))
        .arg(flag("json", "Print the report as JSON"))
        .arg(flag("quiet", "Say nothing but errors").short('q'))
        .arg(flag("verbose", "Say more").short('v'))
        .after_help(AFTER)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound() {
        super::command().debug_assert();
    }
}
