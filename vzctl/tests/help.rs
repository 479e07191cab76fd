//! The help texts, word for word. To accept a change: `VZCTL_GOLDEN=write cargo nextest run -p vzctl --test help`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use vzctl::cli::{VERSION, usage, verb_help, verb_words};

fn same_as_golden(name: &str, text: &str) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help").join(format!("{name}.txt"));
    if std::env::var_os("VZCTL_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == text, "{} differs; now it is:\n{text}", path.display());
}

#[test]
fn help_of_each_verb() {
    for verb in verb_words() {
        let text = verb_help(verb, 100).unwrap().render(false);
        assert!(text.contains("Examples:"), "{verb}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{verb} is too wide:\n{text}");
        same_as_golden(verb, &text);
    }
    assert!(verb_help("frob", 80).is_none());
}

#[test]
fn usage_text() {
    same_as_golden("vzctl", &usage().render(false));
}

#[test]
fn libvirt_reads_the_version_from_the_first_line() {
    let text = usage().render(false);
    let line = text.lines().next().unwrap();
    assert_eq!(line, format!("vzctl version {VERSION}"));
    let numbers: Vec<u32> = VERSION.split('.').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 3 && numbers >= vec![3, 0, 23], "{VERSION}");
}

#[test]
fn myadmin_finds_the_options_of_set_in_one_line() {
    let text = usage().render(false);
    let line = text.lines().find(|line| line.contains("vzctl set")).unwrap();
    assert!(line.contains("--force") && line.contains("--reset_ub"), "{line}");
}

#[test]
fn help_hides_what_is_not_for_people() {
    for (verb, option) in [("start", "skip_ve_setup"), ("set", "noatime"), ("start", "--fast")] {
        assert!(!verb_help(verb, 100).unwrap().render(false).contains(option), "{verb} {option}");
    }
}
