//! How an image wants to be run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vzsys::launch::ImageCommand;

/// An image's configuration, kept in the template's metadata in the image's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group`, `uid:gid`; root when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `KEY=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First words of the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its other words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it runs; `/` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `80/tcp`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Directories with data, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// `SIGQUIT`, `3`, `SIGRTMIN+3`; SIGTERM when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// What its maker says of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl ImageConfig {
    /// The words of the command that the image runs.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }

    /// Whether that is nothing but a shell for somebody who types.
    #[must_use]
    pub fn is_shell(&self) -> bool {
        let words = self.command();
        let Some((program, rest)) = words.split_first() else { return false };
        let name = program.rsplit('/').next().unwrap_or_default();
        let quiet = |word: &String| matches!(word.as_str(), "-l" | "-i" | "-il" | "-li" | "--login");
        matches!(name, "sh" | "bash" | "ash" | "dash" | "zsh" | "ksh") && rest.iter().all(quiet)
    }
}

impl From<&ImageConfig> for ImageCommand {
    fn from(config: &ImageConfig) -> Self {
        Self {
            command: config.command(),
            environment: config.env.clone(),
            user: config.user.clone(),
            directory: config.working_dir.clone(),
            stop_signal: config.stop_signal.clone(),
            shell: config.is_shell(),
            as_init: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_one_only_without_something_to_do() {
        let of = |words: &[&str]| ImageConfig {
            cmd: words.iter().map(|word| (*word).to_owned()).collect(),
            ..ImageConfig::default()
        };
        for (words, want) in [
            (&["bash"][..], true),
            (&["/bin/sh", "-l"], true),
            (&["sh", "-c", "x"], false),
            (&["nginx"], false),
            (&[], false),
        ] {
            assert_eq!(of(words).is_shell(), want, "{words:?}");
        }
    }
}
