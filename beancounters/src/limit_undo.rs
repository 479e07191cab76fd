//! What limits were before they were written.
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::knob;
use crate::limit_plan::KnobWrite;
use crate::limits::Param;

/// Values to write again, the last one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo(Vec<(Param, PathBuf, String)>);

impl Undo {
    /// Remembers a file before its first write; one that cannot be read cannot be written either.
    pub(crate) fn remember(&mut self, step: &KnobWrite, path: &Path) {
        if let Ok(text) = knob::read(path) {
            self.0.push((step.param, path.to_owned(), previous(step.file, &step.value, &text)));
        }
    }

    /// Writes the earlier values, all that can be written.
    ///
    /// # Errors
    /// [`Error::Refused`] for the first that the kernel did not take back.
    pub fn undo(self) -> Result<()> {
        let mut first = Ok(());
        for (param, path, value) in self.0.into_iter().rev() {
            match write_back(&path, &value) {
                // A VE that has ended meanwhile has no limits.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) if first.is_ok() => {
                    first = Err(Error::Refused { param, path, value, source: errno.into() });
                }
                Err(_) => {}
            }
        }
        first
    }
}

/// A mask that was empty, which on v2 is that of the parent, cannot be emptied again while there are processes.
fn write_back(path: &Path, value: &str) -> std::result::Result<(), Errno> {
    match knob::write(path, value) {
        Err(Errno::NOSPC) if value == EMPTY => knob::write(path, &inherited(path).ok_or(Errno::NOSPC)?),
        done => done,
    }
}

/// What an empty mask stands for.
fn inherited(path: &Path) -> Option<String> {
    let file = format!("{}.effective", path.file_name()?.to_str()?);
    knob::read(&path.parent()?.parent()?.join(file)).ok()
}

/// An empty write is none for the kernel; a line break empties the file.
const EMPTY: &str = "\n";

/// The text that brings back what was read: files by disk take one line, and say nothing of a disk without a limit.
fn previous(file: &str, written: &str, text: &str) -> String {
    let by_disk = file == "io.max" || file.starts_with("blkio.throttle.");
    let Some((disk, _)) = written.split_once(' ').filter(|_| by_disk) else {
        return if text.is_empty() { EMPTY.to_owned() } else { text.to_owned() };
    };
    let line = text.lines().find(|line| line.split(' ').next() == Some(disk));
    let free = if file == "io.max" { "rbps=max wbps=max riops=max wiops=max" } else { "0" };
    line.map_or_else(|| format!("{disk} {free}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_what_is_written_back() {
        for (file, written, text, want) in [
            ("cpu.max", "25000 100000", "max 100000", "max 100000"),
            ("cpuset.cpus", "0", "", "\n"),
            ("io.max", "8:0 rbps=1 wbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:0 rbps=1 wbps=1",
                "8:16 rbps=5 wbps=max riops=max wiops=max\n8:0 rbps=9 wbps=max riops=max wiops=7",
                "8:0 rbps=9 wbps=max riops=max wiops=7",
            ),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 4", "8:0 0"),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:0 4", "8:0 4"),
        ] {
            assert_eq!(previous(file, written, text), want, "{file} {text}");
        }
    }

    #[test]
    fn an_empty_mask_is_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ve")).unwrap();
        std::fs::write(dir.path().join("cpuset.cpus.effective"), "0-3\n").unwrap();
        let mask = |file: &str| inherited(&dir.path().join("ve").join(file));
        assert_eq!(mask("cpuset.cpus").map(|text| text.trim_end().to_owned()).as_deref(), Some("0-3"));
        assert_eq!(mask("cpuset.mems"), None);
    }

    #[test]
    fn files_get_their_earlier_values_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pids.max");
        std::fs::write(&path, "70\n").unwrap();
        let step = KnobWrite {
            param: Param::Numproc,
            controller: crate::Controller::Pids,
            file: "pids.max",
            value: "50".to_owned(),
            role: crate::limit_plan::Role::Needed,
        };
        let mut undo = Undo::default();
        undo.remember(&step, &path);
        undo.remember(&step, &dir.path().join("absent"));
        knob::write(&path, "50").unwrap();
        undo.undo().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), "70");
    }
}
