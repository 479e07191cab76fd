//! `vztmpl import` and `export` of OCI and Docker images.

use std::path::PathBuf;

use clap::ArgMatches;
use serde_json::json;
use templates::oci::{self, Access, How, Platform, Preference, Source};
use vzconf::Exit;

use super::progress::Bar;
use super::{Failure, Front, given_name, print, print_json, replace, text};

/// Options that only images have.
const ONLY: [&str; 4] = ["arch", "init", "max-size", "authfile"];

impl From<oci::OciError> for Failure {
    fn from(error: oci::OciError) -> Self {
        Self::of(error.exit(), &error)
    }
}

/// The image that a word names, if it names one.
pub(super) fn source(word: &str) -> Result<Option<Source>, Failure> {
    Ok(Source::parse(word)?)
}

/// What concerns images has no meaning for trees and tarballs.
pub(super) fn refuse_options(options: &ArgMatches) -> Result<(), Failure> {
    let given = ONLY.iter().find(|id| options.get_one::<String>(id).is_some()).copied();
    match given.or_else(|| options.get_flag("plain-http").then_some("plain-http")) {
        Some(option) => {
            let message = format!("--{option} is for images: oci:DIR, docker-archive:FILE, docker://NAME");
            Err(Failure::new(Exit::InvalidSyntax, message))
        }
        None => Ok(()),
    }
}

fn how(options: &ArgMatches) -> Result<How, Failure> {
    let bad = |reason: String| Failure::new(Exit::InvalidValue, reason);
    let word = |id: &str| options.get_one::<String>(id);
    let platform = word("arch").map(|word| word.parse::<Platform>()).transpose().map_err(bad)?;
    let init = word("init").map_or(Ok(Preference::Auto), |word| word.parse()).map_err(bad)?;
    let size = word("max-size").map_or("64G", String::as_str);
    let most = vzconf::units::parse_amount(size, vzconf::units::Unit::Bytes, vzconf::units::Rounding::Up)
        .map_err(|error| bad(format!("bad --max-size: {error}")))?;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/vztmpl"));
    let access =
        Access { plain_http: options.get_flag("plain-http"), auth_file: word("authfile").map(PathBuf::from) };
    Ok(How { platform, most, init, init_program: ve::helper(&program, "vzinit"), access })
}

impl Front<'_> {
    pub(super) fn import_image(&self, source: &Source, options: &ArgMatches) -> Result<(), Failure> {
        let name = given_name(options).unwrap_or_else(|| source.default_name());
        let how = how(options)?;
        let bar = Bar::new(&format!("Importing {name}"), self.quiet);
        let template =
            oci::import(&self.cache, source, &name, &how, replace(options), &mut |event| bar.show(event))?;
        drop(bar);
        self.made(&template)
    }

    pub(super) fn export(&self, options: &ArgMatches) -> Result<(), Failure> {
        let template = self.cache.find(text(options, "name"))?;
        let word = text(options, "target");
        let target = source(word)?.ok_or_else(|| {
            Failure::new(Exit::InvalidValue, format!("bad target '{word}': it is written oci:DIR[:TAG]"))
        })?;
        let bar = Bar::new(&format!("Exporting {}", template.name), self.quiet);
        let done = oci::export(&template, &target, &mut |event| bar.show(event))?;
        drop(bar);
        if self.json {
            print_json(&json!({
                "name": template.name,
                "target": target.to_string(),
                "tag": done.tag,
                "digest": done.digest,
                "size": done.size,
            }))?;
        } else if !self.quiet {
            print(&format!("Template {} was exported to {target} ({})\n", template.name, done.digest));
        }
        Ok(())
    }
}
