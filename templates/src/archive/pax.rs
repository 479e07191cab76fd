//! PAX records: `LENGTH KEY=VALUE\n`, where the length tells the end and a value may hold any byte.

use super::error::Fault;

/// Key and value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// The records of one extended header, in order (old sparse maps repeat keys).
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Record>, Fault> {
    let wrong = |what: &'static str| Fault::corrupt(format!("an extended header with {what}"));
    let mut records = Vec::new();
    // GNU tar and others pad with NULs at times.
    while !bytes.is_empty() && bytes.iter().any(|&b| b != 0) {
        let blank = bytes.iter().position(|&b| b == b' ').ok_or_else(|| wrong("no length"))?;
        let length: usize = std::str::from_utf8(&bytes[..blank])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| wrong("a bad length"))?;
        if length > bytes.len() || length < blank + 3 || bytes[length - 1] != b'\n' {
            return Err(wrong("a wrong length"));
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(|| wrong("a record without '='"))?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// Appends one record.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(n: usize) -> usize {
    n.to_string().len()
}

/// A decimal number of a record.
pub(super) fn decimal(value: &[u8]) -> Result<u64, Fault> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Fault::corrupt(format!("no number: '{}'", value.escape_ascii())))
}

/// Seconds with a fraction, as seconds and nanoseconds since the epoch.
pub(super) fn time(value: &[u8]) -> Result<(i64, u32), Fault> {
    let wrong = || Fault::corrupt(format!("no time: '{}'", value.escape_ascii()));
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| wrong())?;
    if whole.starts_with('-') && nanos > 0 {
        let seconds = seconds.checked_sub(1).ok_or_else(wrong)?;
        return Ok((seconds, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

/// The reverse of [`time`].
pub(super) fn time_text(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, seconds, nanos) =
        if seconds < 0 { ("-", -(seconds + 1), 1_000_000_000 - nanos) } else { ("", seconds, nanos) };
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_may_hold_newlines() {
        assert_eq!(parse(b"12 a=b\nc=d\n\n").unwrap(), [(b"a".to_vec(), b"b\nc=d\n".to_vec())]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for bytes in [
            &b"9 a=b\n"[..],
            b"3 a=b\n",
            b"x a=b\n",
            b"6 a=b",
            b"6 aab\n",
            b" a=b\n",
            b"99999999999999999999 a=b\n",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn records_survive(list in proptest::collection::vec(
            ("[a-zA-Z.]{1,40}", proptest::collection::vec(any::<u8>(), 0..1200)), 0..6)) {
            let mut bytes = Vec::new();
            for (key, value) in &list {
                push(&mut bytes, key.as_bytes(), value);
            }
            let want: Vec<_> = list.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            prop_assert_eq!(parse(&bytes).unwrap(), want);
        }

        #[test]
        fn anything_else_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = time(&bytes);
        }

        #[test]
        fn times_survive(seconds in -1_000_000_000_000i64..1_000_000_000_000, nanos in 0u32..1_000_000_000) {
            prop_assert_eq!(time(time_text(seconds, nanos).as_bytes()).unwrap(), (seconds, nanos));
        }
    }
}
