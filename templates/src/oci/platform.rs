//! Which of an image's platforms is wanted.

use std::fmt;
use std::str::FromStr;

/// A processor architecture, in Go's words: `amd64`, `arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub(super) arch: String,
    pub(super) variant: Option<String>,
}

/// Go's word, uname's words.
const NAMES: &[(&str, &[&str])] = &[
    ("amd64", &["x86_64", "x86-64"]),
    ("386", &["i386", "i486", "i586", "i686", "x86"]),
    ("arm64", &["aarch64"]),
    ("arm", &["armhf", "armv7l", "armel", "armv6l"]),
    ("riscv64", &[]),
    ("ppc64le", &["ppc64el"]),
    ("s390x", &[]),
    ("loong64", &["loongarch64"]),
];

impl FromStr for Platform {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let word = word.strip_prefix("linux/").unwrap_or(word);
        let (arch, variant) = match word.split_once('/') {
            Some((arch, variant)) => (arch, Some(variant.to_owned())),
            None => (word, None),
        };
        let known = NAMES.iter().find(|(go, others)| *go == arch || others.contains(&arch));
        match known {
            Some((go, _)) => Ok(Self { arch: (*go).to_owned(), variant }),
            None => {
                let known: Vec<&str> = NAMES.iter().map(|(go, _)| *go).collect();
                Err(format!("unknown architecture '{}' (known: {})", word.escape_debug(), known.join(", ")))
            }
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arch)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// This host's.
    #[must_use]
    pub fn host() -> Self {
        std::env::consts::ARCH
            .parse()
            .unwrap_or_else(|_| Self { arch: std::env::consts::ARCH.to_owned(), variant: None })
    }

    /// As the programs of a tree tell it (and `vztmpl list`).
    pub(super) fn machine(&self) -> &str {
        match self.arch.as_str() {
            "amd64" => "x86_64",
            "386" => "i386",
            "arm64" => "aarch64",
            other => other,
        }
    }

    /// Whether this host runs programs for it.
    pub(super) fn runs_here(&self) -> bool {
        let host = Self::host();
        self.arch == host.arch || (host.arch == "amd64" && self.arch == "386")
    }

    /// How well a platform fits: 0 is best.
    pub(super) fn rank(&self, offered: &Self) -> Option<u32> {
        if self.arch != offered.arch {
            return None;
        }
        // What any processor of the kind runs.
        let plain = match offered.arch.as_str() {
            "amd64" => "v1",
            "arm64" => "v8",
            _ => "",
        };
        match (&self.variant, &offered.variant) {
            (wanted, got) if wanted == got => Some(0),
            (None, Some(got)) if got == plain => Some(1),
            (Some(wanted), None) if wanted == plain => Some(1),
            // 32-bit ARM: an older one runs on a newer one, and nobody said which is here.
            (None, Some(_)) if offered.arch == "arm" => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(word: &str) -> Platform {
        word.parse().unwrap()
    }

    #[test]
    fn words_of_both_worlds_are_known() {
        assert_eq!(of("x86_64"), of("amd64"));
        assert_eq!(of("linux/arm/v7").to_string(), "arm/v7");
        assert_eq!(of("i686").machine(), "i386");
        assert!("vax".parse::<Platform>().is_err());
        assert!(Platform::host().runs_here());
    }

    #[test]
    fn the_plain_variant_is_taken_unless_another_is_asked_for() {
        assert_eq!(of("amd64").rank(&of("amd64")), Some(0));
        assert_eq!(of("arm64").rank(&of("arm64/v8")), Some(1));
        assert_eq!(of("amd64").rank(&of("amd64/v3")), None);
        assert_eq!(of("amd64/v3").rank(&of("amd64/v3")), Some(0));
        assert_eq!(of("amd64").rank(&of("arm64")), None);
        assert_eq!(of("arm").rank(&of("arm/v6")), Some(2));
    }
}
