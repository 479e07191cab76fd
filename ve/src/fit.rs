//! Whether a host can go on with a VE that runs on another one: what its processes may have come to rely on.

use std::fs;
use std::path::{Path, PathBuf};

use beancounters::{Hierarchies, VeCgroup};
use criu::{Images, Program, Version};
use serde::{Deserialize, Serialize};
use vzconf::{Config, Ctid, Exit};
use vzsys::idmap::IdRange;
use vzsys::room;

use crate::arrive::{Obstacle, Problem};
use crate::checkpoint;
use crate::error::{Error, Result, describe};
use crate::externals::Externals;
use crate::ids;
use crate::node::{Node, Ve};
use crate::saved::{self, Saved};
use crate::state::State;

/// What a running VE needs where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The version of CRIU that saves it.
    pub criu: (u32, u32, u32),
    /// How its host mounts cgroups: `unified`, `hybrid` or `legacy`.
    pub cgroups: String,
    /// Its ids, which are in its processes.
    pub ids: Option<IdRange>,
    /// What the processors can do that programs look for.
    pub processor: Vec<String>,
    /// It has files in `/proc` that are served by FUSE.
    pub views: bool,
    /// About how much memory it has, in bytes.
    pub memory: u64,
}

impl Needs {
    /// Of a VE that runs.
    ///
    /// # Errors
    /// 16 without a CRIU, 3 when its cgroups cannot be read.
    pub fn of(ve: &Ve<'_>, state: &State) -> Result<Self> {
        let Version { major, minor, sublevel } = checkpoint::program(Exit::Chkpnt)?.version;
        let hierarchies = Hierarchies::detect()?;
        let cgroup = VeCgroup::open(&hierarchies, ve.ctid)?
            .ok_or_else(|| Error::refused(Exit::Chkpnt, "the container's cgroups are gone"))?;
        Ok(Self {
            criu: (major, minor, sublevel),
            cgroups: saved::layout_word(hierarchies.layout()).to_owned(),
            ids: state.ids,
            processor: processor(),
            views: Externals::of(state.init.pid).views(),
            memory: cgroup.processes()?.into_iter().filter_map(resident).sum(),
        })
    }

    /// Of a VE that is suspended: what its dump says.
    ///
    /// # Errors
    /// 17 for a dump that says nothing of itself.
    pub fn of_dump(dump: &Path) -> Result<Self> {
        let saved: Saved =
            Images::peek(dump).map_err(|source| Error::Criu { source, exit: Exit::Restore })?;
        let mut numbers = saved.criu.split('.').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Self {
            criu: (next(), next(), next()),
            cgroups: saved.cgroups,
            ids: saved.ids,
            // It ran here, or it came from where that was checked.
            processor: processor(),
            views: saved.externals.views(),
            // It goes where dumps are, and its size counts as that of files.
            memory: 0,
        })
    }
}

/// Resident bytes of a process; what several share counts several times.
fn resident(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Beginnings of the words for instructions that programs look for before they use them. What else is listed is the
/// kernel's own, and differs between versions of it.
const INSTRUCTIONS: [&str; 44] = [
    "3dnow",
    "abm",
    "adx",
    "aes",
    "amx",
    "asimd",
    "atomics",
    "avx",
    "bmi",
    "clflush",
    "clwb",
    "cx16",
    "erms",
    "f16c",
    "fma",
    "fsgsbase",
    "fsrm",
    "fxsr",
    "gfni",
    "invpcid",
    "lahf",
    "lrcpc",
    "mmx",
    "movbe",
    "movdir",
    "pclmul",
    "pku",
    "pni",
    "popcnt",
    "rdpid",
    "rdrand",
    "rdseed",
    "rdtscp",
    "serialize",
    "sha",
    "sm",
    "sse",
    "ssse",
    "sve",
    "vaes",
    "vpclmul",
    "waitpkg",
    "xop",
    "xsave",
];

/// What this host's processors can do.
fn processor() -> Vec<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags(&text)
}

fn flags(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (name, list) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then_some(list)
    });
    let words = line.unwrap_or_default().split_ascii_whitespace();
    // Of the processor's mode of privilege, and no instruction.
    let wanted = |word: &&str| {
        !matches!(*word, "smep" | "smap" | "smx" | "smca") && INSTRUCTIONS.iter().any(|i| word.starts_with(i))
    };
    let mut flags: Vec<String> = words.filter(wanted).map(str::to_owned).collect();
    flags.sort();
    flags
}

/// What speaks against going on with it here.
pub(crate) fn check(node: &Node, ctid: Ctid, config: &Config, needs: &Needs) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut note = |obstacle, text: String| found.push(Problem { obstacle, text });
    match Program::find() {
        Err(error) => note(Obstacle::Criu, format!("there: {error}")),
        Ok(program) => {
            let (major, minor, sublevel) = needs.criu;
            let theirs = Version { major, minor, sublevel };
            if program.version < theirs {
                let text = format!("CRIU there is {}, older than {theirs} here", program.version);
                note(Obstacle::Criu, text);
            }
        }
    }
    match Hierarchies::detect() {
        Ok(hierarchies) => {
            let here = saved::layout_word(hierarchies.layout());
            if here != needs.cgroups {
                note(Obstacle::Kernel, format!("cgroups there are {here}, and {} here", needs.cgroups));
            }
        }
        Err(error) => note(Obstacle::Kernel, describe(&Error::from(error))),
    }
    match ids::wanted(config, ctid) {
        Ok(here) if here == needs.ids => {}
        Ok(here) => {
            let text = |ids: Option<IdRange>| ids.map_or("none".to_owned(), |ids| ids.base.to_string());
            note(
                Obstacle::Kernel,
                format!(
                    "its user ids begin at {}, and there they would begin at {}",
                    text(needs.ids),
                    text(here)
                ),
            );
        }
        Err(error) => note(Obstacle::Kernel, describe(&error)),
    }
    if needs.views && !Path::new("/dev/fuse").exists() {
        note(Obstacle::Kernel, "there is no FUSE there for its files in /proc".to_owned());
    }
    let here = processor();
    let missing: Vec<&str> =
        needs.processor.iter().filter(|flag| !here.contains(flag)).map(String::as_str).collect();
    if !missing.is_empty() {
        note(Obstacle::Processor, format!("the processor there lacks {}", missing.join(" ")));
    }
    if place(node, ctid, config, needs.memory).is_none() {
        let text = format!("there is no room there for its memory, {} MiB", needs.memory >> 20);
        note(Obstacle::Space, text);
    }
    found
}

/// What is to stay free beside the memory of a VE.
const SPARE: u64 = 64 << 20;

/// Where its memory waits after it has come: in memory, if there is plenty; else where dumps are.
pub(crate) fn place(node: &Node, ctid: Ctid, config: &Config, memory: u64) -> Option<PathBuf> {
    choose(&node.paths.run_root().join(format!("{ctid}.memory")), ctid, config, memory)
}

/// Where it is put before it goes.
pub(crate) fn place_before(ve: &Ve<'_>, memory: u64) -> Option<PathBuf> {
    choose(&ve.run_dir().join("memory"), ve.ctid, &ve.config, memory)
}

fn choose(in_memory: &Path, ctid: Ctid, config: &Config, memory: u64) -> Option<PathBuf> {
    let run = room::above(in_memory);
    // A quarter of it: the VE takes as much again when it is restored.
    if is_tmpfs(&run) && room::free(&run).is_ok_and(|free| free / 4 > memory + SPARE) {
        return Some(in_memory.to_owned());
    }
    let on_disk = config.dump_file()?.with_file_name(format!("{ctid}.memory"));
    let room = room::free(&room::above(&on_disk)).is_ok_and(|free| free > memory + SPARE);
    room.then_some(on_disk)
}

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(TMPFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_processor_only_what_programs_look_for_counts() {
        let text = "processor\t: 0\nflags\t\t: fpu sse sse2 smep avx2 pti pni nopl sha_ni\nbugs\t: x\n";
        assert_eq!(flags(text), ["avx2", "pni", "sha_ni", "sse", "sse2"]);
        assert_eq!(flags("Features\t: fp asimd aes\n"), ["aes", "asimd"]);
        assert!(flags("").is_empty());
    }
}
