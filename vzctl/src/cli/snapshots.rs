//! What the verbs of snapshots say on the command line.

use std::path::PathBuf;

use ve::snapshot::Id;

use super::error::UsageError;
use super::grammar::Parsed;
use super::verb::Verb;
use super::word::Kind;

/// Options of `snapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeOptions {
    /// The id it is to have.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Without memory.
    pub skip_suspend: bool,
    /// Without configuration.
    pub skip_config: bool,
}

/// Options of `snapshot-switch`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwitchOptions {
    /// Do not resume its memory.
    pub skip_resume: bool,
    /// It must have memory.
    pub must_resume: bool,
    /// Keep the configuration.
    pub skip_config: bool,
}

/// Options of `snapshot-list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOptions {
    /// Print the headings.
    pub header: bool,
    /// These columns.
    pub fields: Vec<&'static Field>,
    /// Only this one and what it grew out of.
    pub of: Option<Id>,
    /// Print the columns that there are instead.
    pub names: bool,
    /// Print JSON instead.
    pub json: bool,
}

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Its id.
    Uuid,
    /// That of the one it grew out of.
    Parent,
    /// `*` for the one the container stands on.
    Current,
    /// When it was taken.
    Date,
    /// Its name.
    Name,
    /// What it is for.
    Description,
    /// The file system that is mounted.
    Device,
    /// Where it is mounted.
    Target,
}

/// A column of `snapshot-list`.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in `-o`.
    pub name: &'static str,
    /// Another one.
    alias: &'static str,
    /// Its heading.
    pub header: &'static str,
    /// How wide it is, but for the last one of a line.
    pub width: usize,
    /// What it shows.
    pub column: Column,
}

const fn field(
    name: &'static str,
    alias: &'static str,
    header: &'static str,
    width: usize,
    column: Column,
) -> Field {
    Field { name, alias, header, width, column }
}

/// All columns.
pub const FIELDS: &[Field] = &[
    field("uuid", "id", "UUID", 38, Column::Uuid),
    field("parent_uuid", "parent_id", "PARENT_UUID", 38, Column::Parent),
    field("current", "", "C", 1, Column::Current),
    field("date", "", "DATE", 19, Column::Date),
    field("name", "", "NAME", 32, Column::Name),
    field("desc", "", "DESC", 32, Column::Description),
    field("device", "", "DEVICE", 16, Column::Device),
    field("target", "", "TARGET", 32, Column::Target),
];

/// Those that are shown when nothing is said.
const DEFAULT: &str = "parent_uuid,current,uuid,date,name";

fn fields(words: &str) -> Result<Vec<&'static Field>, UsageError> {
    let known = |word: &str| {
        let found = FIELDS.iter().find(|field| field.name == word || field.alias == word && !word.is_empty());
        found.ok_or_else(|| {
            let all: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
            UsageError::value(format!("Unknown field: {word}")).advise(format!("Fields: {}", all.join(",")))
        })
    };
    words.split(',').map(known).collect()
}

fn id(parsed: &Parsed) -> Result<Option<Id>, UsageError> {
    let Some(word) = parsed.value("id") else { return Ok(None) };
    let bad = |error: ve::snapshot::BadId| {
        UsageError::value(format!("Bad parameter for --id: {word}")).advise(error.to_string())
    };
    word.parse().map(Some).map_err(bad)
}

fn needed_id(parsed: &Parsed) -> Result<Id, UsageError> {
    id(parsed)?.ok_or_else(|| UsageError::syntax("Invalid syntax: snapshot id is missing"))
}

/// The verb of a command line.
pub(super) fn verb(kind: Kind, parsed: &Parsed) -> Result<Verb, UsageError> {
    let text = |long: &str| parsed.value(long).unwrap_or_default().to_owned();
    Ok(match kind {
        Kind::Snapshot => Verb::Snapshot(TakeOptions {
            id: id(parsed)?,
            name: text("name"),
            description: text("description"),
            skip_suspend: parsed.flag("skip-suspend"),
            skip_config: parsed.flag("skip-config"),
        }),
        Kind::SnapshotSwitch => Verb::SnapshotSwitch(needed_id(parsed)?, switch(parsed)?),
        Kind::SnapshotDelete => Verb::SnapshotDelete(needed_id(parsed)?),
        Kind::SnapshotMount => {
            let id = needed_id(parsed)?;
            let target = parsed.value("target").filter(|target| !target.is_empty());
            let target =
                target.ok_or_else(|| UsageError::syntax("Invalid syntax: mount target is missing"))?;
            Verb::SnapshotMount(id, PathBuf::from(target))
        }
        Kind::SnapshotUmount => Verb::SnapshotUmount(needed_id(parsed)?),
        _ => Verb::SnapshotList(ListOptions {
            header: !parsed.flag("no-header"),
            fields: fields(parsed.value("output").unwrap_or(DEFAULT))?,
            of: id(parsed)?,
            names: parsed.flag("list"),
            json: parsed.flag("json"),
        }),
    })
}

fn switch(parsed: &Parsed) -> Result<SwitchOptions, UsageError> {
    let options = SwitchOptions {
        skip_resume: parsed.flag("skip-resume"),
        must_resume: parsed.flag("must-resume"),
        skip_config: parsed.flag("skip-config"),
    };
    if options.skip_resume && options.must_resume {
        return Err(UsageError::syntax("Options --skip-resume and --must-resume exclude each other"));
    }
    Ok(options)
}
