//! vztmpl: templates are listed, built, imported and removed.

mod image;
mod progress;
mod show;
mod source;
mod words;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use serde_json::json;
use templates::build::{self, Event, Identity, Init, Options, Recipe, Replace, Snapshot};
use templates::cache::{Cache, CacheError, Force, Template};
use vzconf::{Config, Exit, Paths};

use self::progress::Bar;
use crate::{check, cli};

/// How a command ends that does not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What to tell.
    pub text: String,
}

impl Failure {
    /// With a text of its own.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// With an error and its causes.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        Self { exit, text: ve::describe(error) }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl From<build::BuildError> for Failure {
    fn from(error: build::BuildError) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl From<vzconf::Error> for Failure {
    fn from(error: vzconf::Error) -> Self {
        Self::of(error.exit(), &error)
    }
}

/// Runs vztmpl; `words` begin with the program's name. Prints, and returns what to exit with.
pub fn run(words: impl IntoIterator<Item = OsString>, paths: &Paths) -> Exit {
    let matches = match cli::matches(words::command(), words) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    let Some((verb, options)) = matches.subcommand() else { return Exit::InvalidSyntax };
    let mut front = match Front::new(paths, options) {
        Ok(front) => front,
        Err(failure) => return complain(&failure),
    };
    match front.verb(verb, options) {
        Ok(()) => front.exit,
        Err(failure) => complain(&failure),
    }
}

fn complain(failure: &Failure) -> Exit {
    check::complain("Error", &failure.text);
    failure.exit
}

struct Front<'a> {
    paths: &'a Paths,
    cache: Cache,
    quiet: bool,
    json: bool,
    /// What a command ends with that went on after a failure.
    exit: Exit,
}

impl<'a> Front<'a> {
    fn new(paths: &'a Paths, options: &ArgMatches) -> Result<Self, Failure> {
        let config = Config::global(paths)?;
        Ok(Self {
            paths,
            cache: Cache::open(&config.template_dir()),
            quiet: options.get_flag("quiet"),
            json: options.get_flag("json"),
            exit: Exit::Ok,
        })
    }

    fn verb(&mut self, verb: &str, options: &ArgMatches) -> Result<(), Failure> {
        match verb {
            "list" => self.list(),
            "info" => self.info(options),
            "build" => self.build(options),
            "import" => self.import(options),
            "export" => self.export(options),
            "create" => self.create(options),
            "rm" => self.rm(options),
            _ => self.verify(options),
        }
    }

    fn list(&self) -> Result<(), Failure> {
        let templates = self.cache.list()?;
        if self.json {
            let list: Vec<_> = templates.iter().map(|template| show::object(&self.cache, template)).collect();
            return print_json(&json!(list));
        }
        if templates.is_empty() && !self.quiet {
            eprintln!(
                "No templates in {}; make one with: vztmpl build tiny",
                self.cache.tarballs().display()
            );
            return Ok(());
        }
        print(&show::table(&templates));
        Ok(())
    }

    fn info(&self, options: &ArgMatches) -> Result<(), Failure> {
        let template = self.cache.find(text(options, "name"))?;
        if self.json {
            return print_json(&show::object(&self.cache, &template));
        }
        print(&show::info(&self.cache, &template, options.get_flag("packages")));
        Ok(())
    }

    fn build(&self, options: &ArgMatches) -> Result<(), Failure> {
        let name = text(options, "name");
        let many = |id| options.get_many::<String>(id).into_iter().flatten().cloned().collect::<Vec<_>>();
        let init = match options.get_one::<String>("init") {
            None => None,
            Some(word) => Some(Init::parse(word).ok_or_else(|| {
                Failure::new(
                    Exit::InvalidValue,
                    format!("unknown init '{word}' (known: systemd, sysvinit, openrc)"),
                )
            })?),
        };
        let wish = Options {
            suite: options.get_one::<String>("suite").cloned(),
            arch: options.get_one::<String>("arch").cloned(),
            variant: options.get_one::<String>("variant").cloned(),
            init,
            include: many("include"),
            mirrors: many("mirror"),
            components: many("components"),
        };
        let replace = replace(options);
        let bar = Bar::new(&format!("Building {name}"), self.quiet);
        let template = if name == build::TINY && wish.suite.is_none() {
            build::tiny(&self.cache, name, replace)?
        } else {
            let recipe = Recipe::new(name, &wish)?;
            build::debian(&self.cache, name, &recipe, replace, &mut |event| bar.show(event))?
        };
        drop(bar);
        self.made(&template)
    }

    fn import(&self, options: &ArgMatches) -> Result<(), Failure> {
        if let Some(source) = image::source(text(options, "source"))? {
            return self.import_image(&source, options);
        }
        let source = Path::new(text(options, "source"));
        image::refuse_options(options)?;
        let name = given_name(options).unwrap_or_else(|| default_name(source));
        let bar = Bar::new(&format!("Importing {name}"), self.quiet);
        let template =
            build::import(&self.cache, source, &name, replace(options), &mut |event| bar.show(event))?;
        drop(bar);
        self.made(&template)
    }

    fn create(&self, options: &ArgMatches) -> Result<(), Failure> {
        let ctid = vzconf::names::resolve(self.paths, text(options, "ctid"))?;
        let name = text(options, "name");
        let tree = source::locate(self.paths, ctid)?;
        let root = tree.path();
        let identity = if options.get_flag("keep") { Identity::Keep } else { Identity::Drop };
        let from = Snapshot { root: &root, shift: tree.shift, identity, origin: format!("container {ctid}") };
        let bar = Bar::new(&format!("Packing container {ctid}"), self.quiet);
        let template =
            build::snapshot(&self.cache, from, name, replace(options), &mut |event| bar.show(event))?;
        drop(bar);
        self.made(&template)
    }

    /// Unpacks it for the first container, and tells.
    fn made(&self, template: &Template) -> Result<(), Failure> {
        let bar = Bar::new("Unpacking", self.quiet);
        drop(self.cache.base(template, |progress| bar.show(Event::Progress(progress)))?);
        drop(bar);
        if self.json {
            print_json(&show::object(&self.cache, template))?;
        } else if !self.quiet {
            print(&format!("Template {} is ready: vzctl create CTID --ostemplate {0}\n", template.name));
        }
        Ok(())
    }

    fn rm(&self, options: &ArgMatches) -> Result<(), Failure> {
        let force = if options.get_flag("force") { Force::Yes } else { Force::No };
        for name in names(options) {
            self.cache.rm(&name, force)?;
            if !self.quiet {
                print(&format!("Template {name} was removed\n"));
            }
        }
        Ok(())
    }

    /// All of them, whatever one is like.
    fn verify(&mut self, options: &ArgMatches) -> Result<(), Failure> {
        let mut names = names(options);
        if names.is_empty() {
            names = self.cache.list()?.into_iter().map(|template| template.name).collect();
        }
        let mut results = Vec::new();
        for name in names {
            let bar = Bar::new(&format!("Verifying {name}"), self.quiet);
            let result = self.cache.verify(&name, |progress| bar.show(Event::Progress(progress)));
            drop(bar);
            let fault = result.err().map(Failure::from);
            if let Some(failure) = &fault {
                self.exit = complain(failure);
            } else if !self.quiet && !self.json {
                print(&format!("{name}: OK\n"));
            }
            results.push(
                json!({"name": name, "ok": fault.is_none(), "error": fault.map(|failure| failure.text)}),
            );
        }
        if self.json { print_json(&json!(results)) } else { Ok(()) }
    }
}

fn text<'a>(options: &'a ArgMatches, id: &str) -> &'a str {
    options.get_one::<String>(id).map_or("", String::as_str)
}

fn names(options: &ArgMatches) -> Vec<String> {
    options.get_many::<String>("name").into_iter().flatten().cloned().collect()
}

fn replace(options: &ArgMatches) -> Replace {
    if options.get_flag("force") { Replace::Yes } else { Replace::No }
}

/// `NAME`, or `--name NAME`.
fn given_name(options: &ArgMatches) -> Option<String> {
    options.get_one::<String>("name").or_else(|| options.get_one::<String>("called")).cloned()
}

/// The file's name without what tells its format.
fn default_name(source: &Path) -> String {
    let file = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ends = [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar", ".tgz", ".txz", ".tbz2"];
    ends.iter().find_map(|end| file.strip_suffix(end)).map_or(file.clone(), str::to_owned)
}

fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // `vztmpl list | head` has read what it wants.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::of(Exit::System, &error))?;
    print(&format!("{text}\n"));
    Ok(())
}

#[cfg(test)]
mod tests;
