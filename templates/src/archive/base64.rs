//! Base64, as `LIBARCHIVE.xattr` records use it (padding is optional there).

use super::error::Fault;

pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for &byte in text.iter().filter(|b| !matches!(b, b'=' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Fault::corrupt("an attribute that is no base64")),
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_words() {
        assert_eq!(super::decode(b"TWE=").unwrap(), b"Ma");
        assert_eq!(super::decode(b"TWFu").unwrap(), b"Man");
        assert_eq!(super::decode(b"AQ").unwrap(), [1]);
        assert!(super::decode(b"A!").is_err());
    }
}
