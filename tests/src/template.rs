//! OS templates for the tests: made once by `vztmpl build`, kept beside the nodes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::ctid::locked;
use crate::inside::{HOST_CACHE, skip};
use crate::node::Node;
use crate::outside::{NET, home};
use crate::run::{Background, Run, command, run};

const CACHE: &str = "/vz/template/cache";
/// Debian 12 with the programs that tests have at work in a container: its name, and how it is built.
pub const PROGRAMS: (&str, [&str; 4]) = (
    "programs",
    [
        "--suite",
        "bookworm",
        "--include",
        "nginx-light,postgresql,redis-server,openssh-server,wrk,redis-tools,htop",
    ],
);
/// How long a template of a distribution may take.
const BUILD: Duration = Duration::from_secs(1200);

/// The tiny template: made anew when `vztmpl` has changed.
pub(crate) fn tiny(node: &Node) {
    if !archives(Path::new(CACHE), "tiny").is_empty() {
        return;
    }
    let built = fs::metadata(node.program("vztmpl")).and_then(|meta| meta.modified()).unwrap();
    let stamp = built.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let shared = home().join("templates").join(format!("tiny-{stamp}"));
    fs::create_dir_all(&shared).unwrap();
    let _lock = locked(File::create(shared.join("lock")).unwrap());
    if archives(&shared, "tiny").is_empty() {
        node.vztmpl(&["build", "tiny"]).ok();
        copy_archives(Path::new(CACHE), &shared, "tiny");
    } else {
        copy_archives(&shared, Path::new(CACHE), "tiny");
    }
}

/// A template of a distribution: the host's own, or built once.
pub(crate) fn built(node: &Node, name: &str, options: &[&str]) -> bool {
    if bind(Path::new(HOST_CACHE), name) {
        return true;
    }
    let shared = home().join("templates").join(name);
    fs::create_dir_all(&shared).unwrap();
    let _lock = locked(File::create(shared.join("lock")).unwrap());
    if archives(&shared, name).is_empty() {
        let run = build(node, name, options);
        if run.code != 0 {
            println!("{run}");
            skip(&format!("the template {name}, which cannot be built here"));
            return false;
        }
        copy_archives(Path::new(CACHE), &shared, name);
    }
    bind(&shared, name)
}

/// Shows the archives of another directory in the cache; whether there are any.
fn bind(from: &Path, name: &str) -> bool {
    for archive in archives(from, name) {
        let at = Path::new(CACHE).join(archive.file_name().unwrap());
        if !at.exists() {
            File::create(&at).unwrap();
            run("mount", &["--bind", archive.to_str().unwrap(), at.to_str().unwrap()]).ok();
        }
    }
    !archives(from, name).is_empty()
}

/// Where an update of the archive is half-way through, its plain release is built from alone.
fn build(node: &Node, name: &str, options: &[&str]) -> Run {
    let words = [&["build", name], options].concat();
    let run = with_network(node, &words);
    match main_archive() {
        Some(mirror) if run.text().contains("does not hold together") => {
            println!("{run}\n{name} is built without its updates");
            with_network(node, &[&words[..], &["--mirror", &mirror]].concat())
        }
        _ => run,
    }
}

/// The node has no way out of its network; a build needs the distribution's archive.
fn with_network(node: &Node, arguments: &[&str]) -> Run {
    let net = format!("--net={NET}");
    let vztmpl = node.program("vztmpl");
    let words = [&[&net, vztmpl.to_str().unwrap()], arguments].concat();
    Background::spawn(command("nsenter", &words), &[]).finish_within(BUILD)
}

/// The archive of the host's own release, by its apt.
fn main_archive() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let targets =
        run("apt-get", &["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
    targets.out().lines().find_map(|line| Some(line.strip_prefix(release)?.strip_prefix(' ')?.to_owned()))
}

fn archives(dir: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
    };
    entries.filter(ours).collect()
}

fn copy_archives(from: &Path, to: &Path, name: &str) {
    for path in archives(from, name) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
