//! `vzctl create --from`: a VE made from another one, or from a snapshot of it.
//!
//! ```text
//!  lock both ─▶ mark ─▶ PRIVATE.tmp (shared, or copied; running: frozen for a moment) ─▶ identity ─▶ CTID.conf
//!            ─▶ rename to PRIVATE (COMMIT) ─▶ unmark
//! ```

use std::path::Path;

use templates::cache::Cache;
use templates::layout::{self, Layout};
use templates::snapshot::{Id, Snapshots, Target};
use vzconf::change::Changes;
use vzconf::{ConfFile, Exit, NetIf, params};
use vzsys::fault;

use crate::create::{change_node, complete};
use crate::creating::{self, Mark};
use crate::dismantle;
use crate::error::{Doing, Error, Result};
use crate::guest;
use crate::node::Ve;
use crate::snapshot::{Place, failed, frozen};
use crate::{handover, mount, quota};

/// What to make.
#[derive(Debug, Default)]
pub struct Options {
    /// `--from`: a CTID or name, and perhaps `@` with the id or name of a snapshot.
    pub from: String,
    /// `--keep-identity`.
    pub keep_identity: bool,
    /// Every other option.
    pub changes: Changes,
}

/// What a clone does not have of its original: addresses are unique, devices are given once, ids are its own.
const NOT_TAKEN: [&str; 9] =
    ["IP_ADDRESS", "HOSTNAME", "NAME", "DESCRIPTION", "NETIF", "NETDEV", "PCI", "LOCAL_UID", "LOCAL_GID"];

/// Makes a VE from another one, running or stopped, or from one of its snapshots.
///
/// # Errors
/// 9 somebody works on the original, 21 there is none, 44 private area exists, 48 private area, 131 name, 82 a
/// configuration is there, 156 no such snapshot. Nothing is left behind.
pub fn clone(ve: &Ve<'_>, options: &Options) -> Result<()> {
    let (word, kept) = match options.from.split_once('@') {
        Some((word, kept)) => (word, Some(kept)),
        None => (options.from.as_str(), None),
    };
    let ctid = ve.node.find(word)?;
    if ctid == ve.ctid || ctid.is_host() {
        return Err(Error::refused(Exit::InvalidValue, format!("Bad parameter for --from: {word}")));
    }
    let (lock, original) = ve.node.hold_existing(ctid, "clone")?;
    let done = from(ve, &original, kept, options);
    lock.release()?;
    done?;
    ve.say(0, "Container private area was created");
    Ok(())
}

fn from(ve: &Ve<'_>, original: &Ve<'_>, kept: Option<&str>, options: &Options) -> Result<()> {
    handover::check(ve, true)?;
    dismantle::mend(original)?;
    let place = Place::of(original)?;
    let all = Snapshots::open(place.area(original)).map_err(failed(Exit::CreateSnapshot))?;
    let of = kept.map(|word| find(&all, word)).transpose()?;
    if of.is_none() && original.mounted() && original.running().is_none() {
        let message = format!("Container {} is mounted: its files may change meanwhile", original.ctid);
        return Err(Error::refused(Exit::FsMounted, message));
    }
    let draft = Draft::new(ve, original, &all, of, options)?;
    mount::shut(ve, &draft.mark.private)?;
    mount::warn_if_reachable(ve, &draft.mark.private, place.layout);
    if let Err(error) = build(ve, original, &all, of, &draft, options) {
        return Err(error.with_cleanup(draft.mark.undo(ve)));
    }
    Ok(())
}

/// A snapshot by its id, or by its name if only one has it.
fn find(all: &Snapshots<'_>, word: &str) -> Result<Id> {
    let items = all.tree().items();
    if let Ok(id) = word.parse::<Id>()
        && items.iter().any(|item| item.id == id)
    {
        return Ok(id);
    }
    let named: Vec<Id> = items.iter().filter(|item| item.name == word).map(|item| item.id).collect();
    let ctid = all.area().ctid;
    match named.as_slice() {
        [id] => Ok(*id),
        [] => {
            let hint = format!("Its snapshots: vzctl snapshot-list {ctid}");
            let message = format!("Container {ctid} has no snapshot '{word}'");
            Err(Error::advised(Exit::CreateSnapshot, message, hint))
        }
        _ => {
            let message = format!("Container {ctid} has {} snapshots '{word}': use an id", named.len());
            Err(Error::refused(Exit::CreateSnapshot, message))
        }
    }
}

/// A checked plan of the new VE.
#[derive(Debug)]
struct Draft {
    file: ConfFile,
    mark: Mark,
    layout: Layout,
    quota: quota::Planned,
}

impl Draft {
    fn new(
        ve: &Ve<'_>,
        original: &Ve<'_>,
        all: &Snapshots<'_>,
        of: Option<Id>,
        options: &Options,
    ) -> Result<Self> {
        if ve.config.exists() {
            let conf = ve.node.paths.ve_conf(ve.ctid);
            let message =
                format!("Container config file {} already exists, can't use --from", conf.display());
            return Err(Error::refused(Exit::CpConfig, message));
        }
        let now = ConfFile::load(&ve.node.paths.ve_conf(original.ctid))?;
        let kept = of.map(|id| all.conf(id)).transpose().map_err(failed(Exit::CreateSnapshot))?.flatten();
        let (layout, of_original) = (all.area().layout, all.area().private);
        let mut file = configuration(&now, kept.as_deref(), layout)?;
        let base = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        let cards = Changes::from_options(params::Verb::Set, &cards(&original.config.netif()))?;
        cards.apply_to(&mut file, &base, ve.ctid, &change_node())?;
        let base = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        options.changes.apply_to(&mut file, &base, ve.ctid, &change_node())?;
        let config = ve.node.global.with_file(ve.ctid, Some(file.clone()));
        creating::warn(ve, &config, Some(&options.changes));
        let name = options.changes.value("name").filter(|name| !name.is_empty()).map(str::to_owned);
        let mut mark = Mark::plan(ve, &config, name)?;
        if layout.shares_template() {
            let base = layout::base_of(of_original)?;
            mark.base = base.map(|record| (original.config.template_dir(), record.base));
        }
        let image = layout::image(layout, of_original)?.is_some();
        let quota = quota::plan(ve, &config, &mark.private, (layout, image))?;
        complete(ve, &mut file, &config)?;
        Ok(Self { file, mark, layout, quota })
    }
}

/// The configuration of the original, without what is its own.
fn configuration(now: &ConfFile, kept: Option<&str>, layout: Layout) -> Result<ConfFile> {
    let mut file = kept.map_or_else(|| now.clone(), ConfFile::parse);
    let privileged = now.get("LOCAL_UID") == Some("0");
    for key in NOT_TAKEN {
        file.remove(key);
    }
    if privileged {
        file.set("LOCAL_UID", "0")?;
    }
    for key in ["VE_ROOT", "VE_PRIVATE"] {
        match now.get(key).filter(|value| value.contains("VEID")) {
            Some(value) => file.set(key, value)?,
            None => {
                file.remove(key);
            }
        }
    }
    file.set("VE_LAYOUT", layout.word())?;
    Ok(file)
}

/// The network cards of the original as options, for addresses of their own.
fn cards(cards: &[NetIf]) -> Vec<(&'static str, String)> {
    let form = |card: &NetIf| {
        let bridge = card.bridge.as_deref().unwrap_or_default();
        format!("{},,,,{bridge}", card.ifname).trim_end_matches(',').to_owned()
    };
    let mut all: Vec<_> = cards.iter().map(|card| ("netif_add", form(card))).collect();
    if !all.is_empty() {
        all.push(("save", String::new()));
    }
    all
}

fn build(
    ve: &Ve<'_>,
    original: &Ve<'_>,
    all: &Snapshots<'_>,
    of: Option<Id>,
    draft: &Draft,
    options: &Options,
) -> Result<()> {
    let temp = creating::reserve(ve, &draft.mark, draft.quota)?;
    ve.say(0, &format!("Creating container private area (from container {})", original.ctid));
    if let Some((templates, base)) = &draft.mark.base {
        Cache::open(templates).add_ref(base, ve.ctid)?;
    }
    fill(ve, original, all, of, &temp)?;
    fault::point("clone.filled");
    if !options.keep_identity {
        guest::new_identity(ve, draft.layout, &temp)?;
    }
    fault::point("clone.identity");
    creating::commit(ve, &draft.mark, draft.quota, &draft.file)
}

fn fill(ve: &Ve<'_>, original: &Ve<'_>, all: &Snapshots<'_>, of: Option<Id>, temp: &Path) -> Result<()> {
    const EXIT: Exit = Exit::FsNewVePrvt;
    let id = Id::random().doing(EXIT, || "cannot make an id".to_owned())?;
    let to = Target { area: temp, ctid: ve.ctid, id };
    if of.is_some() || original.running().is_none() {
        return all.clone_kept(of, to).map_err(failed(EXIT));
    }
    let live = all.begin_clone(to).map_err(failed(EXIT))?;
    let frozen = frozen(original, live, EXIT)?;
    all.finish_clone(frozen, to).map_err(failed(EXIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_nothing_that_must_be_there_once() {
        let now = ConfFile::parse(
            "RAM=\"1\"\nIP_ADDRESS=\"10.0.0.1\"\nHOSTNAME=\"a\"\nNAME=\"a\"\nVE_PRIVATE=\"/vz/private/7\"\n\
             VE_ROOT=\"/vz/root/$VEID\"\nLOCAL_UID=\"268435456\"\nNETIF=\"ifname=eth0,mac=00:18:51:00:00:01\"\n",
        );
        let file = configuration(&now, None, Layout::Overlay).unwrap();
        for key in ["IP_ADDRESS", "HOSTNAME", "NAME", "VE_PRIVATE", "LOCAL_UID", "NETIF"] {
            assert_eq!(file.get(key), None, "{key}");
        }
        assert_eq!((file.get("RAM"), file.get("VE_ROOT")), (Some("1"), Some("/vz/root/$VEID")));
        assert_eq!(file.get("VE_LAYOUT"), Some("overlay"));
        let file = configuration(&now, Some("RAM=\"2\"\nVE_ROOT=\"/etc\"\n"), Layout::Simfs).unwrap();
        assert_eq!((file.get("RAM"), file.get("VE_ROOT")), (Some("2"), Some("/vz/root/$VEID")));
    }

    #[test]
    fn cards_keep_their_names_and_bridges() {
        let all = "ifname=eth0,bridge=br0,mac=00:18:51:00:00:01;ifname=eth1";
        let cards = cards(&NetIf::parse_list(all).unwrap());
        assert_eq!(
            cards,
            [
                ("netif_add", "eth0,,,,br0".to_owned()),
                ("netif_add", "eth1".to_owned()),
                ("save", String::new()),
            ]
        );
    }
}
