//! `/sys/devices/system/cpu`: the host's, with the VE's processors, counted from zero.
//!
//! Programs count the directories in it (`htop`, older C libraries) or read which processors are possible (`nproc
//! --all`), and look up what they are like (`lscpu`). Everything else of it is the host's own text, as far as everybody
//! may read that.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use vzconf::Mask;

const HOST: &str = "/sys/devices/system/cpu";
/// Those for everybody.
const READABLE: u32 = 0o004;
/// More than any file there says.
const LONGEST: u64 = 64 * 1024;

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A directory.
    Directory,
    /// A file that everybody may read.
    File,
    /// A symbolic link.
    Link,
}

/// The directory. Paths are relative to it and in the VE's numbers: `cpu0/topology/core_id`; its own is empty.
#[derive(Debug)]
pub struct Processors {
    root: PathBuf,
    /// The host's numbers, by those of the VE.
    numbers: Vec<u32>,
}

impl Processors {
    /// Of a VE that has these of the host's processors, ascending.
    #[must_use]
    pub fn new(numbers: &[u32]) -> Self {
        Self { root: HOST.into(), numbers: numbers.to_owned() }
    }

    /// Where the host has it; `None` for processors that the VE has not.
    fn host(&self, path: &str) -> Option<PathBuf> {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let Some(number) = processor(first) else { return Some(self.root.join(path)) };
        let of_host = self.numbers.get(usize::try_from(number).ok()?)?;
        // Another name for the same, `cpu00`, is nobody's.
        (first == format!("cpu{number}")).then(|| self.root.join(format!("cpu{of_host}")).join(rest))
    }

    /// What there is.
    #[must_use]
    pub fn part(&self, path: &str) -> Option<Part> {
        part(&self.host(path)?)
    }

    /// Names in a directory, in order.
    #[must_use]
    pub fn below(&self, path: &str) -> Vec<(String, Part)> {
        let Some(host) = self.host(path) else { return Vec::new() };
        let entries = fs::read_dir(host).into_iter().flatten().flatten();
        let mut names: Vec<(String, Part)> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, part(&entry.path())?)))
            .filter(|(name, _)| !path.is_empty() || processor(name).is_none())
            .collect();
        if path.is_empty() {
            names.extend((0..self.numbers.len()).map(|number| (format!("cpu{number}"), Part::Directory)));
        }
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        names
    }

    /// What a file says.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let host = self.host(path).filter(|host| part(host) == Some(Part::File))?;
        let name = host.file_name()?.to_str()?;
        match (path, name) {
            ("online" | "possible" | "present", _) => return Some(super::cpu::online(self.numbers.len())),
            // The kernel would wait for whoever switches processors on or off. All that the VE has are on.
            (_, "online") => return Some("1\n".to_owned()),
            _ => {}
        }
        let mut text = String::new();
        fs::File::open(&host).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        Some(match kind(path, name) {
            Kind::List => self.renumber(text.trim().parse::<Mask>().ok().iter().flat_map(Mask::iter)),
            Kind::Bits => self.bits(&text),
            Kind::Text => text,
        })
    }

    /// Where a link leads to. All are relative, and lead to the same in the VE's own `/sys`.
    #[must_use]
    pub fn target(&self, path: &str) -> Option<String> {
        fs::read_link(self.host(path)?).ok()?.into_os_string().into_string().ok()
    }

    /// The VE's among the host's numbers, as the VE counts.
    fn own(&self, of_host: impl Iterator<Item = u32>) -> Vec<u32> {
        let known = of_host.filter_map(|number| self.numbers.binary_search(&number).ok());
        known.filter_map(|at| u32::try_from(at).ok()).collect()
    }

    fn renumber(&self, of_host: impl Iterator<Item = u32>) -> String {
        let words: Vec<String> = self.own(of_host).iter().map(u32::to_string).collect();
        let list = words.join(",").parse::<Mask>().map(|mask| mask.to_string()).unwrap_or_default();
        list + "\n"
    }

    /// Groups of 32 bits in hexadecimal digits, the highest first (`bitmap_print_to_pagebuf`, lib/bitmap-str.c), as many
    /// as the host's.
    fn bits(&self, text: &str) -> String {
        let words: Vec<&str> = text.trim().split(',').collect();
        let value = |word: &&str| u32::from_str_radix(word, 16).unwrap_or(0);
        let of_host: Vec<u32> = (0..)
            .zip(words.iter().rev().map(value))
            .flat_map(|(group, bits)| {
                (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| group * 32 + bit)
            })
            .collect();
        let mut groups = vec![0_u32; words.len()];
        for number in self.own(of_host.into_iter()) {
            if let Some(group) = groups.get_mut(number as usize / 32) {
                *group |= 1 << (number % 32);
            }
        }
        let mut shown = String::new();
        for (group, word) in groups.iter().rev().zip(&words) {
            let comma = if shown.is_empty() { "" } else { "," };
            let width = word.len();
            let _ = write!(shown, "{comma}{group:0width$x}");
        }
        shown + "\n"
    }
}

/// How processors are told.
enum Kind {
    List,
    Bits,
    Text,
}

fn kind(path: &str, name: &str) -> Kind {
    let of_one = path.contains("/topology/") || path.contains("/cache/");
    match name {
        "offline" | "isolated" | "nohz_full" | "enabled" if path == name => Kind::List,
        list if of_one && list.ends_with("_list") => Kind::List,
        bits if of_one
            && (bits.ends_with("_cpus") || bits.ends_with("_siblings") || bits == "shared_cpu_map") =>
        {
            Kind::Bits
        }
        _ => Kind::Text,
    }
}

/// The number in the name of a processor's directory.
fn processor(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("cpu").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

fn part(host: &Path) -> Option<Part> {
    let about = fs::symlink_metadata(host).ok()?;
    let kind = about.file_type();
    if kind.is_dir() {
        Some(Part::Directory)
    } else if kind.is_symlink() {
        Some(Part::Link)
    } else {
        (about.permissions().mode() & READABLE != 0).then_some(Part::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of four processors.
    fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let at = dir.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(&at, text).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(0o444)).unwrap();
        };
        for number in 0..4 {
            put(&format!("cpu{number}/topology/core_id"), &format!("{number}\n"));
            put(&format!("cpu{number}/topology/core_cpus_list"), "1-3\n");
            put(&format!("cpu{number}/topology/core_cpus"), "00000000,0000000e\n");
            put(&format!("cpu{number}/online"), "0\n");
        }
        put("online", "0-3\n");
        put("possible", "0-7\n");
        put("offline", "4-7\n");
        put("isolated", "2\n");
        put("kernel_max", "8191\n");
        put("secret", "x\n");
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink("../../node/node0", dir.path().join("cpu3/node0")).unwrap();
        dir
    }

    fn of(dir: &tempfile::TempDir, numbers: &[u32]) -> Processors {
        Processors { root: dir.path().to_owned(), numbers: numbers.to_owned() }
    }

    #[test]
    fn a_ve_has_its_processors_from_zero_and_no_others() {
        let dir = host();
        let two = of(&dir, &[1, 3]);
        let names: Vec<String> = two.below("").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cpu0", "cpu1", "isolated", "kernel_max", "offline", "online", "possible"]);
        assert_eq!(two.part("cpu1"), Some(Part::Directory));
        for none in ["cpu2", "cpu00", "cpu01", "cpu4294967296/x", "secret", "nosuch", "cpu2/topology/core_id"]
        {
            assert_eq!((two.part(none), two.text(none)), (None, None), "{none}");
        }
        assert_eq!(two.text("cpu1/topology/core_id").unwrap(), "3\n");
        assert_eq!(two.target("cpu1/node0").unwrap(), "../../node/node0");
        assert_eq!((two.part("cpu1/node0"), two.part("cpu0/node0")), (Some(Part::Link), None));
    }

    #[test]
    fn lists_and_bits_are_in_the_ves_numbers() {
        let dir = host();
        let say = |numbers: &[u32], path| of(&dir, numbers).text(path).unwrap();
        for path in ["online", "possible"] {
            assert_eq!((say(&[1, 3], path), say(&[2], path)), ("0-1\n".into(), "0\n".into()));
        }
        assert_eq!((say(&[1, 3], "offline"), say(&[1, 3], "kernel_max")), ("\n".into(), "8191\n".into()));
        assert_eq!((say(&[1, 3], "isolated"), say(&[1, 2, 3], "isolated")), ("\n".into(), "1\n".into()));
        assert_eq!(say(&[1, 3], "cpu1/online"), "1\n");
        assert_eq!(say(&[0, 1, 3], "cpu0/topology/core_cpus_list"), "1-2\n");
        assert_eq!(say(&[0, 1, 3], "cpu0/topology/core_cpus"), "00000000,00000006\n");
        assert_eq!(say(&[0], "cpu0/topology/core_cpus"), "00000000,00000000\n");
    }

    #[test]
    fn all_of_the_hosts_own_can_be_had_when_the_ve_has_all() {
        let count = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        let numbers: Vec<u32> = (0..count).collect();
        let own = Processors::new(&numbers);
        for path in ["online", "kernel_max", "cpu0/topology/core_cpus", "cpu0/topology/core_cpus_list"] {
            let there = fs::read_to_string(Path::new(HOST).join(path)).ok();
            assert!(there.is_none() || own.text(path) == there, "{path}: {:?}, {there:?}", own.text(path));
        }
    }
}
