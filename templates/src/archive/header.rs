//! One header block: its fields, its numbers, its checksum.

use super::error::Fault;
use super::sparse::Segment;
use super::stream::BLOCK;

/// Which dialect a header speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Magic {
    /// No magic: before POSIX.
    Old,
    /// `ustar\0`: POSIX, and PAX.
    Ustar,
    /// `ustar  \0`: GNU.
    Gnu,
}

/// A header block with a right checksum.
#[derive(Debug)]
pub(super) struct Header {
    block: [u8; BLOCK],
    pub(super) magic: Magic,
}

impl Header {
    /// # Errors
    /// [`Fault::Corrupt`] when the checksum is wrong.
    pub(super) fn parse(block: [u8; BLOCK]) -> Result<Self, Fault> {
        let told = number(&block[148..156])?;
        let outside = || block[..148].iter().chain(&block[156..]);
        let sum: i64 = outside().map(|&b| i64::from(b)).sum::<i64>() + 8 * 32;
        // Some old writers summed signed bytes.
        let signed: i64 = outside().map(|&b| i64::from(b.cast_signed())).sum::<i64>() + 8 * 32;
        if told != sum && told != signed {
            return Err(Fault::corrupt("a header's checksum is wrong"));
        }
        let magic = match &block[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, ..] => Magic::Ustar,
            b"ustar  \0" => Magic::Gnu,
            _ => Magic::Old,
        };
        Ok(Self { block, magic })
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    /// The name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = text(&self.block[345..500]);
        if self.magic == Magic::Ustar && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    /// # Errors
    /// [`Fault::Corrupt`] for what is no number or out of range.
    pub(super) fn mode(&self) -> Result<u32, Fault> {
        Ok(u32::try_from(number(&self.block[100..108])? & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u32, Fault> {
        id(number(&self.block[108..116])?)
    }

    pub(super) fn gid(&self) -> Result<u32, Fault> {
        id(number(&self.block[116..124])?)
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        unsigned(&self.block[124..136])
    }

    pub(super) fn mtime(&self) -> Result<i64, Fault> {
        number(&self.block[136..148])
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Fault> {
        if self.magic == Magic::Old {
            return Ok((0, 0));
        }
        Ok((id(number(&self.block[329..337])?)?, id(number(&self.block[337..345])?)?))
    }

    /// The sparse map of a GNU `S` header: its segments, whether more blocks follow, and the real size.
    pub(super) fn sparse(&self) -> Result<(Vec<Segment>, bool, u64), Fault> {
        let (segments, more) = segments(&self.block[386..482], self.block[482])?;
        Ok((segments, more, unsigned(&self.block[483..495])?))
    }
}

/// A continuation block of a GNU sparse map.
pub(super) fn sparse_block(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, bool), Fault> {
    segments(&block[..504], block[504])
}

fn segments(bytes: &[u8], more: u8) -> Result<(Vec<Segment>, bool), Fault> {
    let mut list = Vec::new();
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        list.push((unsigned(&entry[..12])?, unsigned(&entry[12..])?));
    }
    Ok((list, more != 0))
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// An id as archives write them: some write -1, or ids above 2^31 as negative numbers.
fn id(value: i64) -> Result<u32, Fault> {
    u32::try_from(value)
        .or_else(|_| i32::try_from(value).map(i32::cast_unsigned))
        .map_err(|_| Fault::corrupt(format!("an id of {value}")))
}

fn unsigned(field: &[u8]) -> Result<u64, Fault> {
    let value = number(field)?;
    u64::try_from(value).map_err(|_| Fault::corrupt(format!("a size of {value}")))
}

/// Octal, or base 256 when the first bit is set. Empty counts as 0.
pub(super) fn number(field: &[u8]) -> Result<i64, Fault> {
    let wrong = || Fault::corrupt(format!("no number: '{}'", field.escape_ascii()));
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        // 0x80: positive; 0xff: negative, two's complement.
        let negative = first & 0x40 != 0;
        let mut value: i128 =
            if negative { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x3f) };
        for &byte in &field[1..] {
            value = value.checked_mul(256).ok_or_else(wrong)? + i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| wrong());
    }
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|&b| b == b' ' || b == 0)
        .take_while(|&b| b != b' ' && b != 0)
        .collect();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(wrong());
        }
        value = value.checked_mul(8).ok_or_else(wrong)? + i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_dialect() {
        for (field, want) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777777 ", 0o77_777_777_777),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x00", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        ] {
            assert_eq!(number(field).unwrap(), want, "{field:?}");
        }
        assert!(number(b"12x4567\0").is_err());
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn ids_beyond_31_bits_are_kept() {
        assert_eq!(id(4_000_000_000).unwrap(), 4_000_000_000);
        assert_eq!(id(-2).unwrap(), 0xffff_fffe);
        assert!(id(1 << 40).is_err());
    }
}
