//! Editing configuration text: blocks between markers, `KEY=value` lines. Everything else stays as it is.

/// How bytes became text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    /// Each byte one character: nothing of an old Latin-1 file is lost on the way back.
    Bytes,
}

pub(super) fn decode(content: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(content) {
        Ok(text) => (text.to_owned(), Encoding::Utf8),
        Err(_) => (content.iter().map(|b| char::from(*b)).collect(), Encoding::Bytes),
    }
}

pub(super) fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        // What we add ourselves is ASCII.
        Encoding::Bytes => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
    }
}

/// The first line of what we own in a file.
pub(super) const BEGIN: &str = "# BEGIN vz: written by the host at each start, do not edit";
/// The last line of it.
pub(super) const END: &str = "# END vz";
/// Before a line of the guest's that is out of force.
pub(super) const OFF: &str = "#vz: ";

/// The lines joined again, each with its line break.
pub(super) fn join<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The text without our block.
pub(super) fn without_block(text: &str) -> String {
    let mut inside = false;
    let kept = text.lines().filter(|line| {
        let begins = line.starts_with("# BEGIN vz:");
        let ends = *line == END;
        let skip = inside || begins;
        inside = (inside || begins) && !ends;
        !skip
    });
    join(kept)
}

/// The text with our block at its end, and nowhere else. An empty body removes it.
pub(super) fn with_block(text: &str, body: &str) -> String {
    let mut rest = without_block(text);
    if body.is_empty() {
        return rest;
    }
    let end = rest.trim_end_matches('\n').len();
    rest.truncate(end);
    if !rest.is_empty() {
        rest.push_str("\n\n");
    }
    let line_break = if body.ends_with('\n') { "" } else { "\n" };
    format!("{rest}{BEGIN}\n{body}{line_break}{END}\n")
}

fn assigns(line: &str, key: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
}

/// The last value given to a shell variable, without quotes.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().rfind(|line| assigns(line, key))?;
    let value = line.split_once('=')?.1.trim();
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

/// Gives a shell variable this value: in the place of its first assignment, else at the end.
pub(super) fn assign(text: &str, key: &str, new: &str) -> String {
    let line = format!("{key}=\"{new}\"");
    let mut done = false;
    let mut lines = Vec::new();
    for old in text.lines() {
        if !assigns(old, key) {
            lines.push(old);
        } else if !done {
            lines.push(&line);
            done = true;
        }
    }
    if !done {
        lines.push(&line);
    }
    join(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_replaced_and_removed() {
        let one = with_block("a\n", "x\n");
        assert_eq!(one, format!("a\n\n{BEGIN}\nx\n{END}\n"));
        assert_eq!(with_block(&one, "y"), format!("a\n\n{BEGIN}\ny\n{END}\n"));
        assert_eq!(with_block("", "y"), format!("{BEGIN}\ny\n{END}\n"));
        assert_eq!(without_block(&format!("{BEGIN}\nx\n{END}\nafter\n")), "after\n");
    }

    #[test]
    fn assignments() {
        assert_eq!(assign("# A=1\nA=2\nB=3\nA=4\n", "A", "5"), "# A=1\nA=\"5\"\nB=3\n");
        assert_eq!(assign("B=3", "A", "5"), "B=3\nA=\"5\"\n");
        assert_eq!(value("A=1\nA='two words'\nAB=3\n", "A"), Some("two words"));
        assert_eq!(value("#A=1\n", "A"), None);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(content: Vec<u8>) {
            let (text, encoding) = decode(&content);
            prop_assert_eq!(encode(&text, encoding), content);
        }

        #[test]
        fn a_block_is_idempotent(text in "([a-z# ]{0,6}\n){0,6}", body in "[a-z]{1,8}\n") {
            let once = with_block(&text, &body);
            prop_assert_eq!(with_block(&once, &body), once);
        }
    }
}
