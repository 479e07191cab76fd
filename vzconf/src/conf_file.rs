//! One config file, as an ordered list of lines of which we own only the keys we set.
//!
//! ```text
//! # comment            kept byte for byte
//! KEY="value"          value up to the LAST quote
//! KEY=value # text     unquoted: the whole rest of the line
//! #UUID: 1b4e…         kept (libvirt lives on it)
//! ```
//! Files are also sourced by shells, so what is written is valid `sh` with the same meaning.
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Keys with `$VEID` in them that shells and we expand; there the dollar stays bare.
const EXPANDING: [&str; 2] = ["VE_ROOT", "VE_PRIVATE"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// The bytes without the line feed. Not necessarily UTF-8: old files hold Latin-1 descriptions.
    raw: Vec<u8>,
    entry: Option<(String, String)>,
}

/// A parsed config file that can be written back byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfFile {
    lines: Vec<Line>,
    /// Whether the last line lacks its line feed.
    open_end: bool,
}

/// The one spelling of a key that had two.
#[must_use]
pub fn canonical_key(key: &str) -> &str {
    match key {
        "DCACHE" => "DCACHESIZE",
        "IPTENTRIES" => "NUMIPTENT",
        // The key was misspelt in the field's last release.
        "CPUUWEIGHT" => "CPUWEIGHT",
        other => other,
    }
}

impl ConfFile {
    /// Parses text. Never fails: what is not `KEY=value` is kept as it is (see [`ConfFile::stray_lines`]).
    #[must_use]
    pub fn parse(text: &str) -> ConfFile {
        ConfFile::parse_bytes(text.as_bytes())
    }

    /// As [`ConfFile::parse`] for bytes that may not be UTF-8; values are decoded lossily, lines kept exactly.
    #[must_use]
    pub fn parse_bytes(bytes: &[u8]) -> ConfFile {
        if bytes.is_empty() {
            return ConfFile::default();
        }
        let open_end = bytes.last() != Some(&b'\n');
        let body = if open_end { bytes } else { &bytes[..bytes.len() - 1] };
        let lines = body
            .split(|b| *b == b'\n')
            .map(|raw| Line { raw: raw.to_vec(), entry: parse_line(&String::from_utf8_lossy(raw)) })
            .collect();
        ConfFile { lines, open_end }
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn load(path: &Path) -> Result<ConfFile, Error> {
        fs::read(path)
            .map(|bytes| ConfFile::parse_bytes(&bytes))
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })
    }

    /// The first value of a key (aliases count as the key).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// Every value of a key, in order.
    pub fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let key = canonical_key(key).to_string();
        self.entries().filter(move |(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Every entry in order, keys in their canonical spelling.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .filter_map(|line| line.entry.as_ref())
            .map(|(key, value)| (canonical_key(key), value.as_str()))
    }

    /// Line numbers (from 1) of lines that are neither blank, comment nor `KEY=value`.
    #[must_use]
    pub fn stray_lines(&self) -> Vec<usize> {
        let stray = |line: &Line| {
            let text = String::from_utf8_lossy(&line.raw);
            line.entry.is_none() && !text.trim().is_empty() && !text.trim_start().starts_with('#')
        };
        (1..).zip(&self.lines).filter(|(_, line)| stray(line)).map(|(n, _)| n).collect()
    }

    /// Sets a key: replaces its line in place, or appends one. Further lines of the same key are dropped, so that every
    /// reader (some take the first, some the last) sees the same value.
    ///
    /// # Errors
    /// [`Error::Multiline`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        if value.contains(['\n', '\r', '\0']) {
            return Err(Error::Multiline { key: key.to_string() });
        }
        let key = canonical_key(key);
        let raw = format!("{key}=\"{}\"", escape(key, value)).into_bytes();
        let line = Line { raw, entry: Some((key.to_string(), value.to_string())) };
        let Some(first) = self.lines.iter().position(|line| line.is(key)) else {
            self.open_end = false;
            self.lines.push(line);
            return Ok(());
        };
        // An equal value stays as it was written, so that nothing counts as changed.
        if self.lines[first].entry.as_ref().is_some_and(|(_, old)| old == value) {
            self.drop_after(first, key);
            return Ok(());
        }
        self.lines[first] = line;
        self.drop_after(first, key);
        Ok(())
    }

    fn drop_after(&mut self, first: usize, key: &str) {
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            index - 1 <= first || !line.is(key)
        });
    }

    /// Removes every line of a key; tells whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        let key = canonical_key(key);
        self.lines.retain(|line| !line.is(key));
        before != self.lines.len()
    }

    /// The exact bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let raws: Vec<&[u8]> = self.lines.iter().map(|line| line.raw.as_slice()).collect();
        let mut bytes = raws.join(&b'\n');
        if !self.open_end && !self.lines.is_empty() {
            bytes.push(b'\n');
        }
        bytes
    }

    /// Replaces the file durably: symlinks resolved, a temporary file beside it, fsync, rename, fsync of the directory.
    /// Mode and owner of an existing file are kept; a new one is 0644.
    ///
    /// # Errors
    /// [`Error::Save`]; the old file is then unchanged.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let target = resolve(path).map_err(|source| Error::save(path, source))?;
        write_durably(&target, &self.to_bytes(), Place::Any).map_err(|source| Error::save(path, source))
    }

    /// As [`ConfFile::save`], for a file that must not be there yet, not even as a link.
    ///
    /// # Errors
    /// [`Error::Save`]; what was there is then unchanged.
    pub fn save_new(&self, path: &Path) -> Result<(), Error> {
        write_durably(path, &self.to_bytes(), Place::Free).map_err(|source| Error::save(path, source))
    }
}

impl std::fmt::Display for ConfFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl Line {
    fn is(&self, key: &str) -> bool {
        self.entry.as_ref().is_some_and(|(k, _)| canonical_key(k) == key)
    }
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let plain = unescape(line);
    let (key, value) = plain.split_once('=')?;
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let value = match value.strip_prefix('"') {
        Some(rest) => rest.rsplit_once('"').map_or(rest, |(inside, _)| inside),
        None => value,
    };
    Some((key.to_string(), value.to_string()))
}

/// Drops each backslash and keeps what follows it.
fn unescape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

/// What has to stand between double quotes for both a shell and [`parse_line`] to read `value`.
fn escape(key: &str, value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let rest = &value[at..];
        let expands = EXPANDING.contains(&key) && (rest.starts_with("${VEID}") || rest.starts_with("$VEID"));
        if matches!(c, '"' | '\\' | '`') || (c == '$' && !expands) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Where a save of `path` has to go: the end of a chain of symlinks, dangling ones included.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("/")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()))
}

/// What may be where a file is to go.
#[derive(Clone, Copy)]
enum Place {
    /// An older version, or nothing.
    Any,
    /// Nothing.
    Free,
}

impl Place {
    fn fill(self, temp: &Path, target: &Path) -> io::Result<()> {
        match self {
            Place::Any => fs::rename(temp, target),
            // Unlike rename(2), link(2) replaces nothing.
            Place::Free => fs::hard_link(temp, target).and_then(|()| fs::remove_file(temp)),
        }
    }
}

fn write_durably(target: &Path, bytes: &[u8], place: Place) -> io::Result<()> {
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let old = fs::metadata(target).ok();
    let mode = old.as_ref().map_or(0o644, |meta| meta.mode() & 0o7777);
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temp = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_temp(&temp, bytes, mode, old.as_ref()).and_then(|()| place.fill(&temp, target));
    if written.is_err() {
        // The cause of the failure is what the caller needs; a left-over temporary file is harmless.
        let _ = fs::remove_file(&temp);
    }
    written?;
    fs::File::open(dir)?.sync_all()
}

fn write_temp(temp: &Path, bytes: &[u8], mode: u32, old: Option<&fs::Metadata>) -> io::Result<()> {
    // A file left by a crashed process of the same id is in the way of create_new.
    match fs::remove_file(temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp)?;
    file.write_all(bytes)?;
    if let Some(old) = old {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
