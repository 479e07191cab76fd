//! Backups in words and in JSON.

use serde_json::{Value, json};
use templates::backup::{Found, Head, Listed, Totals};

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn state(found: &Found) -> String {
    match (found.totals, found.missing.first()) {
        (None, _) => "interrupted".to_owned(),
        (_, Some(link)) => format!("lacks {}", link.file),
        (_, None) => "whole".to_owned(),
    }
}

/// A table.
pub(super) fn backups(found: &[Found]) -> String {
    let mut rows = vec![["CTID", "MADE", "BASE", "DATA", "SIZE", "STATE", "FILE"].map(str::to_owned)];
    for backup in found {
        let base = backup.head.chain.first().map_or("-", |link| &link.file);
        let data = backup.totals.map_or_else(|| "-".to_owned(), |totals| size(totals.bytes));
        rows.push([
            backup.head.ctid.to_string(),
            date(backup.head.created),
            base.to_owned(),
            data,
            size(backup.size),
            state(backup),
            backup.file.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(clean(cells.collect::<Vec<_>>().join("  ").trim_end()).as_str());
        text.push('\n');
    }
    text
}

/// The same for programs.
pub(super) fn backups_json(found: &[Found]) -> Value {
    let object = |backup: &Found| {
        json!({
            "file": backup.file,
            "ctid": backup.head.ctid,
            "name": backup.head.name,
            "node": backup.head.node,
            "id": backup.head.id,
            "created": backup.head.created,
            "base": backup.head.chain.first().map(|link| &link.file),
            "chain": backup.head.chain.iter().map(|link| &link.file).collect::<Vec<_>>(),
            "missing": backup.missing.iter().map(|link| &link.file).collect::<Vec<_>>(),
            "whole": backup.totals.is_some(),
            "bytes": backup.totals.map(|totals| totals.bytes),
            "entries": backup.totals.map(|totals| totals.entries),
            "stored_bytes": backup.size,
        })
    };
    Value::Array(found.iter().map(object).collect())
}

/// What was read of a backup.
pub(super) fn backup_json(head: &Head, totals: &Totals, seconds: f64) -> Value {
    json!({
        "ctid": head.ctid,
        "name": head.name,
        "node": head.node,
        "id": head.id,
        "created": head.created,
        "taken": head.taken,
        "base": head.chain.first().map(|link| &link.file),
        "entries": totals.entries,
        "bytes": totals.bytes,
        "seconds": (seconds * 1000.0).round() / 1000.0,
    })
}

/// What comes before the files.
pub(super) fn head(head: &Head) -> String {
    let name = head.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let base = head.chain.first().map_or_else(|| "none".to_owned(), |link| link.file.clone());
    clean(&format!(
        "Container: {}{name}\nHost:      {}\nMade:      {} ({})\nBase:      {base}\nId:        {}\n\n",
        head.ctid,
        head.node,
        date(head.created),
        head.taken,
        head.id
    ))
}

/// One file, as in `ls -ln`.
pub(super) fn listed(listed: &Listed) -> Vec<u8> {
    let bit = |mask: u32, letter: char| if listed.mode & mask != 0 { letter } else { '-' };
    let mut mode: String = [256, 128, 64, 32, 16, 8, 4, 2, 1]
        .into_iter()
        .zip("rwxrwxrwx".chars())
        .map(|(mask, letter)| bit(mask, letter))
        .collect();
    for (mask, at, set, bare) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if listed.mode & mask != 0 {
            let letter = if mode.as_bytes()[at] == b'x' { set } else { bare };
            mode.replace_range(at..=at, &letter.to_string());
        }
    }
    let path = if listed.path.is_empty() { b".".as_slice() } else { &listed.path };
    let target =
        listed.target.as_ref().map(|target| format!(" -> {}", target.escape_ascii())).unwrap_or_default();
    let (uid, gid) = listed.owner;
    format!(
        "{}{mode} {uid:>5} {gid:>5} {:>12} {} {}{target}\n",
        listed.kind,
        listed.size,
        date(listed.mtime),
        path.escape_ascii()
    )
    .into_bytes()
}

/// The same for programs.
pub(super) fn listed_json(listed: &Listed) -> Value {
    json!({
        "path": String::from_utf8_lossy(&listed.path),
        "type": listed.kind.to_string(),
        "mode": format!("{:04o}", listed.mode),
        "uid": listed.owner.0,
        "gid": listed.owner.1,
        "size": listed.size,
        "mtime": listed.mtime,
        "target": listed.target.as_ref().map(|target| String::from_utf8_lossy(target)),
    })
}

/// A backup's words cannot steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_modes_are_readable() {
        assert_eq!(
            (size(0).as_str(), size(1023).as_str(), size(1536).as_str()),
            ("0 B", "1023 B", "1.5 KiB")
        );
        let file = Listed {
            path: b"bin/\xffsu\n".to_vec(),
            kind: '-',
            mode: 0o4755,
            owner: (0, 5),
            size: 7,
            mtime: 0,
            target: None,
        };
        let line = String::from_utf8(listed(&file)).unwrap();
        assert!(line.starts_with("-rwsr-xr-x     0     5            7 "), "{line}");
        assert!(line.ends_with(" bin/\\xffsu\\n\n"), "{line}");
    }
}
