//! The template `tiny`: the host's static busybox and a handful of files. Needs no archive of packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vzsys::Call;

use super::{BuildError, Maker, Replace};
use crate::archive::{Compression, Entry, EntryKind, Writer};
use crate::cache::{Cache, Metadata, Template};

/// The name it has unless told otherwise.
pub const NAME: &str = "tiny";

/// Where a static busybox may be.
const PLACES: [&str; 4] =
    ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/local/bin/busybox"];

const DIRECTORIES: &[(&str, u32)] = &[
    ("", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/init.d", 0o755),
    ("etc/network", 0o755),
    ("etc/network/if-down.d", 0o755),
    ("etc/network/if-post-down.d", 0o755),
    ("etc/network/if-pre-up.d", 0o755),
    ("etc/network/if-up.d", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/spool/cron", 0o755),
    ("var/spool/cron/crontabs", 0o755),
    ("var/tmp", 0o1777),
];

const LINKS: &[(&str, &str)] = &[("var/run", "../run"), ("etc/mtab", "../proc/self/mounts")];

const FILES: &[(&str, u32, &str)] = &[
    ("etc/inittab", 0o644, include_str!("tiny/inittab")),
    ("etc/init.d/rcS", 0o755, include_str!("tiny/rcS")),
    ("etc/init.d/rcK", 0o755, include_str!("tiny/rcK")),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/shadow", 0o640, "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\nshadow:x:42:\nusers:x:100:\nnogroup:x:65534:\n"),
    ("etc/hostname", 0o644, "localhost\n"),
    ("etc/hosts", 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/resolv.conf", 0o644, ""),
    ("etc/network/interfaces", 0o644, "auto lo\niface lo inet loopback\n"),
    (
        "etc/profile",
        0o644,
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\numask 022\n",
    ),
    ("etc/shells", 0o644, "/bin/sh\n/bin/ash\n"),
    ("etc/fstab", 0o644, ""),
];

/// Builds it, in well under a second.
///
/// # Errors
/// [`BuildError::NoProgram`] or [`BuildError::NotStatic`] when there is no busybox to be used.
pub fn tiny(cache: &Cache, name: &str, replace: Replace) -> Result<Template, BuildError> {
    let maker = Maker::new(cache, name, replace)?;
    let busybox = find(&PLACES.map(Path::new))?;
    let program = std::fs::read(&busybox).call("read", || busybox.display().to_string())?;
    let applets = applets(&busybox)?;
    let version = version(&program);
    let path = maker.tarball();
    let mut writer = Writer::create(&path, Compression::Zstd)?;
    let now = jiff::Timestamp::now().as_second();
    let mut unpacked = 0;
    for (mut entry, data) in entries(&program, &applets, &version) {
        entry.mtime = (now, 0);
        if entry.path == b"etc/shadow" {
            entry.gid = 42;
        }
        unpacked += (data.len() as u64).next_multiple_of(4096) + 512;
        writer.add(&entry, &data)?;
    }
    writer.finish()?;
    let metadata = Metadata {
        distribution: "tiny".to_owned(),
        version: version.clone(),
        arch: super::inspect::machine(&program).unwrap_or_default().to_owned(),
        init: "busybox".to_owned(),
        unpacked,
        origin: format!("{} of this host", busybox.display()),
        packages: vec![format!("busybox {version}")],
        ..Metadata::default()
    };
    maker.publish(Compression::Zstd, metadata)
}

fn entries(program: &[u8], applets: &BTreeSet<String>, version: &str) -> Vec<(Entry, Vec<u8>)> {
    let mut list: Vec<(Entry, Vec<u8>)> = Vec::new();
    for (path, mode) in DIRECTORIES {
        list.push((Entry::new(path, EntryKind::Directory, *mode), Vec::new()));
    }
    list.push((Entry::new("bin/busybox", EntryKind::File, 0o755), program.to_vec()));
    for (path, mode, text) in FILES {
        list.push((Entry::new(path, EntryKind::File, *mode), text.as_bytes().to_vec()));
    }
    let release = format!(
        "ID=tiny\nID_LIKE=alpine\nNAME=\"Tiny\"\nVERSION_ID={version}\nPRETTY_NAME=\"Tiny (busybox {version})\"\n"
    );
    list.push((Entry::new("etc/os-release", EntryKind::File, 0o644), release.into_bytes()));
    let links = applets.iter().map(|path| (path.as_str(), "/bin/busybox"));
    for (path, target) in links.chain(LINKS.iter().copied()) {
        list.push((Entry::new(path, EntryKind::Symlink(target.into()), 0o777), Vec::new()));
    }
    list
}

/// The first static busybox.
fn find(places: &[&Path]) -> Result<PathBuf, BuildError> {
    let mut dynamic = None;
    for place in places {
        match std::fs::read(place) {
            Ok(program) if super::inspect::is_static(&program) => return Ok(place.to_path_buf()),
            Ok(_) => dynamic = dynamic.or(Some(place.to_path_buf())),
            Err(_) => {}
        }
    }
    Err(match dynamic {
        Some(path) => BuildError::NotStatic { path },
        None => BuildError::NoProgram { program: "busybox", package: "busybox-static" },
    })
}

/// Where its applets are to be linked: `bin/ls`, `sbin/init`.
fn applets(busybox: &Path) -> Result<BTreeSet<String>, BuildError> {
    let name = busybox.display().to_string();
    let mut command = vzsys::spawn::command(&name)?;
    command.arg("--list-full");
    let (_, out, _) = vzsys::spawn::feed(command, b"")?;
    let plain = |path: &&str| {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        matches!(dir, "bin" | "sbin" | "usr/bin" | "usr/sbin") && *path != "bin/busybox"
    };
    let applets: BTreeSet<String> = out.lines().filter(plain).map(str::to_owned).collect();
    match ["sbin/init", "bin/sh"].into_iter().find(|needed| !applets.contains(*needed)) {
        None => Ok(applets),
        Some(needed) => Err(BuildError::Failed { program: "busybox", reason: format!("it has no {needed}") }),
    }
}

/// `1.35.0` out of the banner in the program.
fn version(program: &[u8]) -> String {
    const BANNER: &[u8] = b"BusyBox v";
    let at = program.windows(BANNER.len()).position(|window| window == BANNER);
    let rest = at.map_or(&[][..], |at| &program[at + BANNER.len()..]);
    rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Unpack;

    #[test]
    fn it_is_built_and_has_what_a_container_needs() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let cache = Cache::open(dir.path());
        let template = tiny(&cache, NAME, Replace::No).unwrap();
        assert!(matches!(tiny(&cache, NAME, Replace::No), Err(BuildError::Cache(_))));
        tiny(&cache, NAME, Replace::Yes).unwrap();
        let metadata = template.metadata.unwrap();
        assert_eq!((metadata.distribution.as_str(), metadata.init.as_str()), ("tiny", "busybox"));
        assert!(!metadata.arch.is_empty() && metadata.version.starts_with(|c: char| c.is_ascii_digit()));
        let root = dir.path().join("root");
        Unpack::new(cache.find(NAME).unwrap().path).into(&root).unwrap();
        for path in ["sbin/init", "bin/sh", "sbin/poweroff"] {
            assert_eq!(std::fs::read_link(root.join(path)).unwrap(), Path::new("/bin/busybox"));
        }
        let output = vzsys::spawn::feed(
            {
                let mut command = vzsys::spawn::command("chroot").unwrap();
                command.arg(&root).args(["/bin/sh", "-c", "sh -n /etc/init.d/rcS && echo fine"]);
                command
            },
            b"",
        );
        assert_eq!(output.unwrap().1, "fine\n");
    }

    #[test]
    fn a_busybox_with_libraries_or_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busybox");
        assert!(matches!(find(&[&path]), Err(BuildError::NoProgram { .. })));
        std::fs::copy("/usr/bin/tar", &path).unwrap();
        assert!(matches!(find(&[&path]), Err(BuildError::NotStatic { .. })));
    }
}
