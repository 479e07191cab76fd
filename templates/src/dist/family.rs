//! Which distribution a guest is: what its own files say, else the template's name.

use std::fmt;
use std::path::Path;

use super::root::GuestRoot;
use super::text;

/// Distributions that are configured alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Debian, Ubuntu and their derivatives.
    Debian,
    /// Red Hat, CentOS, Alma, Rocky, Fedora, Scientific, Oracle, Amazon, ALT, Mandrake, Owl.
    RedHat,
    /// SUSE and openSUSE.
    Suse,
    /// Alpine and postmarketOS.
    Alpine,
    /// Arch and Manjaro.
    Arch,
    /// Gentoo and Funtoo.
    Gentoo,
    /// None of them: only what is harmless everywhere is written.
    Unknown,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::RedHat => "redhat",
            Self::Suse => "suse",
            Self::Alpine => "alpine",
            Self::Arch => "arch",
            Self::Gentoo => "gentoo",
            Self::Unknown => "unknown",
        })
    }
}

/// Names as in os-release(5) and as in the dist configurations of the original vzctl.
const NAMES: &[(&str, Family)] = &[
    ("debian", Family::Debian),
    ("ubuntu", Family::Debian),
    ("devuan", Family::Debian),
    ("linuxmint", Family::Debian),
    ("raspbian", Family::Debian),
    ("kali", Family::Debian),
    ("rhel", Family::RedHat),
    ("redhat", Family::RedHat),
    ("centos", Family::RedHat),
    ("fedora", Family::RedHat),
    ("almalinux", Family::RedHat),
    ("rocky", Family::RedHat),
    ("ol", Family::RedHat),
    ("oracle", Family::RedHat),
    ("amzn", Family::RedHat),
    ("scientific", Family::RedHat),
    ("virtuozzo", Family::RedHat),
    ("vzlinux", Family::RedHat),
    ("cloudlinux", Family::RedHat),
    ("mandrake", Family::RedHat),
    ("owl", Family::RedHat),
    ("altlinux", Family::RedHat),
    ("suse", Family::Suse),
    ("opensuse", Family::Suse),
    ("sles", Family::Suse),
    ("sle", Family::Suse),
    ("sled", Family::Suse),
    ("alpine", Family::Alpine),
    ("postmarketos", Family::Alpine),
    ("arch", Family::Arch),
    ("archlinux", Family::Arch),
    ("archarm", Family::Arch),
    ("manjaro", Family::Arch),
    ("gentoo", Family::Gentoo),
    ("funtoo", Family::Gentoo),
    ("slackware", Family::Unknown),
];

/// Files that only one family has, for guests older than os-release (2012).
const MARKERS: &[(&str, Family)] = &[
    ("/etc/alpine-release", Family::Alpine),
    ("/etc/gentoo-release", Family::Gentoo),
    ("/etc/arch-release", Family::Arch),
    ("/etc/SuSE-release", Family::Suse),
    ("/etc/redhat-release", Family::RedHat),
    ("/etc/altlinux-release", Family::RedHat),
    ("/etc/mandrake-release", Family::RedHat),
    ("/etc/debian_version", Family::Debian),
];

/// What a template's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The family, or [`Family::Unknown`].
    pub family: Family,
    /// A line for the user when the name says nothing.
    pub warning: Option<String>,
}

fn known(name: &str) -> Option<Family> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, family)| *family)
}

/// The family by a template's name, of which the last `-part` is cut until it is known:
/// `centos-6-x86_64`, `centos-6`, `centos`.
#[must_use]
pub fn by_template(ostemplate: Option<&str>, dists: &Path) -> Named {
    let default = dists.join("default");
    let Some(template) = ostemplate.filter(|name| !name.is_empty()) else {
        let text = "Warning: distribution not specified in CT config, using defaults from";
        return Named { family: Family::Unknown, warning: Some(format!("{text} {}", default.display())) };
    };
    let base = template.rsplit('/').next().unwrap_or(template);
    let mut name = base;
    loop {
        if let Some(family) = known(name) {
            return Named { family, warning: None };
        }
        match name.rsplit_once('-') {
            Some((shorter, _)) => name = shorter,
            None => break,
        }
    }
    let text = format!("Warning: configuration file for distribution {base} not found, using defaults from");
    Named { family: Family::Unknown, warning: Some(format!("{text} {}", default.display())) }
}

/// The family by the guest's own files, if they tell.
pub(super) fn by_files(root: &GuestRoot) -> Option<Family> {
    let mut release = root.text("/etc/os-release");
    if release.is_empty() {
        release = root.text("/usr/lib/os-release");
    }
    let words = |key| text::value(&release, key).unwrap_or_default().split_whitespace();
    let by_release = words("ID").chain(words("ID_LIKE")).find_map(by_id);
    by_release.or_else(|| MARKERS.iter().find(|(path, _)| root.exists(path)).map(|(_, family)| *family))
}

/// `ID=opensuse-leap` counts as `opensuse`.
fn by_id(id: &str) -> Option<Family> {
    known(id).or_else(|| id.split_once('-').and_then(|(name, _)| known(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_names_lose_their_last_part_until_known() {
        for (template, family, warns) in [
            ("centos-6-x86_64", Family::RedHat, false),
            ("debian-12", Family::Debian, false),
            ("/vz/template/cache/fedora-core-6", Family::RedHat, false),
            ("suse-8.2", Family::Suse, false),
            ("gentoo", Family::Gentoo, false),
            ("plan9-x86", Family::Unknown, true),
        ] {
            let named = by_template(Some(template), Path::new("/etc/vz/dists"));
            assert_eq!((named.family, named.warning.is_some()), (family, warns), "{template}");
        }
        let none = by_template(None, Path::new("/etc/vz/dists"));
        let text =
            "Warning: distribution not specified in CT config, using defaults from /etc/vz/dists/default";
        assert_eq!(none.warning.unwrap(), text);
        let odd = by_template(Some("x/plan9-x86"), Path::new("/d")).warning.unwrap();
        assert_eq!(
            odd,
            "Warning: configuration file for distribution plan9-x86 not found, using defaults from /d/default"
        );
    }
}
