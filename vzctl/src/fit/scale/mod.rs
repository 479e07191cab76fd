//! vzcfgscale(8): a configuration made larger or smaller.

mod factor;
mod plan;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use vzconf::change::Changes;
use vzconf::params::Verb;
use vzconf::{ConfFile, Config, Ctid, Lock, Paths};

use self::factor::Factor;
use self::plan::{Factors, Scaled};
use super::subject::{Subject, owner};
use super::validate::{check, node_config};
use super::words::{Grammar, Known, Words};
use super::{Error, Outcome, Talk};

const GRAMMAR: Grammar = Grammar {
    program: "vzcfgscale",
    options: &[
        Known { short: 'o', long: "output-file", value: true },
        Known { short: 'a', long: "all", value: true },
        Known { short: 'c', long: "cpu-only", value: true },
        Known { short: 'd', long: "disk-only", value: true },
        Known { short: 'u', long: "ubc-only", value: true },
        Known { short: 'n', long: "network-only", value: true },
        Known { short: 'v', long: "validate", value: false },
        Known { short: 'r', long: "remove", value: false },
    ],
    operands: 1,
};

/// Runs vzcfgscale.
///
/// # Errors
/// Those of the command line and the files; of a running container that cannot be changed, and then nothing is written.
pub fn run(words: &[String], paths: &Paths, talk: &mut Talk<'_>) -> Result<Outcome, Error> {
    let Some(words) = GRAMMAR.read(words)? else {
        talk.print(include_str!("../help/vzcfgscale.txt"))?;
        return Ok(Outcome::Good);
    };
    let request = Request::read(&words, paths)?;
    let subject = Subject::open(&request.input, paths)?;
    let alone = Config::without_node(paths).with_sample(&subject.path, subject.file.clone());
    let mut scaled = plan::scale(&alone, &request.factors)?;
    for doubt in &scaled.doubts {
        talk.complain(&format!("Warning: {doubt}"));
    }
    if request.remove {
        plan::strip(&mut scaled.file);
    }
    let global = node_config(paths, talk);
    if request.validate {
        let new = Subject { path: subject.path.clone(), file: scaled.file.clone(), ctid: subject.ctid };
        if check(&new.config(&global), talk)? == Outcome::Unfit {
            return Err(Error::Unfit);
        }
    }
    // A sample that is made of a VE says nothing of the VE itself.
    let live = subject.ctid.filter(|ctid| !ctid.is_host() && !request.remove);
    let target = request.output.as_deref().and_then(|path| owner(path, paths));
    let _locks = lock(&global, live, target)?;
    if let Some(ctid) = live {
        apply(&subject, ctid, &scaled, paths, target, talk)?;
    }
    match &request.output {
        Some(path) => replace(path, &scaled.file)?,
        None => talk.print(scaled.file.to_bytes())?,
    }
    talk.complain("Scale completed: success");
    Ok(Outcome::Good)
}

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    input: PathBuf,
    output: Option<PathBuf>,
    factors: Factors,
    remove: bool,
    validate: bool,
}

impl Request {
    fn read(words: &Words, paths: &Paths) -> Result<Self, Error> {
        let factor = |option: char| match words.value(option) {
            None => Ok(None),
            Some(text) => Factor::parse(text)
                .map(Some)
                .ok_or_else(|| GRAMMAR.refuse(format!("Bad parameter {text} (expected a number above 0)"))),
        };
        let all = factor('a')?;
        let of = |option: char| factor(option).map(|own| own.or(all));
        let factors = Factors { ubc: of('u')?, cpu: of('c')?, disk: of('d')?, net: of('n')? };
        let (remove, validate) = (words.has('r'), words.has('v'));
        let [input] = words.operands.as_slice() else {
            return Err(GRAMMAR.refuse("no configuration file is named"));
        };
        if factors == Factors::default() && !remove && !validate {
            return Err(GRAMMAR.refuse("nothing to scale by: give -a, -c, -d, -u or -n"));
        }
        let output = words.value('o').map(PathBuf::from);
        if let Some(path) = &output {
            if path.is_dir() {
                return Err(Error::Directory(path.display().to_string()));
            }
            if remove && let Some(ctid) = owner(path, paths) {
                let path = path.display();
                return Err(
                    GRAMMAR.refuse(format!("-r makes a sample, and {path} is container {ctid}'s own"))
                );
            }
        }
        Ok(Self { input: PathBuf::from(input), output, factors, remove, validate })
    }
}

/// Keeps verbs from the VEs that are concerned, in the order of their numbers.
fn lock(global: &Config, live: Option<Ctid>, target: Option<Ctid>) -> Result<Vec<Lock>, Error> {
    // Whoever is not root cannot change a VE that runs, nor its configuration: nothing is to be kept off.
    let live = live.filter(|_| is_root());
    let mut concerned: Vec<Ctid> = live.into_iter().chain(target).collect();
    concerned.sort_unstable();
    concerned.dedup();
    let take = |ctid| Ok(Lock::acquire_as(&global.lock_dir(), ctid, GRAMMAR.program)?);
    concerned.into_iter().map(take).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Applies what has changed if the VE runs. All of it or nothing.
fn apply(
    subject: &Subject,
    ctid: Ctid,
    scaled: &Scaled,
    paths: &Paths,
    target: Option<Ctid>,
    talk: &mut Talk<'_>,
) -> Result<(), Error> {
    if ConfFile::load(&subject.path)? != subject.file {
        return Err(Error::Changed(subject.path.display().to_string()));
    }
    // A node that was never set up runs nothing.
    if !paths.vz_conf().exists() {
        return Ok(());
    }
    let saved = target == Some(ctid);
    let say = Box::new(move |level: i32, text: &str| {
        // What is applied and not saved is told; here it may be.
        if level < 0 || (level == 0 && !saved) {
            eprintln!("{text}");
        }
    });
    let node = ve::Node::open(paths.clone(), say)?;
    let mut ve = node.ve(ctid)?;
    if ve.running().is_none() || scaled.options.is_empty() {
        return Ok(());
    }
    if !is_root() {
        talk.complain(&format!("Warning: CT {ctid} is running; only root can apply parameters to it"));
        return Ok(());
    }
    talk.complain(&format!("CT {ctid} is running, apply parameters"));
    let changes = Changes::from_options(Verb::Set, &now(&ve, scaled, talk))?;
    ve::set::set(&mut ve, &changes)?;
    Ok(())
}

/// What of it a running VE takes at once. An image gets another size for good and by a verb of its own, not as a side
/// effect of a sample that is only shown.
fn now(ve: &ve::Ve<'_>, scaled: &Scaled, talk: &mut Talk<'_>) -> Vec<(&'static str, String)> {
    let of_disk = |option: &str| matches!(option, "diskspace" | "diskinodes");
    let mut options = scaled.options.clone();
    if options.iter().any(|(option, _)| of_disk(option)) && ve::disk::has_image(ve) {
        options.retain(|(option, _)| !of_disk(option));
        let verb = format!("vzctl set {} --diskspace SIZE --save", ve.ctid);
        talk.complain(&format!(
            "Warning: the disk of CT {} is an image and keeps its size; see {verb}",
            ve.ctid
        ));
    }
    options
}

/// Writes the output file. An older one stays beside it, as the file that it was.
fn replace(path: &Path, file: &ConfFile) -> Result<(), Error> {
    if let Ok(real) = fs::canonicalize(path) {
        let mut backup = real.clone().into_os_string();
        backup.push(".bak");
        let kept = match fs::remove_file(&backup) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::hard_link(&real, &backup),
        };
        let what = || format!("keep {} as {}", real.display(), Path::new(&backup).display());
        kept.map_err(|source| Error::Io { what: what(), source })?;
    }
    Ok(file.save(path)?)
}
