//! The guest's own files, as the verbs use them. Everything here treats the tree as hostile and works
//! with the file-system ids of the VE's root, so that new files belong to it.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use templates::dist::{self, DistError, DnsParams, Guest, GuestRoot, Identity};
use templates::layout::{self, Layout};
use vzconf::{Config, Exit};
use vzsys::SysError;
use vzsys::idmap::{IdRange, as_ve_root};
use vzsys::launch::RunFile;
use vzsys::mount::Detached;

use crate::error::{Doing, Error, Result};
use crate::node::Ve;
use crate::state::State;

/// A guest and what was read from its files before init runs.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) guest: Guest,
    /// What `/etc/hostname` says.
    pub(crate) hostname: Option<String>,
}

/// A failed call or a failed action, while the ids are switched.
enum Failure {
    Call(SysError),
    Dist(DistError),
}

impl From<SysError> for Failure {
    fn from(error: SysError) -> Self {
        Self::Call(error)
    }
}

impl From<DistError> for Failure {
    fn from(error: DistError) -> Self {
        Self::Dist(error)
    }
}

/// Works in a guest's tree as the VE's root.
fn inside<T>(
    ve: &Ve<'_>,
    ids: Option<IdRange>,
    work: impl FnOnce() -> std::result::Result<T, DistError>,
) -> Result<T> {
    as_ve_root(ids, || work().map_err(Failure::from)).map_err(|failure| match failure {
        Failure::Call(source) => Error::Call {
            what: format!("cannot act as root of container {}", ve.ctid),
            source,
            exit: Exit::System,
        },
        Failure::Dist(source) => Error::Guest { ctid: ve.ctid, source },
    })
}

/// The mounted root.
fn root(ve: &Ve<'_>) -> Result<GuestRoot> {
    GuestRoot::open(&ve.root()?).map_err(|source| Error::Guest { ctid: ve.ctid, source })
}

fn look(ve: &Ve<'_>, root: &GuestRoot) -> Found {
    let guest = Guest::detect(root, ve.config.ostemplate(), &ve.node.paths.dists_dir());
    let name = root.text("/etc/hostname");
    let hostname = name.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    Found { guest, hostname: hostname.filter(|name| name.len() <= 64).map(str::to_owned) }
}

/// What kind of guest lies in the mounted root.
pub(crate) fn detect(ve: &Ve<'_>, ids: Option<IdRange>) -> Result<Found> {
    let root = root(ve)?;
    let found = inside(ve, ids, || Ok(look(ve, &root)))?;
    if let Some(warning) = &found.guest.warning {
        ve.say(1, warning);
    }
    Ok(found)
}

/// Tells a guest its name, resolver and addresses, and makes it bootable here: before each start.
/// What fails does not keep the VE from starting, as in OpenVZ; it is said.
pub(crate) fn configure(ve: &Ve<'_>, ids: Option<IdRange>, found: &Found) -> Result<()> {
    let root = root(ve)?;
    let failures = inside(ve, ids, || {
        let mut failures = tell(&ve.config, &root, &found.guest);
        failures.extend(dist::pre_start(&root, &found.guest).err());
        Ok(failures)
    })?;
    warn(ve, failures);
    Ok(())
}

/// The same for a running guest whose configuration changed.
pub(crate) fn reconfigure(ve: &Ve<'_>, state: &State) -> Result<()> {
    let root = root(ve)?;
    let failures = inside(ve, state.ids, || {
        let guest = look(ve, &root).guest;
        Ok(tell(&ve.config, &root, &guest))
    })?;
    warn(ve, failures);
    Ok(())
}

fn warn(ve: &Ve<'_>, failures: Vec<DistError>) {
    for failure in failures {
        ve.say(-1, &format!("WARNING: {}", crate::describe(&failure)));
    }
}

fn tell(config: &Config, root: &GuestRoot, guest: &Guest) -> Vec<DistError> {
    let ips: Vec<IpAddr> = config.ip_addresses().iter().map(|ip| ip.addr).collect();
    let mut failures = Vec::new();
    if let Some(name) = config.hostname() {
        failures.extend(dist::set_hostname(root, guest, name, ips.first().copied()).err());
    }
    let (servers, domains) = (config.nameservers(), config.searchdomains());
    if !servers.is_empty() || !domains.is_empty() {
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let set = DnsParams::expand(&servers, &domains, &host)
            .and_then(|params| dist::set_dns(root, guest, &params));
        failures.extend(set.err());
    }
    failures.extend(dist::set_addresses(root, guest, &ips, &nics(config)).err());
    failures
}

/// Gives a running VE its configured name.
pub(crate) fn set_live_hostname(ve: &Ve<'_>, state: &State) -> Result<()> {
    let Some(name) = ve.config.hostname() else { return Ok(()) };
    let what = || format!("cannot name container {}", ve.ctid);
    let Some(init) = state.init.open().doing(Exit::System, what)? else { return Ok(()) };
    vzsys::join::set_hostname(&init, name).doing(Exit::BadHostname, what)
}

/// What the guest finds in `/run` when it boots.
pub(crate) fn run_files(ve: &Ve<'_>, found: &Found) -> Vec<RunFile> {
    dist::run_files(&found.guest, &nics(&ve.config))
}

/// The VE's interfaces besides `venet0`.
fn nics(config: &Config) -> Vec<String> {
    config.netif().into_iter().map(|netif| netif.ifname).chain(config.netdev()).collect()
}

/// The tree of a private area, mounted nowhere that anybody sees.
fn hidden(kind: Layout, private: &Path, bases: &Path) -> Result<Detached> {
    Ok(layout::mount_hidden(kind, private, bases)?)
}

fn hidden_root(tree: &Detached, what: impl FnOnce() -> String) -> Result<GuestRoot> {
    let fd = tree.as_fd().try_clone_to_owned().doing(Exit::FsCantMount, what)?;
    Ok(GuestRoot::from_fd(fd))
}

/// Once, when the VE is created: no empty root password, own identity.
pub(crate) fn post_create(ve: &Ve<'_>, kind: Layout, private: &Path) -> Result<()> {
    layout::furnish(kind, private, &ve.node.bases(), |tree| give_identity(ve, tree, private))
}

/// The same for what is brought from elsewhere: it has an identity and keeps it.
pub(crate) fn post_import(ve: &Ve<'_>, kind: Layout, private: &Path) -> Result<()> {
    layout::furnish(kind, private, &ve.node.bases(), |tree| {
        let root = hidden_root(tree, || format!("cannot open {}", private.display()))?;
        dist::post_import(&root).map(drop).map_err(|source| Error::Guest { ctid: ve.ctid, source })
    })
}

fn give_identity(ve: &Ve<'_>, tree: &Detached, private: &Path) -> Result<()> {
    let root = hidden_root(tree, || format!("cannot open {}", private.display()))?;
    let found = look(ve, &root);
    Identity::random()
        .and_then(|identity| dist::post_create(&root, &found.guest, &identity))
        .map(drop)
        .map_err(|source| Error::Guest { ctid: ve.ctid, source })
}

/// The same for a VE that is made from another one, in its private area.
pub(crate) fn new_identity(ve: &Ve<'_>, kind: Layout, private: &Path) -> Result<()> {
    if layout::image(kind, private)?.is_none() {
        return post_create(ve, kind, private);
    }
    // An image that has been in use is mounted as it is.
    let tree = hidden(kind, private, &ve.node.bases())?;
    give_identity(ve, &tree, private)
}

/// Sets a user's password in a VE, running or not.
pub(crate) fn set_password(ve: &Ve<'_>, state: Option<&State>, user: &str, password: &str) -> Result<()> {
    let failed = |source| Error::Refused {
        message: format!("Password change failed: {}", crate::describe(&source)),
        hint: None,
        exit: Exit::ChangePass,
    };
    match state {
        Some(state) => {
            let root = root(ve)?;
            let set = inside(ve, state.ids, || Ok(dist::set_user_password(&root, user, password)))?;
            set.map(drop).map_err(failed)
        }
        None => {
            let private = ve.existing_private()?;
            let tree = hidden(ve.layout(&private)?, &private, &ve.node.bases())?;
            let root = hidden_root(&tree, || format!("cannot open {}", private.display()))?;
            dist::set_user_password(&root, user, password).map(drop).map_err(failed)
        }
    }
}
