//! What to build: read from a template's name, completed by options.

use super::BuildError;

/// Shown when a name tells nothing.
pub(super) const KNOWN: &str = "tiny, debian-12-x86_64-minimal, debian-13-x86_64-minimal, debian-12-i386-minimal, debian-12-x86_64-sysvinit, \
     debian-12-x86_64-openrc, ubuntu-24.04-x86_64-minimal";

/// What init a Debian-like template boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// systemd.
    #[default]
    Systemd,
    /// System V init with the classic scripts.
    Sysvinit,
    /// OpenRC under System V init.
    Openrc,
}

impl Init {
    /// By its name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "systemd" => Self::Systemd,
            "sysvinit" => Self::Sysvinit,
            "openrc" => Self::Openrc,
            _ => return None,
        })
    }

    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            // logind needs the bus.
            Self::Systemd => &["systemd-sysv", "dbus"],
            Self::Sysvinit => &["sysvinit-core", "initscripts", "sysv-rc", "insserv", "startpar"],
            Self::Openrc => &["sysvinit-core", "openrc", "initscripts"],
        }
    }
}

/// Options of `vztmpl build`; what is not given follows from the name.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `bookworm`, `noble`.
    pub suite: Option<String>,
    /// `x86_64` or `amd64`, `i386`, `aarch64` or `arm64`.
    pub arch: Option<String>,
    /// mmdebstrap's: `minbase`, `apt`, `essential`, `important`, `standard`.
    pub variant: Option<String>,
    /// systemd unless told otherwise.
    pub init: Option<Init>,
    /// More packages.
    pub include: Vec<String>,
    /// Archives instead of the host's.
    pub mirrors: Vec<String>,
    /// `main` unless told otherwise.
    pub components: Vec<String>,
}

/// A template of Debian's kind, completely described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub(super) distribution: String,
    pub(super) suite: String,
    /// As dpkg calls it.
    pub(super) arch: &'static str,
    pub(super) variant: String,
    pub(super) init: Init,
    pub(super) include: Vec<String>,
    pub(super) mirrors: Vec<String>,
    pub(super) components: Vec<String>,
}

/// Suites by distribution and version, so that names say enough.
const SUITES: &[(&str, &str, &str)] = &[
    ("debian", "11", "bullseye"),
    ("debian", "12", "bookworm"),
    ("debian", "13", "trixie"),
    ("debian", "14", "forky"),
    ("debian", "sid", "sid"),
    ("ubuntu", "20.04", "focal"),
    ("ubuntu", "22.04", "jammy"),
    ("ubuntu", "24.04", "noble"),
    ("ubuntu", "26.04", "resolute"),
];

/// What a minimal container is expected to have.
const PACKAGES: [&str; 5] = ["iproute2", "iputils-ping", "netbase", "openssh-server", "procps"];
const VARIANTS: [&str; 8] =
    ["minbase", "apt", "essential", "required", "important", "standard", "buildd", "debootstrap"];

impl Recipe {
    /// From a name such as `debian-12-x86_64-minimal` and options, which win.
    ///
    /// # Errors
    /// [`BuildError::UnknownName`], [`BuildError::BadOption`].
    pub fn new(name: &str, options: &Options) -> Result<Self, BuildError> {
        let bad = |reason: String| BuildError::BadOption { reason };
        let parts: Vec<&str> = name.split('-').collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let known = SUITES.iter().find(|(distribution, version, suite)| {
            part(0) == *distribution && (part(1) == *version || part(1) == *suite)
        });
        let suite = match (&options.suite, known) {
            (Some(suite), _) => suite.clone(),
            (None, Some((_, _, suite))) => (*suite).to_owned(),
            (None, None) => return Err(BuildError::UnknownName { name: name.to_owned(), known: KNOWN }),
        };
        if suite.is_empty() || !suite.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b)) {
            return Err(bad(format!("bad suite '{suite}'")));
        }
        let by_suite =
            SUITES.iter().find(|(_, _, known)| *known == suite).map(|(distribution, _, _)| *distribution);
        let arch = match &options.arch {
            Some(word) => dpkg_arch(word).ok_or_else(|| bad(format!("unknown architecture '{word}'")))?,
            None => parts.iter().skip(1).find_map(|word| dpkg_arch(word)).unwrap_or_else(host_arch),
        };
        let variant = options.variant.clone().unwrap_or_else(|| "minbase".to_owned());
        if !VARIANTS.contains(&variant.as_str()) {
            return Err(bad(format!("unknown variant '{variant}' (known: {})", VARIANTS.join(", "))));
        }
        let init = options.init.or_else(|| parts.iter().skip(2).find_map(|word| Init::parse(word)));
        let package =
            |name: &&String| !name.is_empty() && !name.starts_with('-') && !name.contains([',', ' ']);
        if let Some(odd) = options.include.iter().find(|name| !package(name)) {
            return Err(bad(format!("bad package name '{odd}'")));
        }
        Ok(Self {
            distribution: by_suite.unwrap_or(part(0)).to_owned(),
            suite,
            arch,
            variant,
            init: init.unwrap_or_default(),
            include: options.include.clone(),
            mirrors: options.mirrors.clone(),
            components: options.components.clone(),
        })
    }

    /// Everything to be installed beyond the variant.
    pub(super) fn packages(&self) -> Vec<&str> {
        let own = self.init.packages().iter().chain(&PACKAGES).copied();
        own.chain(self.include.iter().map(String::as_str)).collect()
    }
}

fn dpkg_arch(word: &str) -> Option<&'static str> {
    Some(match word {
        "x86_64" | "amd64" => "amd64",
        "i386" | "x86" | "i686" => "i386",
        "aarch64" | "arm64" => "arm64",
        _ => return None,
    })
}

fn host_arch() -> &'static str {
    dpkg_arch(std::env::consts::ARCH).unwrap_or("amd64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Recipe {
        Recipe::new(name, &Options::default()).unwrap()
    }

    #[test]
    fn names_tell_what_to_build() {
        let recipe = of("debian-12-x86_64-minimal");
        assert_eq!((recipe.suite.as_str(), recipe.arch, recipe.init), ("bookworm", "amd64", Init::Systemd));
        assert_eq!(of("debian-13-i386-minimal").arch, "i386");
        assert_eq!(of("debian-12-x86_64-openrc").init, Init::Openrc);
        assert_eq!(of("ubuntu-noble-x86_64").distribution, "ubuntu");
        assert!(Recipe::new("centos-6-x86_64", &Options::default()).is_err());
    }

    #[test]
    fn options_win() {
        let options = Options {
            suite: Some("trixie".into()),
            arch: Some("i386".into()),
            init: Some(Init::Sysvinit),
            include: vec!["vim-tiny".into()],
            ..Options::default()
        };
        let recipe = Recipe::new("my-own", &options).unwrap();
        assert_eq!(
            (recipe.distribution.as_str(), recipe.suite.as_str(), recipe.arch),
            ("debian", "trixie", "i386")
        );
        assert!(recipe.packages().contains(&"vim-tiny") && recipe.packages().contains(&"sysvinit-core"));
        for bad in [
            Options { arch: Some("vax".into()), ..options.clone() },
            Options { suite: Some("a b".into()), ..options.clone() },
            Options { variant: Some("huge".into()), ..options.clone() },
            Options { include: vec!["a,b".into()], ..options },
        ] {
            assert!(matches!(Recipe::new("x", &bad), Err(BuildError::BadOption { .. })), "{bad:?}");
        }
    }
}
