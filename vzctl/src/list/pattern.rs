//! Shell patterns for `-h`, `-N` and `-d`: `*`, `?`, `[a-z]`, `[!a-z]`, `[[:digit:]]`, `\`;
//! a `*` crosses slashes and matches a leading dot, as fnmatch(3) without flags does.

/// Whether the whole of `text` matches `pattern`. Takes at most `text × pattern` steps.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: just behind the last star, one character further on.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            star = Some((p, t));
        } else if t == text.len() {
            return p == pattern.len();
        } else if let Some(next) = one(&pattern[p..], text[t]) {
            p += next;
            t += 1;
        } else if let Some((after, from)) = star {
            (p, t) = (after, from + 1);
            star = Some((after, t));
        } else {
            return false;
        }
    }
}

/// Matches one character with the head of a pattern: the length of that head, or none.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        [] => None,
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', rest @ ..] => match set(rest, c) {
            Some((length, true)) => Some(1 + length),
            Some((_, false)) => None,
            // A bracket that is never closed stands for itself.
            None => (c == '[').then_some(1),
        },
        [literal, ..] => (*literal == c).then_some(1),
    }
}

/// Reads a set from behind its `[`: its length up to and with the `]`, and whether `c` is in it.
fn set(pattern: &[char], c: char) -> Option<(usize, bool)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let start = usize::from(negated);
    let (mut at, mut found) = (start, false);
    loop {
        match pattern.get(at..)? {
            [']', ..] if at > start => return Some((at + 1, found != negated)),
            ['[', ':', rest @ ..] if class_end(rest).is_some() => {
                let end = class_end(rest)?;
                found |= in_class(&rest[..end].iter().collect::<String>(), c);
                at += end + 4;
            }
            [low, '-', high, ..] if *high != ']' => {
                found |= (*low..=*high).contains(&c);
                at += 3;
            }
            ['\\', escaped, ..] => {
                found |= *escaped == c;
                at += 2;
            }
            [single, ..] => {
                found |= *single == c;
                at += 1;
            }
            [] => return None,
        }
    }
}

fn class_end(rest: &[char]) -> Option<usize> {
    rest.windows(2).position(|pair| pair == [':', ']'])
}

fn in_class(class: &str, c: char) -> bool {
    match class {
        "alpha" => c.is_alphabetic(),
        "digit" => c.is_ascii_digit(),
        "alnum" => c.is_alphanumeric(),
        "upper" => c.is_uppercase(),
        "lower" => c.is_lowercase(),
        "space" => c.is_whitespace(),
        "blank" => c == ' ' || c == '\t',
        "punct" => c.is_ascii_punctuation(),
        "xdigit" => c.is_ascii_hexdigit(),
        "cntrl" => c.is_control(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_the_shell_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*.example.com", "ct101.example.com", true),
            ("*.example.com", ".example.com", true),
            ("ct*1*.com", "ct/1/1.com", true),
            ("ct?", "ct", false),
            ("ct?", "ct1", true),
            ("ct[0-9]", "ct5", true),
            ("ct[!0-9]", "ct5", false),
            ("ct[^0-9]", "cta", true),
            ("[[:digit:]x]*", "7up", true),
            ("[[:digit:]x]*", "xup", true),
            ("[[:digit:]x]*", "up", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[", "[", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a**b", "ab", true),
            ("Ct", "ct", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(pattern in "[\\[\\]*?!a:\\\\-]{0,12}", text in "[\\[\\]a:-]{0,12}") {
            matches(&pattern, &text);
        }

        #[test]
        fn a_text_between_stars_is_found(before in ".{0,5}", word in "[a-z]{1,5}", after in ".{0,5}") {
            let text = format!("{before}{word}{after}");
            let pattern = format!("*{word}*");
            prop_assert!(matches(&pattern, &text));
        }
    }
}
