//! The command line: short options bundled and glued (`-Ho veid`, `-octid`), long ones shortened
//! as far as they stay clear, options and CTIDs in any order, `--` ends the options.

use super::fields::Field;

/// Fields shown when none are named.
const DEFAULT: &str = "ctid,numproc,status,ip,hostname";
/// Fields of `-n`.
const BY_NAME: &str = "smart_name,numproc,status,ip,hostname";

/// A refused command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an option of ours, or one used wrongly. The help is worth a hint.
    #[error("vzlist: {0}")]
    Syntax(String),
    /// `-o` with a field that does not exist.
    #[error("Unknown field: {0}")]
    UnknownField(String),
    /// `-s` with a field that does not exist.
    #[error("Invalid sort field name: {0}")]
    UnknownSort(String),
    /// `-j` with one number of a group.
    #[error("Field `{0}' is not available in JSON output")]
    NotInJson(String),
}

/// Which VEs are wanted, CTIDs and patterns aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Running ones.
    Running,
    /// All that have a config.
    All,
    /// All but the running ones.
    Stopped,
}

/// How the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In columns.
    Text,
    /// One JSON array.
    Json,
}

/// The order of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Sort {
    /// What they are compared by.
    pub field: &'static Field,
    /// Whether the order is turned round.
    pub reversed: bool,
}

/// What to list, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which VEs.
    pub scope: Scope,
    /// CTIDs and names as given.
    pub named: Vec<String>,
    /// Pattern for the host name.
    pub hostname: Option<String>,
    /// Pattern for the name.
    pub name: Option<String>,
    /// Pattern for the description.
    pub description: Option<String>,
    /// Columns.
    pub fields: Vec<&'static Field>,
    /// Order; none is by CTID.
    pub sort: Option<Sort>,
    /// Text or JSON.
    pub form: Form,
    /// Whether the headings are shown.
    pub header: bool,
    /// Whether long values are cut to their columns.
    pub trim: bool,
}

/// What the command line asks for.
#[derive(Debug, Clone)]
pub enum Request {
    /// Listing VEs.
    List(Box<Options>),
    /// `-L`
    FieldNames,
    /// `--help`
    Help,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Argument,
}

/// Long name, letter, argument. `--help` has no letter of its own that anybody should use.
const OPTIONS: &[(&str, char, Takes)] = &[
    ("all", 'a', Takes::Nothing),
    ("stopped", 'S', Takes::Nothing),
    ("name", 'n', Takes::Nothing),
    ("no-header", 'H', Takes::Nothing),
    ("no-trim", 't', Takes::Nothing),
    ("json", 'j', Takes::Nothing),
    ("output", 'o', Takes::Argument),
    ("", '1', Takes::Nothing),
    ("sort", 's', Takes::Argument),
    ("hostname", 'h', Takes::Argument),
    ("name_filter", 'N', Takes::Argument),
    ("description", 'd', Takes::Argument),
    ("list", 'L', Takes::Nothing),
    ("help", '\0', Takes::Nothing),
];

/// What has been read so far.
#[derive(Debug, Default)]
struct Words {
    all: bool,
    stopped: bool,
    json: bool,
    no_header: bool,
    no_trim: bool,
    fields: Option<String>,
    sort: Option<Sort>,
    hostname: Option<String>,
    name: Option<String>,
    description: Option<String>,
    named: Vec<String>,
}

/// Reads the command line, without the program's own name.
pub fn parse<I: IntoIterator<Item = String>>(arguments: I) -> Result<Request, Error> {
    let mut arguments = arguments.into_iter();
    let mut words = Words::default();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            words.named.extend(arguments);
            break;
        }
        let asked = if let Some(long) = argument.strip_prefix("--") {
            words.long(long, &mut arguments)?
        } else if argument.len() > 1 && argument.starts_with('-') {
            words.bundle(&argument[1..], &mut arguments)?
        } else {
            words.named.push(argument);
            None
        };
        if let Some(request) = asked {
            return Ok(request);
        }
    }
    words.finish().map(|options| Request::List(Box::new(options)))
}

impl Words {
    fn long(&mut self, word: &str, rest: &mut dyn Iterator<Item = String>) -> Result<Option<Request>, Error> {
        let (word, glued) = word.split_once('=').map_or((word, None), |(w, v)| (w, Some(v.to_owned())));
        let (name, letter, takes) = long_option(word)?;
        let argument = match (takes, glued) {
            (Takes::Nothing, Some(_)) => {
                return Err(Error::Syntax(format!("option '--{name}' doesn't allow an argument")));
            }
            (Takes::Nothing, None) => String::new(),
            (Takes::Argument, Some(glued)) => glued,
            (Takes::Argument, None) => {
                rest.next().ok_or_else(|| Error::Syntax(format!("option '--{name}' requires an argument")))?
            }
        };
        self.take(letter, argument)
    }

    fn bundle(
        &mut self,
        letters: &str,
        rest: &mut dyn Iterator<Item = String>,
    ) -> Result<Option<Request>, Error> {
        for (at, letter) in letters.char_indices() {
            let known = OPTIONS.iter().find(|(_, known, _)| *known == letter);
            let Some((_, _, takes)) = known else {
                return Err(Error::Syntax(format!("invalid option -- '{letter}'")));
            };
            if *takes == Takes::Nothing {
                if let Some(request) = self.take(letter, String::new())? {
                    return Ok(Some(request));
                }
                continue;
            }
            let glued = &letters[at + letter.len_utf8()..];
            let argument = if glued.is_empty() {
                rest.next()
                    .ok_or_else(|| Error::Syntax(format!("option requires an argument -- '{letter}'")))?
            } else {
                glued.to_owned()
            };
            return self.take(letter, argument);
        }
        Ok(None)
    }

    /// Notes one option; those that end everything (`-L`, `--help`) come back as a request.
    fn take(&mut self, letter: char, argument: String) -> Result<Option<Request>, Error> {
        match letter {
            'a' => self.all = true,
            'S' => self.stopped = true,
            'n' => self.fields = Some(BY_NAME.to_owned()),
            'H' => self.no_header = true,
            't' => self.no_trim = true,
            'j' => self.json = true,
            'o' => self.fields = Some(argument),
            '1' => {
                self.fields = Some("veid".to_owned());
                self.no_header = true;
            }
            's' => self.sort = Some(sort(&argument)?),
            'h' => self.hostname = Some(argument),
            'N' => self.name = Some(argument),
            'd' => self.description = Some(argument),
            'L' => return Ok(Some(Request::FieldNames)),
            _ => return Ok(Some(Request::Help)),
        }
        Ok(None)
    }

    fn finish(self) -> Result<Options, Error> {
        let form = if self.json { Form::Json } else { Form::Text };
        Ok(Options {
            scope: match (self.stopped, self.all) {
                (true, _) => Scope::Stopped,
                (false, true) => Scope::All,
                (false, false) => Scope::Running,
            },
            named: self.named,
            hostname: self.hostname,
            name: self.name,
            description: self.description,
            fields: columns(self.fields.as_deref(), form)?,
            sort: self.sort,
            form,
            header: !self.no_header,
            trim: !self.no_trim,
        })
    }
}

/// The option a long word stands for: the one of that name, else the only one it begins.
fn long_option(word: &str) -> Result<(&'static str, char, Takes), Error> {
    let named = || OPTIONS.iter().filter(|(name, _, _)| !name.is_empty());
    if let Some(exact) = named().find(|(name, _, _)| *name == word) {
        return Ok(*exact);
    }
    let begun: Vec<_> = named().filter(|(name, _, _)| name.starts_with(word)).collect();
    match begun[..] {
        [only] => Ok(*only),
        [] => Err(Error::Syntax(format!("unrecognized option '--{word}'"))),
        _ => {
            let names: Vec<_> = begun.iter().map(|(name, _, _)| format!("'--{name}'")).collect();
            let names = names.join(" ");
            Err(Error::Syntax(format!("option '--{word}' is ambiguous; possibilities: {names}")))
        }
    }
}

fn sort(argument: &str) -> Result<Sort, Error> {
    let (reversed, name) = match argument.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, argument),
    };
    let field = Field::find(name).ok_or_else(|| Error::UnknownSort(argument.to_owned()))?;
    Ok(Sort { field, reversed })
}

fn columns(words: Option<&str>, form: Form) -> Result<Vec<&'static Field>, Error> {
    let words = match (words, form) {
        (Some(words), _) => words.strip_suffix(',').unwrap_or(words),
        (None, Form::Text) => DEFAULT,
        (None, Form::Json) => {
            return Ok(super::fields::field_table().iter().filter(|field| !field.is_suffixed()).collect());
        }
    };
    let fields = words.split(',').map(|name| {
        let field = Field::find(name).ok_or_else(|| Error::UnknownField(name.to_owned()))?;
        if form == Form::Json && field.is_suffixed() {
            return Err(Error::NotInJson(name.to_owned()));
        }
        Ok(field)
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, Error> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn listed(line: &str) -> Options {
        match read(line) {
            Ok(Request::List(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn names(options: &Options) -> String {
        options.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn options_may_be_bundled_glued_shortened_and_mixed_with_ids() {
        let o = listed("-a -ovpsid,status -H");
        assert_eq!((o.scope, o.header, names(&o).as_str()), (Scope::All, false, "vpsid,status"));
        let o = listed("101 -ostatus -H 102");
        assert_eq!((o.named.join(" ").as_str(), names(&o).as_str()), ("101 102", "status"));
        assert_eq!(names(&listed("-Ho veid")), "veid");
        assert_eq!(names(&listed("-jo ctid")), "ctid");
        assert_eq!(names(&listed("-H -S -octid")), "ctid");
        assert_eq!(
            names(&listed("--no-header --all --output ctid,status,description")),
            "ctid,status,description"
        );
        assert_eq!(names(&listed("--out=ctid")), "ctid");
        assert_eq!(listed("--descr *glob*").description.as_deref(), Some("*glob*"));
        assert_eq!(listed("--description=*x*").description.as_deref(), Some("*x*"));
        assert_eq!(listed("-- -x 101").named, ["-x", "101"]);
        assert_eq!(names(&listed("-o ctid,name,")), "ctid,name");
    }

    #[test]
    fn later_field_lists_replace_earlier_ones() {
        assert_eq!(names(&listed("-a1")), "veid");
        assert_eq!(names(&listed("-1 -o name")), "name");
        assert_eq!(names(&listed("-o name -1")), "veid");
        assert_eq!(names(&listed("-n")), "smart_name,numproc,status,ip,hostname");
        assert_eq!(names(&listed("")), DEFAULT);
    }

    #[test]
    fn name_is_not_taken_for_the_start_of_name_filter() {
        assert_eq!(names(&listed("--name")), BY_NAME);
        assert_eq!(listed("--name_ x*").name.as_deref(), Some("x*"));
    }

    #[test]
    fn sorting_takes_a_sign() {
        let sort = listed("-s -bootorder").sort.unwrap();
        assert_eq!((sort.field.name, sort.reversed), ("bootorder", true));
        let sort = listed("--sort numproc.b").sort.unwrap();
        assert_eq!((sort.field.name, sort.reversed), ("numproc.b", false));
    }

    #[test]
    fn bad_lines_are_refused_with_the_reference_words() {
        for (line, text) in [
            ("-o ctid,foo", "Unknown field: foo"),
            ("-s -foo", "Invalid sort field name: -foo"),
            ("-j -o ctid,numproc.l", "Field `numproc.l' is not available in JSON output"),
            ("-x", "vzlist: invalid option -- 'x'"),
            ("--foo", "vzlist: unrecognized option '--foo'"),
            ("-o", "vzlist: option requires an argument -- 'o'"),
            ("--output", "vzlist: option '--output' requires an argument"),
            ("--all=1", "vzlist: option '--all' doesn't allow an argument"),
            ("--no-", "vzlist: option '--no-' is ambiguous; possibilities: '--no-header' '--no-trim'"),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), text, "{line}");
        }
        assert_eq!(parse(["-o".to_owned(), String::new()]).unwrap_err(), Error::UnknownField(String::new()));
    }

    #[test]
    fn h_is_a_filter_and_help_is_not() {
        assert_eq!(listed("-h ct*").hostname.as_deref(), Some("ct*"));
        assert!(matches!(read("-a --help"), Ok(Request::Help)));
        assert!(matches!(read("-L -o nonsense"), Ok(Request::FieldNames)));
    }
}
