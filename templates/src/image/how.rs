//! How an image is mounted for its VE: `MOUNT_OPTS`, `--skip-fsck`.

use vzsys::mount::Opt;

/// Bits of mount_setattr(2), <linux/mount.h>.
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
/// All that says when times of access are written.
const ATIME: u64 = 0x70 | NODIRATIME;

/// How an image is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// For the file system: used by the first mount of the image, and shared by those that come while that is there.
    options: Vec<(String, Option<String>)>,
    /// For the mount: bits of mount_setattr(2).
    attrs: Option<u64>,
    /// Limits of users and groups hold, where the file system counts them.
    pub user_quota: bool,
    /// Mount one that was not unmounted cleanly as it is; the kernel replays its journal.
    pub skip_check: bool,
}

/// An option that is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mount option '{option}' is not for the image of a container: {reason}")]
pub struct BadOption {
    option: String,
    reason: &'static str,
}

impl How {
    /// As usual.
    pub const USUAL: Self = Self { options: Vec::new(), attrs: None, user_quota: false, skip_check: false };

    /// With limits of users and groups, or without.
    pub(super) fn counting(user_quota: bool) -> Self {
        Self { user_quota, ..Self::USUAL }
    }

    /// What `MOUNT_OPTS` says: words of mount(8) and ext4(5), separated by commas. Those that no one here knows are the
    /// kernel's to refuse.
    ///
    /// # Errors
    /// [`BadOption`].
    pub fn parse(text: &str) -> Result<Self, BadOption> {
        let mut how = Self::USUAL;
        for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let bad = |reason| BadOption { option: option.to_owned(), reason };
            match option {
                "defaults" | "rw" => {}
                "relatime" => how.attrs = Some(0),
                "noatime" => how.attrs = Some(how.attrs.unwrap_or(0) | NOATIME),
                "strictatime" | "atime" => how.attrs = Some(how.attrs.unwrap_or(0) | STRICTATIME),
                "nodiratime" => how.attrs = Some(how.attrs.unwrap_or(0) | NODIRATIME),
                "ro" => return Err(bad("it must be able to write its files")),
                "nosuid" | "nodev" | "noexec" => return Err(bad("its programs would not work")),
                "loop" | "noload" | "norecovery" | "dax" => return Err(bad("files would be lost")),
                _ if option.starts_with("errors=") => {
                    return Err(bad("what it finds wrong must not stop the host"));
                }
                _ => how.options.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.to_owned(), None),
                }),
            }
        }
        if how.attrs.is_some_and(|attrs| attrs & NOATIME != 0 && attrs & STRICTATIME != 0) {
            let reason = "noatime says the opposite";
            return Err(BadOption { option: "strictatime".to_owned(), reason });
        }
        Ok(how)
    }

    /// For the file system.
    pub(super) fn options(&self) -> Vec<Opt> {
        let option = |(key, value): &(String, Option<String>)| match value {
            Some(value) => Opt::value(key, value),
            None => Opt::flag(key),
        };
        let quota = ["usrquota", "grpquota"].into_iter().filter(|_| self.user_quota).map(Opt::flag);
        self.options.iter().map(option).chain(quota).collect()
    }

    /// For the mount: bits to set, and to clear before.
    pub(crate) fn attrs(&self) -> Option<(u64, u64)> {
        self.attrs.map(|attrs| (attrs, ATIME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_the_mount_or_to_the_file_system() {
        let how = How::parse("noatime,nodelalloc,,commit=60,defaults, nodiratime").unwrap();
        assert_eq!(how.attrs(), Some((NOATIME | NODIRATIME, ATIME)));
        let words = [("nodelalloc".to_owned(), None), ("commit".to_owned(), Some("60".to_owned()))];
        assert_eq!(how.options, words);
        assert_eq!(How::parse("").unwrap(), How::USUAL);
        assert_eq!(How::parse("relatime").unwrap().attrs(), Some((0, ATIME)));
    }

    #[test]
    fn what_would_harm_is_refused() {
        for text in ["ro", "errors=panic", "noatime,noload", "nosuid", "noatime,strictatime"] {
            let error = How::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not for the image"), "{error}");
        }
    }
}
