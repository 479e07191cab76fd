//! The addresses a running VE really has.

use vzconf::{Ctid, Paths};

/// Addresses routed to the VE, as its last verb recorded them; none when nothing is recorded, and
/// the config has to be believed.
pub(super) fn live(paths: &Paths, ctid: Ctid) -> Option<Vec<String>> {
    let recorded = std::fs::read_to_string(paths.state_dir().join("veip").join(ctid.to_string())).ok()?;
    let address = |word: &str| word.split('/').next().unwrap_or(word).to_owned();
    Some(recorded.split_whitespace().map(address).collect())
}
