//! vzbackup.

use std::time::Instant;

use serde_json::json;
use templates::backup::{self, Location};
use ve::Node;
use ve::backup::{From, Made, Options, To};
use vzconf::Exit;

use super::{Front, location, show};
use crate::report::Failure;

pub(super) fn run(front: &Front<'_>, node: &Node) -> Result<(), Failure> {
    let to = match front.text("to") {
        None => To::Usual,
        Some(word) => place(location(word)?),
    };
    if front.flag("list") {
        return list(front, node, &to);
    }
    let word = front.text("ctid").unwrap_or_default();
    let ctid = node.find(word)?;
    front.report.about(ctid);
    let ve = node.ve(ctid)?;
    let from = match front.text("base") {
        Some(word) => From::Base(location(word)?),
        None if front.flag("full") => From::Nothing,
        None => From::Newest,
    };
    if to == To::File(Location::Pipe) && rustix::termios::isatty(std::io::stdout()) {
        return Err(Failure::new(
            Exit::InvalidValue,
            "a backup is nothing for a terminal; redirect the output",
        ));
    }
    let level = front.options.get_one::<i32>("level").copied().unwrap_or(3);
    let begun = Instant::now();
    let made = ve::backup::save(&ve, &Options { to, from, level })?;
    tell(front, &made, begun.elapsed().as_secs_f64());
    Ok(())
}

/// In a directory a file is made; anything else is one.
fn place(location: Location) -> To {
    match &location {
        Location::File(path) if path.is_dir() => To::Beside(Location::File(path.join("x"))),
        // Whether it is one over there is not asked: a slash at the end says so.
        Location::Remote(remote) if remote.path.ends_with('/') => To::Beside(location),
        _ => To::File(location),
    }
}

fn tell(front: &Front<'_>, made: &Made, seconds: f64) {
    let (saved, totals) = (&made.saved, &made.saved.totals);
    let base = saved.head.chain.first().map(|link| link.file.as_str());
    if front.json {
        return front.print_json(&json!({
            "ctid": saved.head.ctid,
            "file": made.to.to_string(),
            "id": saved.head.id,
            "base": base,
            "taken": saved.head.taken,
            "entries": totals.entries,
            "bytes": totals.bytes,
            "new_bytes": totals.new,
            "stored_bytes": saved.stream,
            "unread_files": totals.unread,
            "changed_meanwhile": saved.torn.count,
            "resumed_bytes": saved.resumed,
            "frozen_ms": made.stood.map(|stood| (stood.as_secs_f64() * 1e4).round() / 10.0),
            "seconds": (seconds * 1000.0).round() / 1000.0,
        }));
    }
    let kind = base.map_or_else(|| "full".to_owned(), |base| format!("on top of {base}"));
    let text = format!(
        "Container {} was saved to {} ({kind}): {} in {} files, {} new, {} stored, {:.1} s",
        saved.head.ctid,
        made.to,
        show::size(totals.bytes),
        totals.entries,
        show::size(totals.new),
        show::size(saved.stream),
        seconds
    );
    match made.to {
        Location::Pipe => front.report.aside(0, &text),
        _ => front.report.line(0, &text),
    }
}

fn list(front: &Front<'_>, node: &Node, to: &To) -> Result<(), Failure> {
    let ctid = front.text("ctid").map(|word| node.find(word)).transpose()?;
    let place = match to {
        To::Usual => Location::File(node.global.backup_dir().join("x")),
        To::Beside(place) | To::File(place) => place.clone(),
    };
    let odd = &mut |error: &backup::BackupError| front.report.line(-1, &format!("WARNING: {error}"));
    let found = backup::catalog(&place, ctid.map(vzconf::Ctid::get), odd)?;
    if front.json {
        front.print_json(&show::backups_json(&found));
    } else if found.is_empty() {
        front.report.aside(0, "No backups; make one with: vzbackup CTID");
    } else {
        front.print(&show::backups(&found));
    }
    Ok(())
}
