//! A node and a terminal for tests.

use std::fs;
use std::io::Cursor;

use vzconf::samples::{SHIPPED, VZ_CONF};
use vzconf::{ConfFile, Config, Paths};

use super::Talk;
use super::limits::Limits;

/// Somebody who has typed all answers already.
#[derive(Default)]
pub(super) struct Session {
    out: Vec<u8>,
    err: Vec<u8>,
    input: Cursor<Vec<u8>>,
}

impl Session {
    pub(super) fn typing(text: &str) -> Self {
        Self { input: Cursor::new(text.as_bytes().to_vec()), ..Self::default() }
    }

    pub(super) fn run<T>(&mut self, tool: impl FnOnce(&mut Talk<'_>) -> T) -> T {
        tool(&mut Talk { out: &mut self.out, err: &mut self.err, input: &mut self.input })
    }

    pub(super) fn out(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    pub(super) fn err(&self) -> String {
        String::from_utf8(self.err.clone()).unwrap()
    }
}

/// A node with `vz.conf` and the shipped samples.
pub(super) fn node() -> (tempfile::TempDir, Paths) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    fs::create_dir_all(paths.conf_dir()).unwrap();
    fs::create_dir_all(paths.vz().join("lock")).unwrap();
    let lockdir = format!("LOCKDIR={}", paths.vz().join("lock").display());
    fs::write(paths.vz_conf(), VZ_CONF.replace("LOCKDIR=/vz/lock", &lockdir)).unwrap();
    for (name, text) in SHIPPED {
        fs::write(paths.sample(name), text).unwrap();
    }
    (dir, paths)
}

/// The limits of a config's text.
pub(super) fn limits(text: &str) -> Limits {
    let (_dir, paths) = node();
    let config = Config::without_node(&paths).with_sample(&paths.vz_conf(), ConfFile::parse(text));
    Limits::of(&config)
}

/// The text of a shipped sample.
pub(super) fn sample(name: &str) -> &'static str {
    SHIPPED.iter().find(|(sample, _)| *sample == name).unwrap().1
}

/// A command line.
pub(super) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
