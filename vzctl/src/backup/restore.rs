//! vzrestore.

use std::io::{BufWriter, Write as _};
use std::time::Instant;

use serde_json::json;
use templates::backup::{Fault, Load, Location};
use ve::Node;
use ve::backup::{Dump, Source, Wish};

use super::{Front, location, show};
use crate::report::Failure;

pub(super) fn run(front: &Front<'_>, node: &Node) -> Result<(), Failure> {
    let from = location(front.text("from").unwrap_or_default())?;
    let words = front.options.get_many::<String>("base").into_iter().flatten();
    let mut bases = Vec::new();
    for word in words {
        bases.push(match location(word)? {
            Location::File(path) if path.is_dir() => Location::File(path.join("x")),
            other => other,
        });
    }
    // Those of a pipe are most likely in their usual place.
    bases.push(Location::File(node.global.backup_dir().join("x")));
    let source = match (Load::open(&from, bases), &from) {
        (Err(error), Location::File(path)) if matches!(error.fault(), Fault::NotOurs) => {
            if front.flag("list") || front.flag("check") {
                let text = format!("{from} is no backup; if it is a tar archive, tar(1) lists and checks it");
                return Err(Failure::new(vzconf::Exit::InvalidValue, text));
            }
            let dump = Dump::open(path).map_err(|why| Failure {
                text: format!("{error}, and no archive of vzdump: {}", ve::describe(&why)),
                ..Failure::from(why)
            })?;
            return restore(front, node, Source::Dump(Box::new(dump)));
        }
        (load, _) => load?,
    };
    if front.flag("list") {
        return list(front, source);
    }
    let begun = Instant::now();
    if front.flag("check") {
        let (head, label) = (source.head().clone(), format!("Checking {from}"));
        let totals = source.check(&mut |done| (node.progress)(&label, done.done, done.total))?;
        if front.json {
            front.print_json(&show::backup_json(&head, &totals, begun.elapsed().as_secs_f64()));
        } else {
            front
                .report
                .line(0, &format!("{from}: OK, {} in {} files", show::size(totals.bytes), totals.entries));
        }
        return Ok(());
    }
    restore(front, node, Source::Backup(Box::new(source)))
}

fn restore(front: &Front<'_>, node: &Node, source: Source) -> Result<(), Failure> {
    let begun = Instant::now();
    let wish = Wish {
        ctid: front.text("as").map(str::parse).transpose()?,
        name: front.text("name").map(str::to_owned),
        layout: front.text("layout").map(str::to_owned),
        scripts: front.flag("scripts"),
    };
    let rebuilt = ve::backup::rebuild(node, source, &wish)?;
    let seconds = begun.elapsed().as_secs_f64();
    if front.json {
        let mut object = show::backup_json(&rebuilt.head, &rebuilt.totals, seconds);
        object["ctid"] = json!(rebuilt.ctid.get());
        object["from_ctid"] = json!(rebuilt.head.ctid);
        front.print_json(&object);
        return Ok(());
    }
    let text = format!(
        "Container {} was restored: {} in {} files, {seconds:.1} s",
        rebuilt.ctid,
        show::size(rebuilt.totals.bytes),
        rebuilt.totals.entries
    );
    front.report.line(0, &text);
    Ok(())
}

fn list(front: &Front<'_>, load: Load) -> Result<(), Failure> {
    let head = load.head().clone();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut files = Vec::new();
    // `| head` has read what it wants.
    let mut closed = !front.json && out.write_all(show::head(&head).as_bytes()).is_err();
    let (head, totals) = load.list(&mut |listed| {
        if front.json {
            files.push(show::listed_json(&listed));
        } else if !closed {
            closed = out.write_all(&show::listed(&listed)).is_err();
        }
    })?;
    drop(out);
    if front.json {
        let mut object = show::backup_json(&head, &totals, 0.0);
        object["config"] = json!(head.config);
        object["files"] = json!(files);
        front.print_json(&object);
    }
    Ok(())
}
