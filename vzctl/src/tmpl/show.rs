//! `vztmpl list` and `info`.

use serde_json::{Value, json};
use templates::cache::{Cache, Template};

/// The list as people read it.
pub(super) fn table(templates: &[Template]) -> String {
    let mut rows =
        vec![["NAME", "DISTRIBUTION", "ARCH", "INIT", "SIZE", "UNPACKED", "DATE"].map(str::to_owned)];
    for template in templates {
        let metadata = template.metadata.clone().unwrap_or_default();
        let distribution = format!("{} {}", metadata.distribution, metadata.version);
        rows.push([
            template.name.clone(),
            dash(distribution.trim()),
            dash(&metadata.arch),
            dash(&metadata.init),
            human(template.size),
            if metadata.unpacked > 0 { human(metadata.unpacked) } else { "-".to_owned() },
            dash(metadata.date.split('T').next().unwrap_or_default()),
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            // Numbers to the right.
            .map(
                |(i, (cell, width))| {
                    if matches!(i, 4 | 5) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn dash(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    if plain.is_empty() { "-".to_owned() } else { plain }
}

#[allow(clippy::cast_precision_loss)] // one digit is shown
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

/// One template as JSON.
pub(super) fn object(cache: &Cache, template: &Template) -> Value {
    let mut object = match &template.metadata {
        Some(metadata) => serde_json::to_value(metadata).unwrap_or_default(),
        None => json!({}),
    };
    object["name"] = json!(template.name);
    object["path"] = json!(template.path);
    object["size"] = json!(template.size);
    let id = template.base_id();
    object["ready"] = json!(cache.bases().join(&id).is_dir());
    object["containers"] = json!(cache.users(&id).iter().map(ToString::to_string).collect::<Vec<_>>());
    object["base"] = json!(id);
    object
}

/// One template as people read it.
pub(super) fn info(cache: &Cache, template: &Template, packages: bool) -> String {
    let object = object(cache, template);
    let text = |key: &str| dash(object[key].as_str().unwrap_or_default());
    let count = template.metadata.as_ref().map_or(0, |metadata| metadata.packages.len());
    let users = cache.users(&template.base_id());
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        ("Name", template.name.clone()),
        ("File", template.path.display().to_string()),
        (
            "Distribution",
            dash(
                format!(
                    "{} {}",
                    object["distribution"].as_str().unwrap_or_default(),
                    object["version"].as_str().unwrap_or_default()
                )
                .trim(),
            ),
        ),
        ("Architecture", text("arch")),
        ("Init", text("init")),
        ("Size", format!("{} ({} bytes)", human(template.size), template.size)),
        ("Unpacked", template.unpacked().map_or("-".to_owned(), |bytes| format!("about {}", human(bytes)))),
        ("SHA-256", text("sha256")),
        ("Date", text("date")),
        ("Origin", text("origin")),
        ("Packages", count.to_string()),
        ("Containers", dash(&users.join(" "))),
    ];
    if let Some(image) = template.metadata.as_ref().and_then(|metadata| metadata.image.as_ref()) {
        lines.push(("Command", dash(&image.command().join(" "))));
        lines.push(("User", if image.user.is_empty() { "root".to_owned() } else { dash(&image.user) }));
        lines.push(("Ports", dash(&image.exposed_ports.join(" "))));
    }
    if template.metadata.is_none() {
        lines.push(("Note", "no metadata, or the tarball has changed since".to_owned()));
    }
    let mut out: String = lines.iter().map(|(key, value)| format!("{key:<13} {value}\n")).collect();
    if let Some(metadata) = template.metadata.as_ref().filter(|_| packages) {
        metadata.packages.iter().for_each(|package| out.push_str(&format!("  {}\n", dash(package))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([512, 2048, 5 << 20, 1 << 40].map(human), ["512B", "2.0K", "5.0M", "1.0T"]);
    }
}
