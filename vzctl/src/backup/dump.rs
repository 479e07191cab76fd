//! vzdump.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use templates::archive::Compression;
use ve::Node;
use ve::backup::DumpTo;
use vzconf::Exit;

use super::{Front, show};
use crate::report::Failure;

pub(super) fn run(front: &Front<'_>, node: &Node) -> Result<(), Failure> {
    let ctid = node.find(front.text("ctid").unwrap_or_default())?;
    front.report.about(ctid);
    let ve = node.ve(ctid)?;
    let to = match front.text("to") {
        None => DumpTo::Dir(None),
        Some("-") => DumpTo::Stdout,
        Some(path) if path.starts_with("ssh://") => {
            let text = format!("'{path}': send it yourself: vzdump {ctid} --to - | ssh HOST 'cat > FILE'");
            return Err(Failure::new(Exit::InvalidValue, text));
        }
        Some(path) => match PathBuf::from(path) {
            path if path.is_dir() => DumpTo::Dir(Some(path)),
            path => DumpTo::File(path),
        },
    };
    let compression = match (front.text("compress"), &to) {
        (Some("none"), _) => Compression::None,
        (Some("gz"), _) => Compression::Gzip,
        (Some("xz"), _) => Compression::Xz,
        (None, DumpTo::File(path)) => {
            Compression::of_name(&path.to_string_lossy()).unwrap_or(Compression::Zstd)
        }
        _ => Compression::Zstd,
    };
    let begun = Instant::now();
    let (path, summary) = ve::backup::dump(&ve, &to, compression)?;
    let seconds = begun.elapsed().as_secs_f64();
    if front.json {
        front.print_json(&json!({
            "ctid": ctid.get(),
            "file": path.display().to_string(),
            "entries": summary.entries,
            "bytes": summary.bytes,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        }));
        return Ok(());
    }
    let text = format!(
        "Container {ctid} was written to {}: {} in {} files, {seconds:.1} s",
        path.display(),
        show::size(summary.bytes),
        summary.entries
    );
    match to {
        DumpTo::Stdout => front.report.aside(0, &text),
        _ => front.report.line(0, &text),
    }
    Ok(())
}
