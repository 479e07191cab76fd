//! Which init a template made of an image has, and what else a container needs that images leave out.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use vzsys::Call;
use vzsys::launch::{ImageCommand, OWN_COMMAND, OWN_INIT};

use super::document::Image;
use super::error::OciError;
use super::import::How;
use super::run::ImageConfig;
use crate::archive::open_tree;
use crate::build::{is_static, machine};
use crate::dist::{Durability, GuestRoot};
use crate::removal;

/// Which init is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preference {
    /// The image's own where its command is that init, or where it has a real one and its command is a mere shell;
    /// else ours, which runs the command.
    #[default]
    Auto,
    /// The image's own.
    Image,
    /// Ours.
    Command,
}

impl std::str::FromStr for Preference {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "image" => Ok(Self::Image),
            "command" => Ok(Self::Command),
            other => Err(format!("unknown init '{}' (known: auto, image, command)", other.escape_debug())),
        }
    }
}

/// Programs that want to be the first process, wherever they lie.
const INITS: [&str; 6] = ["init", "my_init", "systemd", "openrc-init", "runit-init", "s6-svscan"];
const PLACES: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// What no container can do without; images leave it to their runtime.
const DIRECTORIES: [(&str, u32); 8] = [
    ("/etc", 0o755),
    ("/dev", 0o755),
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/root", 0o700),
];

/// Makes the tree one that a VE can start from. Returns the word for its init where that is ours.
pub(super) fn furnish(
    object: &str,
    tree: &Path,
    image: &Image,
    how: &How,
) -> Result<Option<&'static str>, OciError> {
    let failed = |error: crate::dist::DistError| OciError::malformed(object, error);
    let dir = open_tree(tree)?;
    // What an image brings under our name is not ours.
    removal::remove_at(dir.as_fd(), ".vz".as_ref())?;
    let root = GuestRoot::from_fd(dir);
    for (path, mode) in DIRECTORIES {
        if !root.exists(path) {
            root.make_dir(Path::new(path), mode).map_err(failed)?;
        }
    }
    link_systemd(&root, &image.run).map_err(failed)?;
    let own = own_init(&root, &image.run);
    match (how.init, own) {
        (Preference::Image, None) => {
            return Err(OciError::unsupported(
                object,
                "it has no init of its own; import it with --init auto",
            ));
        }
        (Preference::Image, Some(_)) => return Ok(None),
        (Preference::Auto, Some(own)) if own.is_meant => return Ok(None),
        (Preference::Auto | Preference::Command, _) => {}
    }
    if image.run.command().is_empty() {
        let reason = "it has neither an init nor a command to run";
        return Err(OciError::unsupported(object, reason));
    }
    if !image.platform.runs_here() {
        let reason = format!(
            "it has no init of its own, and our init runs on this host's processors only, not on {}",
            image.platform
        );
        return Err(OciError::unsupported(object, reason));
    }
    for path in image.run.volumes.iter().chain([&image.run.working_dir]) {
        if path.starts_with('/') && !root.exists(path) {
            root.make_dir(&clean(path), 0o755).map_err(failed)?;
        }
    }
    root.make_dir(Path::new("/.vz"), 0o755).map_err(failed)?;
    root.write(OWN_INIT, &program(&how.init_program)?, 0o755, Durability::Lazy).map_err(failed)?;
    let mut command = ImageCommand::from(&image.run);
    command.as_init = called(&image.run).is_some_and(|name| INITS.contains(&name.as_str()));
    let command = serde_json::to_string_pretty(&command).unwrap_or_default();
    root.write(OWN_COMMAND, format!("{command}\n").as_bytes(), 0o644, Durability::Lazy).map_err(failed)?;
    Ok(Some("command"))
}

/// An init that the image brings.
struct Own {
    /// Whether the image is meant to be run by it.
    is_meant: bool,
}

fn own_init(root: &GuestRoot, run: &ImageConfig) -> Option<Own> {
    let place = PLACES.into_iter().find(|path| root.is_file(path))?;
    let asked = run.command().first().is_some_and(|word| PLACES.contains(&word.as_str()))
        || called(run).as_deref() == Some("systemd");
    let real = root.final_path(place).is_some_and(|path| {
        // busybox is an init only where somebody has told it what to do, as OpenRC has.
        !path.to_string_lossy().contains("busybox") || root.exists("/sbin/openrc")
    });
    Some(Own { is_meant: asked || (real && (run.command().is_empty() || run.is_shell())) })
}

/// The name of the program that the image runs.
fn called(run: &ImageConfig) -> Option<String> {
    run.command().first().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned())
}

/// An image that runs systemd need not call it by the name that all systems have for it.
fn link_systemd(root: &GuestRoot, run: &ImageConfig) -> Result<(), crate::dist::DistError> {
    let path = run.command().into_iter().next().filter(|path| path.starts_with('/') && root.is_file(path));
    match path {
        Some(path) if called(run).as_deref() == Some("systemd") && !root.exists("/sbin/init") => {
            root.symlink(&path, "/sbin/init").map(drop)
        }
        _ => Ok(()),
    }
}

/// A path without what leads upwards.
fn clean(path: &str) -> std::path::PathBuf {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    parts.fold(std::path::PathBuf::from("/"), |path, part| path.join(part))
}

/// Our init, which must need nothing of the image.
fn program(path: &Path) -> Result<Vec<u8>, OciError> {
    let name = || path.display().to_string();
    let bytes = File::open(path).and_then(|_| fs::read(path)).call("read", name)?;
    if machine(&bytes).is_none() || !is_static(&bytes) {
        return Err(OciError::unsupported(
            name(),
            "it is no static program, so no image can run it as its init",
        ));
    }
    Ok(bytes)
}
