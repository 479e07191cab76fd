//! What is configured for one VE, all sources merged.
mod merge;
mod values;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use self::merge::merge;
use crate::{ConfFile, Ctid, Error, Paths, canonical_key};

/// Keys that belong to one VE and mean nothing in vz.conf.
const VE_ONLY: [&str; 8] =
    ["NAME", "IP_ADDRESS", "NETIF", "NETDEV", "VEID", "ORIGIN_SAMPLE", "DESCRIPTION", "HOSTNAME"];

/// The merged view: overrides, then `<CTID>.conf`, then `vz.conf`.
#[derive(Debug, Clone)]
pub struct Config {
    paths: Paths,
    ctid: Option<Ctid>,
    global: BTreeMap<String, String>,
    ve: BTreeMap<String, String>,
    over: BTreeMap<String, String>,
    file: Option<ConfFile>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads `vz.conf` only.
    ///
    /// # Errors
    /// [`Error::NoGlobalConfig`].
    pub fn global(paths: &Paths) -> Result<Config, Error> {
        let path = paths.vz_conf();
        let file = match ConfFile::load(&path) {
            Ok(file) => file,
            Err(Error::Read { path, source }) => return Err(Error::NoGlobalConfig { path, source }),
            Err(other) => return Err(other),
        };
        let mut warnings = Vec::new();
        let mut global = merge(&path, &file, &mut warnings);
        if global.remove("NETFILTER").is_some() {
            warnings.push(format!("{}: NETFILTER is ignored here", path.display()));
            warnings.push("set it in the config of each VE, or in the sample configs".to_string());
        }
        // One directory for all VEs would be destroyed with any of them.
        for key in ["VE_ROOT", "VE_PRIVATE"] {
            let shared = |value: &String| {
                !value.is_empty() && !["$VEID", "${VEID}"].iter().any(|id| value.contains(id))
            };
            if global.get(key).is_some_and(shared) {
                global.remove(key);
                warnings.push(format!("{}: {key} must contain $VEID, ignored", path.display()));
            }
        }
        Ok(Config { global, warnings, ..Config::without_node(paths) })
    }

    /// Reads `vz.conf` and the VE's config file; a VE without one is no error (see [`Config::exists`]).
    ///
    /// # Errors
    /// [`Error::NoGlobalConfig`], [`Error::Read`].
    pub fn load(paths: &Paths, ctid: Ctid) -> Result<Config, Error> {
        Config::global(paths)?.for_ve(ctid)
    }

    /// The same for a `vz.conf` read before, so that a listing reads it once.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn for_ve(&self, ctid: Ctid) -> Result<Config, Error> {
        let path = self.paths.ve_conf(ctid);
        let file = match ConfFile::load(&path) {
            Ok(file) => Some(file),
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(other) => return Err(other),
        };
        Ok(self.with_file(ctid, file))
    }

    /// A node of which nothing is known, as if its `vz.conf` were empty.
    #[must_use]
    pub fn without_node(paths: &Paths) -> Config {
        Config {
            paths: paths.clone(),
            ctid: None,
            global: BTreeMap::new(),
            ve: BTreeMap::new(),
            over: BTreeMap::new(),
            file: None,
            warnings: Vec::new(),
        }
    }

    /// The merged view of a VE whose own config is `file`, wherever that came from (a sample, a snapshot, a change not yet saved).
    #[must_use]
    pub fn with_file(&self, ctid: Ctid, file: Option<ConfFile>) -> Config {
        self.merged(Some(ctid), &self.paths.ve_conf(ctid), file)
    }

    /// The merged view of a config that no VE has yet, such as a sample.
    #[must_use]
    pub fn with_sample(&self, path: &Path, file: ConfFile) -> Config {
        self.merged(None, path, Some(file))
    }

    fn merged(&self, ctid: Option<Ctid>, path: &Path, file: Option<ConfFile>) -> Config {
        let mut config = self.clone();
        config.ctid = ctid;
        config.ve.clear();
        config.over.clear();
        if let Some(file) = &file {
            config.ve = merge(path, file, &mut config.warnings);
        }
        config.file = file;
        let all = config.own("IP_ADDRESS").map_or(0, |list| list.split_whitespace().count());
        if config.ip_addresses().len() < all {
            let text = "IPv6 support is disabled (IPV6 in vz.conf), IPv6 addresses are left out";
            config.warnings.push(format!("{}: {text}", path.display()));
        }
        config
    }

    /// Puts a value above all files, as a command line does.
    pub fn set_override(&mut self, key: &str, value: &str) {
        self.over.insert(canonical_key(key).to_string(), value.to_string());
    }

    /// The paths this was read from.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The VE, unless this is only the global config.
    #[must_use]
    pub fn ctid(&self) -> Option<Ctid> {
        self.ctid
    }

    /// Whether the VE has a config file.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// The VE's own config file as read.
    #[must_use]
    pub fn file(&self) -> Option<&ConfFile> {
        self.file.as_ref()
    }

    /// What was skipped in the files, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The value in effect.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let key = canonical_key(key);
        let own = self.over.get(key).or_else(|| self.ve.get(key));
        own.or_else(|| if self.inherits(key) { self.global.get(key) } else { None }).map(String::as_str)
    }

    fn inherits(&self, key: &str) -> bool {
        self.ctid.is_none() || !(VE_ONLY.contains(&key) || (key == "VE_LAYOUT" && self.file.is_some()))
    }

    /// The value of the node: vz.conf only, whatever the VE says.
    #[must_use]
    pub fn node(&self, key: &str) -> Option<&str> {
        self.global.get(canonical_key(key)).map(String::as_str)
    }

    /// The value in the VE's own config file, if it is valid.
    #[must_use]
    pub fn own(&self, key: &str) -> Option<&str> {
        self.ve.get(canonical_key(key)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
