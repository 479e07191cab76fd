//! The command line of vztmpl.

use clap::{Arg, ArgAction, Command};

const AFTER: &str = "\
Examples:
  vztmpl list                                   what is in the cache
  vztmpl build debian-12-x86_64-minimal         from the host's package archive
  vztmpl build tiny                             from the host's busybox; needs no network
  vztmpl build web --suite trixie --include nginx,php-fpm
  vztmpl import centos-7-x86_64.tar.xz          a tarball made elsewhere
  vztmpl import docker://nginx:1.27             an image from a registry
  vztmpl export my-web oci:/srv/images/web:v1   an image for others
  vztmpl create 101 my-web                      from a container
  vzctl create 102 --ostemplate my-web

Exit codes: 0 success, 3 failure, 20 bad command line, 21 bad value, 46 disk full, 47 no root file
system, 91 no such template.";

fn name(help: &'static str) -> Arg {
    Arg::new("name").value_name("NAME").required(true).help(help)
}

fn flag(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

fn list(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name(value).action(ArgAction::Append).value_delimiter(',').help(help)
}

fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name(value).help(help)
}

fn force() -> Arg {
    flag("force", "Replace a template of the same name; containers made from it keep theirs")
}

fn build() -> Command {
    Command::new("build")
        .about("Build a template: tiny, or Debian and its kin through mmdebstrap")
        .arg(name("Its name; one like debian-12-x86_64-minimal says all there is to say"))
        .arg(option("suite", "SUITE", "Suite of the archive, such as trixie or noble"))
        .arg(option("arch", "ARCH", "x86_64, i386 or aarch64 [default: by the name, else this host's]"))
        .arg(option("variant", "VARIANT", "mmdebstrap's variant [default: minbase]"))
        .arg(option("init", "INIT", "systemd, sysvinit or openrc [default: by the name, else systemd]"))
        .arg(list("include", "PKG,...", "More packages"))
        .arg(
            Arg::new("mirror")
                .long("mirror")
                .value_name("URL")
                .action(ArgAction::Append)
                .help("Archive to use instead of this host's; also a whole 'deb ...' line"),
        )
        .arg(list(
            "components",
            "NAME,...",
            "Components of the archive [default: as on this host, else main]",
        ))
        .arg(force())
        .after_help(
            "Examples:\n  vztmpl build tiny\n  vztmpl build debian-13-x86_64-minimal\n  \
             vztmpl build debian-12-i386-minimal\n  vztmpl build debian-12-x86_64-openrc\n  \
             vztmpl build db --suite bookworm --include postgresql",
        )
}

fn list_verb() -> Command {
    Command::new("list")
        .about("List the templates in the cache")
        .after_help("Examples:\n  vztmpl list\n  vztmpl list --json | jq -r '.[].name'")
}

fn info() -> Command {
    Command::new("info")
        .about("Tell what is known about a template")
        .arg(name("Template"))
        .arg(flag("packages", "Also the packages in it"))
        .after_help("Examples:\n  vztmpl info tiny\n  vztmpl info --packages debian-12-x86_64-minimal")
}

fn import() -> Command {
    Command::new("import")
        .about("Make a template of a root directory, of a tarball made elsewhere, or of an OCI or Docker image")
        .arg(Arg::new("source").value_name("DIR|TAR|IMAGE").required(true).help(
            "What to import; images are oci:DIR[:TAG], docker-archive:FILE[:REF], docker://REGISTRY/NAME[:TAG|@DIGEST]",
        ))
        .arg(Arg::new("name").value_name("NAME").help("Its name [default: the file's or image's]"))
        .arg(option("name", "NAME", "The same").id("called").conflicts_with("name"))
        .arg(option("arch", "ARCH", "Of an image for several, which: amd64, arm64, ... [default: this host's]"))
        .arg(option(
            "init",
            "WHICH",
            "Of an image: auto, image (its own init), command (ours, which runs its command) [default: auto]",
        ))
        .arg(option("max-size", "SIZE", "Refuse an image that unpacks to more [default: 64G]"))
        .arg(option("authfile", "FILE", "Passwords for registries, as in Docker's config.json"))
        .arg(flag("plain-http", "Speak to the registry without encryption"))
        .arg(force())
        .after_help(
            "Examples:\n  vztmpl import alpine-minirootfs-3.20.tar.gz alpine-3.20-x86_64\n  \
             vztmpl import /srv/chroot/build build-env\n  \
             vztmpl import docker://nginx:1.27 web\n  \
             vztmpl import oci:/srv/images/app:v2\n  \
             vztmpl import docker-archive:saved.tar",
        )
}

fn export() -> Command {
    Command::new("export")
        .about("Write a template as an OCI image into a layout, which is made if it is not there")
        .arg(name("Template"))
        .arg(Arg::new("target").value_name("oci:DIR[:TAG]").required(true).help("Where to [tag: latest]"))
        .after_help("Examples:\n  vztmpl export my-web oci:/srv/images/web:v1\n  skopeo copy oci:/srv/images/web:v1 docker://registry.example/web:v1")
}

fn create() -> Command {
    Command::new("create")
        .about("Make a template of a container, running or not")
        .arg(Arg::new("ctid").value_name("CTID").required(true).help("Container or its name"))
        .arg(name("Name of the new template"))
        .arg(flag("keep", "Keep machine id and SSH host keys"))
        .arg(force())
        .after_help("Examples:\n  vztmpl create 101 my-web\n  vztmpl create web01 my-web --force")
}

fn rm() -> Command {
    Command::new("rm")
        .visible_alias("remove")
        .about("Remove templates")
        .arg(name("Templates").action(ArgAction::Append).num_args(1..))
        .arg(flag("force", "Also those in use; containers made from them keep their files"))
        .after_help("Examples:\n  vztmpl rm old-template")
}

fn verify() -> Command {
    Command::new("verify")
        .about("Read templates from end to end and compare their checksums")
        .arg(name("Templates [default: all]").required(false).action(ArgAction::Append).num_args(0..))
        .after_help("Examples:\n  vztmpl verify\n  vztmpl verify debian-12-x86_64-minimal")
}

/// The whole grammar.
pub(super) fn command() -> Command {
    Command::new("vztmpl")
        .about("Templates that containers are created from")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(false)
        .arg(flag("quiet", "Say nothing but errors").short('q').global(true))
        .arg(flag("json", "Print JSON").global(true))
        .after_help(AFTER)
        .subcommands([list_verb(), info(), build(), import(), export(), create(), rm(), verify()])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound() {
        super::command().debug_assert();
    }
}
