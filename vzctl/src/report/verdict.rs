//! What `vzctl checkpoint-check` says.

use ve::Ve;
use ve::obstacles::Obstacle;

/// For people: a line for each, or that there is none.
pub(crate) fn verdict(ve: &Ve<'_>, found: &[Obstacle]) -> String {
    if found.is_empty() {
        return format!("Container {} can be saved and moved\n", ve.ctid);
    }
    found.iter().map(|obstacle| format!("{obstacle}\n")).collect()
}

/// For programs: `{"ctid":101,"possible":false,"obstacles":[{"pid":…,"process":…,"unit":…,"kind":…,"what":…,"advice":…}]}`.
pub(crate) fn verdict_json(ve: &Ve<'_>, found: &[Obstacle]) -> String {
    let value = serde_json::json!({
        "ctid": ve.ctid.get(),
        "possible": found.is_empty(),
        "obstacles": found,
    });
    format!("{value}\n")
}
