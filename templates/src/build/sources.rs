//! Which archives to take packages from: the host's own, in both of apt's notations, for any suite.

use std::path::Path;

use super::BuildError;
use super::recipe::Recipe;

/// One source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Source {
    pub(super) uri: String,
    pub(super) suite: String,
    pub(super) components: Vec<String>,
    pub(super) signed_by: Option<String>,
    pub(super) trusted: bool,
}

impl Source {
    /// As one line of sources.list.
    pub(super) fn line(&self) -> String {
        let mut options = Vec::new();
        if let Some(key) = &self.signed_by {
            options.push(format!("signed-by={key}"));
        }
        if self.trusted {
            options.push("trusted=yes".to_owned());
        }
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        format!("deb {options}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }
}

/// All sources of the host whose apt lives in `etc` (`/etc/apt`).
pub(super) fn of_host(etc: &Path) -> Vec<Source> {
    let mut files = vec![etc.join("sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(etc.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    parts.sort();
    files.extend(parts);
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(deb822(&text)),
            _ => {}
        }
    }
    sources
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut source = Source::default();
    let rest = match rest.strip_prefix('[') {
        None => rest,
        Some(rest) => {
            let (options, rest) = rest.split_once(']')?;
            for option in options.split_whitespace() {
                match option.split_once('=') {
                    Some(("signed-by", key)) => source.signed_by = Some(key.to_owned()),
                    Some(("trusted", "yes")) => source.trusted = true,
                    _ => {}
                }
            }
            rest
        }
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uri = words.next()?;
    source.suite = words.next()?;
    source.components = words.collect();
    Some(source)
}

fn deb822(text: &str) -> Vec<Source> {
    // Blank lines separate; a line of comments does not.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Vec<Source> {
    let field = |name: &str| -> String {
        let mut value = String::new();
        let mut inside = false;
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if inside {
                    value.push_str(line);
                    value.push('\n');
                }
                continue;
            }
            inside = line.split_once(':').is_some_and(|(key, rest)| {
                let ours = key.eq_ignore_ascii_case(name);
                if ours {
                    value = format!("{rest}\n");
                }
                ours
            });
        }
        value.trim().to_owned()
    };
    let words = |name| -> Vec<String> { field(name).split_whitespace().map(str::to_owned).collect() };
    if !words("Types").iter().any(|kind| kind == "deb") || field("Enabled").eq_ignore_ascii_case("no") {
        return Vec::new();
    }
    // An embedded key cannot be said in one line.
    let signed_by = Some(field("Signed-By")).filter(|key| key.starts_with('/') && !key.contains('\n'));
    let mut sources = Vec::new();
    for uri in words("URIs") {
        for suite in words("Suites") {
            sources.push(Source {
                uri: uri.clone(),
                suite,
                components: words("Components"),
                signed_by: signed_by.clone(),
                trusted: field("Trusted").eq_ignore_ascii_case("yes"),
            });
        }
    }
    sources
}

/// The sources for a recipe: those given; else those of the host for its suite; else those of the host for its own
/// release with the suite's name put in (a Debian mirror has all of Debian's suites).
pub(super) fn choose(
    recipe: &Recipe,
    host: &[Source],
    release: (&str, &str),
    key: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Source>, BuildError> {
    let suite = recipe.suite.as_str();
    let components =
        if recipe.components.is_empty() { vec!["main".to_owned()] } else { recipe.components.clone() };
    let mirror = |uri: &str, suite: &str| Source {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        components: components.clone(),
        signed_by: key(&recipe.distribution),
        trusted: false,
    };
    if !recipe.mirrors.is_empty() {
        let given = recipe.mirrors.iter().map(|text| one_line(text).unwrap_or_else(|| mirror(text, suite)));
        return Ok(given.collect());
    }
    let (id, codename) = release;
    let wanted = |source: &Source, base: &str| -> Option<String> {
        let rest = source.suite.strip_prefix(base)?;
        // Backports and proposed updates are not what a fresh template is made of.
        matches!(rest, "" | "-updates" | "-security" | "/updates").then(|| format!("{suite}{rest}"))
    };
    let with = |base: &str| -> Vec<Source> {
        let renamed =
            host.iter().filter_map(|source| Some(Source { suite: wanted(source, base)?, ..source.clone() }));
        renamed.filter(|source| !rolling(suite) || source.suite == suite).collect()
    };
    let mut sources = with(suite);
    if !sources.iter().any(|source| source.suite == suite)
        && id == recipe.distribution
        && !codename.is_empty()
    {
        sources = with(codename);
    }
    if sources.iter().any(|source| source.suite == suite) {
        if !recipe.components.is_empty() {
            sources.iter_mut().for_each(|source| source.components.clone_from(&recipe.components));
        }
        return Ok(sources);
    }
    let archive = match recipe.distribution.as_str() {
        "debian" => "http://deb.debian.org/debian",
        "ubuntu" => "http://archive.ubuntu.com/ubuntu",
        _ => return Err(BuildError::NoMirror { suite: suite.to_owned() }),
    };
    Ok(vec![mirror(archive, suite)])
}

/// These have neither updates nor security.
fn rolling(suite: &str) -> bool {
    matches!(suite, "sid" | "unstable" | "experimental")
}

/// apt's settings that reach the archive: proxies, time-outs, and whether an old one is believed.
pub(super) fn settings(dump: &str) -> Vec<String> {
    let keep = |name: &str| {
        name == "Acquire::Check-Valid-Until"
            || name == "Acquire::Max-FutureTime"
            || name == "Acquire::Check-Date"
            || name == "Acquire::Retries"
            || name == "Acquire::ForceIPv4"
            || name == "Acquire::ForceIPv6"
            || name.starts_with("Acquire::Languages")
            || ["http", "https", "ftp"].iter().any(|scheme| {
                name.strip_prefix("Acquire::")
                    .and_then(|rest| rest.strip_prefix(scheme))
                    .is_some_and(|rest| rest.starts_with("::"))
            })
    };
    dump.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            let empty = value.trim() == "\"\";";
            (keep(name) && !empty).then(|| format!("{name} {}", value.trim_end_matches(';')))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::recipe::Options;
    use super::*;

    const DEB822: &str = "Types: deb deb-src\n# http://snapshot.debian.org/\nURIs: http://m/debian\nSuites: bookworm bookworm-updates bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://m/security\nSuites:\n bookworm-security\nComponents: main\nEnabled: yes\n\nTypes: deb\nURIs: http://off\nSuites: bookworm\nEnabled: no\n";

    fn host() -> Vec<Source> {
        let mut sources = deb822(DEB822);
        sources.extend(one_line("deb [arch=amd64 signed-by=/d.gpg] https://docker/linux stable main # x"));
        sources
    }

    fn lines(name: &str, options: &Options) -> Vec<String> {
        let recipe = Recipe::new(name, options).unwrap();
        let key = |id: &str| (id == "ubuntu").then(|| "/u.gpg".to_owned());
        let sources = choose(&recipe, &host(), ("debian", "bookworm"), key).unwrap();
        sources.iter().map(Source::line).collect()
    }

    #[test]
    fn the_hosts_sources_are_used_for_its_own_suite_and_renamed_for_others() {
        let none = Options::default();
        for (name, suite) in [("debian-12-x86_64", "bookworm"), ("debian-13-x86_64", "trixie")] {
            assert_eq!(
                lines(name, &none),
                [
                    format!("deb [signed-by=/k.gpg] http://m/debian {suite} main"),
                    format!("deb [signed-by=/k.gpg] http://m/debian {suite}-updates main"),
                    format!("deb http://m/security {suite}-security main"),
                ]
            );
        }
        assert_eq!(lines("debian-sid", &none), ["deb [signed-by=/k.gpg] http://m/debian sid main"]);
        assert_eq!(
            lines("ubuntu-24.04-x86_64", &none),
            ["deb [signed-by=/u.gpg] http://archive.ubuntu.com/ubuntu noble main"]
        );
        let given = Options { mirrors: vec!["http://x/d".into(), "deb http://y s c".into()], ..none };
        assert_eq!(lines("debian-12", &given), ["deb http://x/d bookworm main", "deb http://y s c"]);
    }

    #[test]
    fn only_settings_that_reach_the_archive_are_taken() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::Check-Valid-Until \"false\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::http \"\";\nAcquire::cdrom::mount \"/m\";\nAcquire::Languages:: \"none\";\n";
        assert_eq!(
            settings(dump),
            [
                "Acquire::Check-Valid-Until \"false\"",
                "Acquire::http::Proxy \"http://p:3128\"",
                "Acquire::Languages:: \"none\""
            ]
        );
    }
}
