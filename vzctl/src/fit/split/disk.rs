//! What of the disk is there for VEs.

use std::path::{Path, PathBuf};

use vzconf::{Config, Pair};

use super::super::Talk;

/// What the host keeps: 10 GiB in KiB, and inodes.
const HOST: Space = Space { kib: 10 << 20, inodes: Some(100_000) };
/// Of a VE where nothing better is known.
const USUAL: Space = Space { kib: 225_280, inodes: Some(USUAL_INODES) };
const USUAL_INODES: u64 = 88_000;

/// Size of a file system, or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Kibibytes.
    pub(super) kib: u64,
    /// Inodes; `None` where their number has no bound.
    pub(super) inodes: Option<u64>,
}

/// What a VE gets of the disk that holds the VEs, soft:hard in KiB and in inodes; told are doubts about it.
pub(super) fn share(global: &Config, count: u64, talk: &mut Talk<'_>) -> (Pair, Pair) {
    let told = global.get("VE_PRIVATE").filter(|value| !value.is_empty());
    let space = match told {
        None => {
            let path = global.paths().vz_conf();
            talk.complain(&format!("WARNING: unable to get VE_PRIVATE value from {}.", path.display()));
            None
        }
        Some(private) => {
            let dir = holder(private);
            match size(&dir) {
                Ok(space) => Some((dir, space)),
                Err(error) => {
                    let (dir, error) = (dir.display(), std::io::Error::from(error));
                    talk.complain(&format!("WARNING: statfs on {dir} failed: {error}"));
                    None
                }
            }
        }
    };
    match space {
        Some((dir, space)) => divide(&dir, space, count, talk),
        None => {
            talk.complain("Default disk space values to be used.");
            limits(USUAL)
        }
    }
}

/// The directory in which the private areas are.
fn holder(private: &str) -> PathBuf {
    let fixed = private.split("$VEID").next().unwrap_or_default();
    let fixed = fixed.split("${VEID}").next().unwrap_or_default();
    // `/vz/private/ve-$VEID` is in `/vz/private`.
    let dir = fixed.rsplit_once('/').map_or(fixed, |(dir, _)| dir);
    PathBuf::from(if dir.is_empty() { "/" } else { dir })
}

fn size(dir: &Path) -> Result<Space, rustix::io::Errno> {
    let stat = rustix::fs::statvfs(dir)?;
    let kib = stat.f_blocks.saturating_mul(stat.f_frsize / 1024);
    Ok(Space { kib, inodes: (stat.f_files > 0).then_some(stat.f_files) })
}

fn divide(dir: &Path, all: Space, count: u64, talk: &mut Talk<'_>) -> (Pair, Pair) {
    let (kib, small) = without(all.kib, HOST.kib);
    let (inodes, few) = match all.inodes.zip(HOST.inodes) {
        Some((all, host)) => {
            let (rest, few) = without(all, host);
            (Some(rest), few)
        }
        None => (None, false),
    };
    let dir = dir.display();
    if small || few {
        let gib = (HOST.kib * 2) >> 20;
        talk.complain(&format!("WARNING: Recommended minimal size of partition holding {dir} is {gib} Gb!"));
    }
    let room = inodes.map_or(u64::MAX, |inodes| inodes / USUAL_INODES).min(kib / USUAL.kib);
    if room < count {
        talk.complain(&format!(
            "WARNING: partition holding {dir} do not have space required for {count} containers"
        ));
        talk.complain(&format!("The maximum allowed value is {room}"));
        talk.complain("Default disk space values will be used");
        return limits(USUAL);
    }
    let part = |whole: u64| whole / 2 / count;
    limits(Space { kib: part(kib), inodes: inodes.map(part) })
}

/// What is left for VEs of a whole; of a small one half is, and that is told.
fn without(whole: u64, host: u64) -> (u64, bool) {
    if whole / 2 < host { (whole / 2, true) } else { (whole - host, false) }
}

fn limits(part: Space) -> (Pair, Pair) {
    // Without a bound: as many files as the usual disk of that size would have.
    let scaled = u128::from(part.kib) * u128::from(USUAL_INODES) / u128::from(USUAL.kib);
    let inodes = part.inodes.unwrap_or(u64::try_from(scaled).unwrap_or(u64::MAX));
    let soft = |hard: u64| Pair { barrier: hard / 11 * 10 + hard % 11 * 10 / 11, limit: hard };
    (soft(part.kib), soft(inodes))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Session, node};
    use super::*;
    use vzconf::ConfFile;

    fn divided(all: Space, count: u64) -> ((Pair, Pair), String) {
        let mut session = Session::default();
        let limits = session.run(|talk| divide(Path::new("/vz/private"), all, count, talk));
        (limits, session.err())
    }

    fn soft(barrier: u64, limit: u64) -> Pair {
        Pair { barrier, limit }
    }

    #[test]
    fn the_host_keeps_its_part_and_the_rest_is_promised_half() {
        // 110 GiB and 1.2 million inodes: 100 GiB and 1.1 million for 10 VEs.
        let all = Space { kib: 110 << 20, inodes: Some(1_200_000) };
        let ((space, inodes), told) = divided(all, 10);
        assert_eq!((space, inodes), (soft(4_766_254, 5_242_880), soft(50_000, 55_000)));
        assert_eq!(told, "");
    }

    #[test]
    fn a_disk_that_is_too_small_is_told() {
        let (limits, told) = divided(Space { kib: 2 << 20, inodes: Some(300_000) }, 9);
        assert_eq!(limits, (soft(204_800, 225_280), soft(80_000, 88_000)));
        assert_eq!(
            told,
            "WARNING: Recommended minimal size of partition holding /vz/private is 20 Gb!\n\
             WARNING: partition holding /vz/private do not have space required for 9 containers\n\
             The maximum allowed value is 2\nDefault disk space values will be used\n"
        );
    }

    #[test]
    fn inodes_without_a_bound_follow_the_size() {
        let ((space, inodes), told) = divided(Space { kib: 110 << 20, inodes: None }, 10);
        assert_eq!((space.limit, inodes.limit), (5_242_880, 2_048_000));
        assert_eq!(told, "");
    }

    #[test]
    fn the_disk_of_the_private_areas_is_looked_at() {
        for (private, dir) in [
            ("/vz/private/$VEID", "/vz/private"),
            ("/vz/ve-${VEID}/private", "/vz"),
            ("/$VEID", "/"),
            ("/srv/ve", "/srv"),
        ] {
            assert_eq!(holder(private), Path::new(dir), "{private}");
        }
        assert!(size(Path::new("/")).unwrap().kib > 0);
        let (_dir, paths) = node();
        for (conf, told) in [
            ("", "WARNING: unable to get VE_PRIVATE value from "),
            ("VE_PRIVATE=/nonexistent/$VEID\n", "WARNING: statfs on /nonexistent failed: No such file"),
        ] {
            let global = Config::without_node(&paths).with_sample(Path::new("x"), ConfFile::parse(conf));
            let mut session = Session::default();
            let limits = session.run(|talk| share(&global, 3, talk));
            assert_eq!(limits, (soft(204_800, 225_280), soft(80_000, 88_000)));
            assert!(session.err().starts_with(told), "{}", session.err());
            assert!(session.err().ends_with("\nDefault disk space values to be used.\n"));
        }
    }
}
