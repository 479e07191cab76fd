//! What is read of an ext4 before the kernel is asked to mount it, and the programs that know all of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use vzconf::Exit;
use vzsys::spawn;
use vzsys::{Call, SysError};

use super::{BLOCK, ImageError, Usage};

const OFFSET: u64 = 1024;
const MAGIC: u16 = 0xEF53;
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
const INCOMPAT_RECOVER: u32 = 4;
const RO_COMPAT_QUOTA: u32 = 0x100;
const INCOMPAT_64BIT: u32 = 0x80;
/// What a program's file is called: the open file, and its lock, is its standard input.
const STDIN: &str = "/proc/self/fd/0";

/// The numbers of an ext4 that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Blocks of [`Superblock::block`] bytes.
    pub(super) blocks: u64,
    /// Bytes.
    pub(super) block: u64,
    /// Blocks that the file system takes for itself; `df` does not count them.
    pub(super) overhead: u64,
    pub(super) inodes_per_group: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inode_size: u64,
    /// Blocks kept beside each copy of the superblock, to grow.
    reserved_descriptors: u64,
    state: u16,
    incompat: u32,
    counts_users: bool,
    free_blocks: u64,
    inodes: u64,
    free_inodes: u64,
}

impl Superblock {
    /// Reads it; the error says what it is instead.
    pub(super) fn read(file: &File) -> Result<Self, String> {
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, OFFSET).map_err(|error| format!("it cannot be read ({error})"))?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8; 1024]) -> Result<Self, String> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        if u16_at(0x38) != MAGIC {
            return Err("there is no superblock".to_owned());
        }
        let shift = u32_at(0x18);
        if shift > 6 {
            return Err(format!("its blocks have 2^{} bytes", u64::from(shift) + 10));
        }
        let incompat = u32_at(0x60);
        let wide = |low: usize, high: usize| {
            let high = if incompat & INCOMPAT_64BIT == 0 { 0 } else { u32_at(high) };
            u64::from(u32_at(low)) | u64::from(high) << 32
        };
        let found = Self {
            blocks: wide(0x4, 0x150),
            block: 1024 << shift,
            overhead: u64::from(u32_at(0x248)),
            inodes_per_group: u64::from(u32_at(0x28)),
            blocks_per_group: u64::from(u32_at(0x20)),
            inode_size: u64::from(u16_at(0x58)),
            reserved_descriptors: u64::from(u16_at(0xCE)),
            state: u16_at(0x3A),
            incompat,
            counts_users: u32_at(0x64) & RO_COMPAT_QUOTA != 0 && u32_at(0x240) != 0 && u32_at(0x244) != 0,
            free_blocks: wide(0xC, 0x158),
            inodes: u64::from(u32_at(0x0)),
            free_inodes: u64::from(u32_at(0x10)),
        };
        if found.blocks_per_group == 0 || found.blocks < found.overhead {
            return Err("its superblock makes no sense".to_owned());
        }
        Ok(found)
    }

    /// It was not unmounted, or the kernel found an error in it.
    pub(super) fn is_dirty(&self) -> bool {
        self.incompat & INCOMPAT_RECOVER != 0
            || self.state & STATE_VALID == 0
            || self.state & STATE_ERROR != 0
    }

    /// It has quota of users and of groups.
    pub(super) fn counts_users(&self) -> bool {
        self.counts_users
    }

    /// Bytes of a sector that its device may have.
    pub(super) fn sectors(&self) -> u32 {
        if self.block >= BLOCK { 4096 } else { 512 }
    }

    /// Bytes that `df` shows.
    pub(super) fn usable(&self) -> u64 {
        (self.blocks - self.overhead) * self.block
    }

    /// What `df` would show of it. Exact once it was unmounted.
    pub(super) fn usage(&self) -> Usage {
        let shown = self.blocks - self.overhead;
        Usage {
            bytes: shown * self.block,
            used: shown.saturating_sub(self.free_blocks) * self.block,
            inodes: self.inodes,
            inodes_used: self.inodes.saturating_sub(self.free_inodes),
        }
    }

    /// How many blocks it must have for `df` to show so many bytes, when it takes `overhead` blocks for itself now.
    pub(super) fn blocks_for(&self, bytes: u64, overhead: u64) -> u64 {
        let wanted = bytes.div_ceil(self.block);
        let groups = |blocks: u64| blocks.div_ceil(self.blocks_per_group);
        let own = overhead.saturating_sub(self.tables(groups(self.blocks)));
        let mut blocks = wanted + overhead;
        // One round more could only add a group for the tables of the last one.
        for _ in 0..3 {
            blocks = wanted + own + self.tables(groups(blocks));
        }
        // A last group of less than its tables is left out.
        let least = self.tables(groups(blocks)) - self.tables(groups(blocks) - 1) + SCRAP;
        match blocks % self.blocks_per_group {
            rest @ 1.. if rest < least => blocks - rest + least,
            _ => blocks,
        }
    }

    /// How many blocks a further group must have, when all groups share so many inodes.
    pub(super) fn least_group(&self, inodes: u64) -> u64 {
        let groups = self.blocks.div_ceil(self.blocks_per_group) + 1;
        let table = (inodes.div_ceil(groups) * self.inode_size).div_ceil(self.block);
        table + 3 + (groups * 64).div_ceil(self.block) + self.reserved_descriptors + SCRAP
    }

    /// Blocks that so many groups take for their tables, and some of them for copies of the superblock.
    fn tables(&self, groups: u64) -> u64 {
        let each = 2 + (self.inodes_per_group * self.inode_size).div_ceil(self.block);
        let power = |group: u64, base: u64| base.pow(group.checked_ilog(base).unwrap_or(0)) == group;
        let has_copy = |group: &u64| *group <= 1 || [3, 5, 7].iter().any(|base| power(*group, *base));
        let copies = (0..groups.min(COPIES)).filter(has_copy).count() as u64;
        let descriptors = (groups * 64).div_ceil(self.block) + self.reserved_descriptors;
        groups * each + copies * (1 + descriptors)
    }
}

/// Groups that are looked at for copies: those of a petabyte.
const COPIES: u64 = 1 << 23;
/// Blocks that the kernel wants in a last group besides its tables, and some.
const SCRAP: u64 = 64;

/// How much of the file is journal, in MiB: it is for bursts of writes, and is real space once it was used.
fn journal(bytes: u64) -> u64 {
    match bytes >> 20 {
        0..=63 => 4,
        64..=511 => 8,
        512..=4095 => 32,
        _ => 64,
    }
}

/// Makes an empty file system that fills the file, which is all holes.
pub(super) fn format(file: &File, path: &Path, inodes: u64) -> Result<(), ImageError> {
    let length = file.metadata().map_or(0, |meta| meta.len());
    let journal = format!("size={}", journal(length));
    let inodes = inodes.to_string();
    let mut arguments =
        vec!["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-J", &journal, "-N", &inodes];
    // Holes read as zeros: tables need not be written, nor the kernel do it later.
    arguments.extend(["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1"]);
    run("mkfs.ext4", &arguments, file, path, Exit::CreateImage).and_then(|done| done.expect_at_most(0))
}

/// Has it count what each user and group has, or no longer do that, with what was set for them.
pub(super) fn count_users(file: &File, path: &Path, on: bool) -> Result<(), ImageError> {
    let arguments: &[&str] = if on { &["-Q", "usrquota,grpquota"] } else { &["-O", "^quota"] };
    run("tune2fs", arguments, file, path, Exit::MountImage).and_then(|done| done.expect_at_most(0))
}

/// Checks and mends what can be mended without losing anything.
pub(super) fn mend(file: &File, path: &Path) -> Result<(), ImageError> {
    let done = run("e2fsck", &["-p"], file, path, Exit::MountImage)?;
    damaged_above(1, done)
}

/// e2fsck: 1 mended, 4 not mended, 8 and up it could not work.
fn damaged_above(code: i32, done: Done) -> Result<(), ImageError> {
    match done.code {
        Some(4..8) => Err(ImageError::Damaged { path: done.path, said: done.said }),
        _ => done.expect_at_most(code),
    }
}

/// How a program ended.
struct Done {
    program: &'static str,
    path: std::path::PathBuf,
    code: Option<i32>,
    said: String,
    exit: Exit,
}

impl Done {
    fn expect_at_most(self, code: i32) -> Result<(), ImageError> {
        if self.code.is_some_and(|ended| ended <= code) {
            return Ok(());
        }
        let Self { program, path, said, exit, .. } = self;
        Err(ImageError::Program { program, path, said, exit })
    }
}

/// Runs a program of e2fsprogs on an open file, which stays locked until that program ends, even if we do before.
fn run(
    program: &'static str,
    arguments: &[&str],
    file: &File,
    path: &Path,
    exit: Exit,
) -> Result<Done, ImageError> {
    let output = || -> Result<std::process::Output, SysError> {
        let mut command = spawn::command(program)?;
        let input = file.try_clone().call("dup", || path.display().to_string())?;
        command
            .args(arguments)
            .arg(STDIN)
            .stdin(Stdio::from(input))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env("LC_ALL", "C").output().call("execve", || program)
    };
    let output = output().map_err(ImageError::call(path, exit))?;
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text).replace(STDIN, &path.display().to_string());
    Ok(Done { program, path: path.to_owned(), code: output.status.code(), said: last_words(&text), exit })
}

/// The last lines that say something, as one of plain text.
fn last_words(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().map(plain).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.len().saturating_sub(3);
    if lines.is_empty() { "it said nothing".to_owned() } else { lines[last..].join("; ") }
}
