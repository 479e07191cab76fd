//! What is to be imported: whose it is, its configuration, its files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use templates::foreign::{self, Files, member};
use vzconf::foreign::{Foreign, RootHint, lxc, openvz, pct};
use vzconf::{Ctid, Exit};

use crate::report::Failure;

/// No configuration is larger.
const MOST: u64 = 1 << 20;
/// Where a backup of Proxmox has its configuration.
const IN_BACKUP: &str = "etc/vzdump/pct.conf";
/// Where Proxmox keeps volumes of storages that are directories, and of ZFS.
const VOLUMES: [&str; 4] = ["/var/lib/vz/images", "/rpool/data", "/mnt/pve", "/"];

/// Whose container it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    OpenVz,
    Lxc,
    Pct,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::OpenVz => "openvz",
            Self::Lxc => "lxc",
            Self::Pct => "pct",
        }
    }

    fn parse(word: &str) -> Result<Self, Failure> {
        [Self::OpenVz, Self::Lxc, Self::Pct].into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            let text = format!("unknown kind '{}' (known: openvz, lxc, pct)", word.escape_debug());
            Failure::new(Exit::InvalidValue, text)
        })
    }

    /// By what a configuration looks like.
    fn guess(text: &str) -> Self {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        if lines().any(|line| line.starts_with("lxc.") && line.contains('=')) {
            // Proxmox has such lines too, with colons.
            return Self::Lxc;
        }
        let colon = |line: &str| {
            let key = line.split_once(':').map_or("", |(key, _)| key);
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
        };
        if lines().next().is_some_and(colon) { Self::Pct } else { Self::OpenVz }
    }
}

/// A container elsewhere.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) kind: Kind,
    /// Its configuration's file, unless that is in an archive.
    pub(super) config: Option<PathBuf>,
    text: Vec<u8>,
    /// The number that it had.
    pub(super) number: Option<Ctid>,
    /// Where its files are, as far as that is known without its configuration.
    pub(super) files: Option<Files>,
    /// A backup: made with the ids of the container.
    backup: bool,
}

impl Origin {
    /// Finds out what the words name.
    pub(super) fn find(options: &ArgMatches) -> Result<Self, Failure> {
        let path = |id: &str| options.get_one::<String>(id).map(PathBuf::from);
        let source = path("source").unwrap_or_default();
        let meta = std::fs::metadata(&source)
            .map_err(|error| Failure::new(Exit::FsNoPrvt, format!("{}: {error}", source.display())))?;
        let mut files = None;
        let mut config = path("conf");
        let mut inside = None;
        if meta.is_dir() {
            let found = in_directory(&source)?;
            files = found.0;
            config = config.or(found.1);
        } else if let Files::Archive(archive) = at(&source)? {
            if config.is_none() {
                inside = member(&archive, IN_BACKUP, MOST)?;
            }
            files = Some(Files::Archive(archive));
        } else {
            config = Some(config.unwrap_or_else(|| source.clone()));
        }
        let backup = inside.is_some();
        let text = match (&config, inside) {
            (Some(path), _) => read(path)?,
            (None, Some(text)) => text,
            (None, None) => {
                let text = format!("there is no configuration with {}", source.display());
                return Err(Failure::advised(Exit::NoVeConfig, text, "Name it with --conf FILE"));
            }
        };
        let kind = match options.get_one::<String>("kind") {
            Some(word) => Kind::parse(word)?,
            None => Kind::guess(&String::from_utf8_lossy(&text)),
        };
        let number = config.iter().chain([&source]).find_map(|path| number(path));
        Ok(Self { kind, config, text, number, files, backup })
    }

    /// Reads its configuration for the VE `ctid`.
    pub(super) fn read(&self, ctid: Ctid) -> Result<Foreign, Failure> {
        let text = String::from_utf8_lossy(&self.text);
        let unreadable = |error: vzconf::foreign::Unreadable| {
            let path = self.config.as_ref().map_or(IN_BACKUP.to_owned(), |path| path.display().to_string());
            Failure::new(Exit::FsBadTmpl, format!("{path}: {error}"))
        };
        let has_bridge = |name: &str| Path::new("/sys/class/net").join(name).join("bridge").is_dir();
        match self.kind {
            Kind::OpenVz => Ok(openvz(&self.text, ctid, ve::create::host_mac())),
            Kind::Pct => pct(&text, &has_bridge).map_err(unreadable),
            Kind::Lxc => {
                let dir = self.config.as_ref().and_then(|path| path.parent()).map(Path::to_owned);
                let mut load = |name: &str| {
                    let path = dir.clone().unwrap_or_default().join(name);
                    if path.is_dir() {
                        return Err("a directory is not read; name its files".to_owned());
                    }
                    let text = read(&path).map_err(|failure| failure.text)?;
                    String::from_utf8(text).map_err(|_| "it is no text".to_owned())
                };
                lxc(&text, &mut load, &has_bridge).map_err(unreadable)
            }
        }
    }

    /// Whether the files have the container's own ids, whatever its configuration says.
    pub(super) fn is_unshifted(&self) -> bool {
        self.backup
    }

    /// Where its files are.
    pub(super) fn files(&self, options: &ArgMatches, foreign: &Foreign) -> Result<Files, Failure> {
        let unknown = |place: String| {
            let text = format!("the files of the container are not at {place}");
            Failure::advised(Exit::FsNoPrvt, text, "Name the directory, image or archive with --rootfs PATH")
        };
        if let Some(path) = options.get_one::<String>("rootfs") {
            return private(Path::new(path));
        }
        if let Some(files) = &self.files {
            return Ok(files.clone());
        }
        let path = match &foreign.root {
            Some(RootHint::Path(path)) => PathBuf::from(path),
            Some(RootHint::Volume { storage, volume }) => {
                let places = VOLUMES.iter().flat_map(|dir| {
                    let dir = Path::new(dir);
                    [
                        dir.join(volume),
                        dir.join(storage).join("images").join(volume),
                        dir.join(storage).join(volume),
                    ]
                });
                let plain = !volume.split('/').any(|part| part == "..") && !storage.contains(['/', '.']);
                let found = places.into_iter().find(|path| plain && path.exists());
                found.ok_or_else(|| unknown(format!("{storage}:{volume}, a volume of a storage")))?
            }
            None => self
                .openvz_private()
                .ok_or_else(|| unknown("any place that its configuration tells".to_owned()))?,
        };
        if !path.exists() {
            return Err(unknown(path.display().to_string()));
        }
        private(&path)
    }

    /// `VE_PRIVATE` of OpenVZ's, for the number that it had.
    fn openvz_private(&self) -> Option<PathBuf> {
        let file = vzconf::ConfFile::parse_bytes(&self.text);
        let number = self.number.map(|ctid| ctid.to_string());
        let path = file.get("VE_PRIVATE").unwrap_or("/vz/private/$VEID").to_owned();
        match number {
            Some(number) => Some(path.replace("${VEID}", &number).replace("$VEID", &number).into()),
            None => (!path.contains("$VEID") && !path.contains("${VEID}")).then(|| path.into()),
        }
    }
}

/// A directory that was named: an LXC container, or a private area.
fn in_directory(dir: &Path) -> Result<(Option<Files>, Option<PathBuf>), Failure> {
    let config = dir.join("config");
    if config.is_file() && dir.join("rootfs").is_dir() {
        return Ok((Some(Files::Tree(resolved(&dir.join("rootfs"))?)), Some(config)));
    }
    if config.is_file() && !dir.join("etc").is_dir() {
        return Ok((None, Some(config)));
    }
    let own = dir.join("ve.conf");
    Ok((Some(private(dir)?), own.is_file().then_some(own)))
}

/// The files in a private area of OpenVZ's, of any of its versions, or at any other path.
fn private(path: &Path) -> Result<Files, Failure> {
    for disk in ["root.hdd", "root.hdd/root.hds"] {
        let below = path.join(disk);
        if foreign::is_disk(&below) {
            return Ok(Files::Disk(resolved(&below)?));
        }
    }
    if path.join("fs/etc").is_dir() && !path.join("etc").is_dir() {
        return Ok(Files::Tree(resolved(&path.join("fs"))?));
    }
    at(&resolved(path)?)
}

/// Links in what the admin names are followed.
fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path)
        .map_err(|error| Failure::new(Exit::FsNoPrvt, format!("{}: {error}", path.display())))
}

fn at(path: &Path) -> Result<Files, Failure> {
    Files::at(path).map_err(|error| Failure::of(Exit::FsNoPrvt, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |reason: String| Failure::new(Exit::NoVeConfig, format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(failed("it is no regular file".to_owned()));
    }
    let mut text = Vec::new();
    file.take(MOST + 1).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(failed("it is too large for a configuration".to_owned()));
    }
    Ok(text)
}

/// `101.conf`, `/vz/private/101`, `vzdump-lxc-101-2026_….tar.zst`.
fn number(path: &Path) -> Option<Ctid> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let word = match name.strip_prefix("vzdump-lxc-") {
        Some(rest) => rest.split('-').next().unwrap_or_default().to_owned(),
        None => name.strip_suffix(".conf").unwrap_or(&name).to_owned(),
    };
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_names() {
        let of = |name: &str| number(Path::new(name)).map(|ctid| ctid.get());
        assert_eq!(of("/etc/vz/conf/101.conf"), Some(101));
        assert_eq!(of("/vz/private/102"), Some(102));
        assert_eq!(of("vzdump-lxc-105-2026_01_01-00_00_00.tar.zst"), Some(105));
        assert_eq!(of("/var/lib/lxc/web/config"), None);
    }

    #[test]
    fn configurations_tell_whose_they_are() {
        assert_eq!(Kind::guess("# x\nONBOOT=\"yes\"\n"), Kind::OpenVz);
        assert_eq!(Kind::guess("#desc\narch: amd64\nlxc.apparmor.profile: unconfined\n"), Kind::Pct);
        assert_eq!(Kind::guess("lxc.uts.name = x\n"), Kind::Lxc);
        assert_eq!(Kind::guess(""), Kind::OpenVz);
    }
}
