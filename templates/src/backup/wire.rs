//! Numbers and bytes of the stream: LEB128, lengths first, never more than was announced.

/// What was read is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bad(pub(super) &'static str);

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number << 1 ^ (number >> 63)).cast_unsigned());
}

/// Appends bytes with their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Bad> {
        let (first, rest) = self.0.split_first().ok_or(Bad("a list that ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Bad> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Bad("a number that is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Bad("a number that is too large"))
    }

    pub(super) fn small(&mut self) -> Result<u32, Bad> {
        u32::try_from(self.number()?).map_err(|_| Bad("a number that is too large"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Bad> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Bad("bytes that end too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self, most: usize) -> Result<&'a [u8], Bad> {
        let length = usize::try_from(self.number()?).map_err(|_| Bad("a length that is too large"))?;
        if length > most {
            return Err(Bad("a length that is too large"));
        }
        self.take(length)
    }

    pub(super) fn hash(&mut self) -> Result<[u8; 32], Bad> {
        self.take(32)?.try_into().map_err(|_| Bad("a checksum that ends too early"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, number);
            put_signed(&mut out, signed);
            put_bytes(&mut out, &bytes);
            let mut cursor = Cursor(&out);
            prop_assert_eq!(cursor.number().unwrap(), number);
            prop_assert_eq!(cursor.signed().unwrap(), signed);
            prop_assert_eq!(cursor.bytes(bytes.len()).unwrap(), &bytes[..]);
            prop_assert!(cursor.is_empty());
        }
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        assert!(Cursor(&[0xff; 11]).number().is_err());
        assert!(Cursor(&[0x80]).number().is_err());
        assert!(Cursor(&[5, 1, 2]).bytes(10).is_err());
        assert!(Cursor(&[5, 1, 2, 3, 4, 5]).bytes(4).is_err());
        assert!(Cursor(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number().is_err());
    }
}
