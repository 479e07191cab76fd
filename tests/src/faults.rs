//! The points at which a program can be made to kill itself, found in the source: a new one is covered
//! without anybody thinking of it.

use std::fs;
use std::path::Path;

/// Whoever makes a container passes by these too.
const MAKERS: [&str; 3] = ["create", "clone", "vzrestore"];

/// The names of all fault points that a verb passes by: those that begin with `verb.`, and those that it has in common
/// with others.
///
/// # Panics
/// When the source cannot be read, or has no such point.
#[must_use]
pub fn fault_points(verb: &str) -> Vec<String> {
    let mut names = Vec::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for room in ["ve", "migrate", "templates", "netns", "beancounters", "vzctl", "vzd", "vzconf"] {
        search(&workspace.join(room).join("src"), &mut names);
    }
    names.sort();
    names.dedup();
    let shared = if MAKERS.contains(&verb) { "creating" } else { verb };
    let is_its = |name: &String| name.split_once('.').is_some_and(|(of, _)| of == verb || of == shared);
    let points: Vec<String> = names.into_iter().filter(is_its).collect();
    assert!(!points.is_empty(), "the source has no fault point of {verb}");
    points
}

fn search(dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let calls = text.split("fault::point(\"").skip(1);
            names.extend(calls.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()));
        }
    }
}
