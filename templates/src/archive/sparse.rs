//! Maps of sparse files: where the data in the archive belongs.

use super::error::Fault;
use super::pax;
use super::stream::{BLOCK, Stream, padding};

/// A real file has a segment per extent; this many would be a map of 64 MiB.
const MOST: usize = 4 << 20;

/// Offset and length.
pub(crate) type Segment = (u64, u64);

/// The segments of a file in order, and its real size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) segments: Vec<Segment>,
    pub(crate) size: u64,
}

impl Map {
    /// Checks that the segments ascend, lie in the file and hold `stored` bytes in all.
    pub(super) fn new(segments: Vec<Segment>, size: u64, stored: u64) -> Result<Self, Fault> {
        let (mut end, mut sum) = (0u64, 0u64);
        for &(offset, length) in &segments {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or_else(|| Fault::corrupt("a sparse file whose pieces overlap or lie outside"))?;
            sum += length;
        }
        // off_t is signed.
        if sum != stored || i64::try_from(size).is_err() {
            return Err(Fault::corrupt("a sparse file whose pieces do not add up"));
        }
        Ok(Self { segments, size })
    }
}

/// The `GNU.sparse.*` records of a member.
#[derive(Debug, Default, Clone)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    major: Option<u64>,
    segments: Option<Vec<Segment>>,
    offset: Option<u64>,
}

impl Records {
    /// Takes the record `GNU.sparse.<key>`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(pax::decimal(value)?),
            b"major" => self.major = Some(pax::decimal(value)?),
            b"offset" => self.offset = Some(pax::decimal(value)?),
            b"numbytes" => {
                let offset =
                    self.offset.take().ok_or_else(|| Fault::corrupt("a sparse piece without place"))?;
                self.segments.get_or_insert_default().push((offset, pax::decimal(value)?));
            }
            b"map" => {
                let numbers: Vec<u64> = match value {
                    b"" => Vec::new(),
                    _ => value.split(|&b| b == b',').map(pax::decimal).collect::<Result<_, _>>()?,
                };
                self.segments = Some(pairs(&numbers)?);
            }
            // minor, numblocks: nothing depends on them.
            _ => {}
        }
        if self.segments.as_ref().is_some_and(|list| list.len() > MOST) {
            return Err(Fault::TooLarge { what: "pieces of a sparse file", limit: MOST as u64 });
        }
        Ok(())
    }

    /// The map, and how many bytes of data follow: in version 1.0 the map itself lies before the data.
    pub(super) fn finish(self, stream: &mut Stream, stored: u64) -> Result<Option<(Map, u64)>, Fault> {
        if self.major.unwrap_or(0) >= 1 {
            let size = self.size.ok_or_else(|| Fault::corrupt("a sparse file without its size"))?;
            let (segments, used) = map_in_data(stream, stored)?;
            return Ok(Some((Map::new(segments, size, stored - used)?, stored - used)));
        }
        let Some(segments) = self.segments else { return Ok(None) };
        let size = self.size.ok_or_else(|| Fault::corrupt("a sparse file without its size"))?;
        Ok(Some((Map::new(segments, size, stored)?, stored)))
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, Fault> {
    if !numbers.len().is_multiple_of(2) {
        return Err(Fault::corrupt("half a piece of a sparse file"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Decimal numbers, one a line: how many pieces, then offset and length of each; padded to a block.
fn map_in_data(stream: &mut Stream, stored: u64) -> Result<(Vec<Segment>, u64), Fault> {
    let mut used = 0;
    let mut line = Vec::new();
    let mut count = None;
    let mut numbers = Vec::new();
    while count.is_none_or(|count| numbers.len() < count) {
        if used + BLOCK as u64 > stored + padding(stored) {
            return Err(Fault::corrupt("a sparse map longer than its file"));
        }
        let block = stream.block()?.ok_or(Fault::Truncated)?;
        used += BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(Fault::corrupt("a sparse map without numbers"));
                }
                continue;
            }
            let number = pax::decimal(&line)?;
            line.clear();
            match count {
                None if number > MOST as u64 => {
                    return Err(Fault::TooLarge { what: "pieces of a sparse file", limit: MOST as u64 });
                }
                None => count = usize::try_from(number * 2).ok(),
                Some(_) => numbers.push(number),
            }
            if count.is_some_and(|count| numbers.len() >= count) {
                break;
            }
        }
    }
    if used > stored {
        return Err(Fault::corrupt("a sparse map longer than its file"));
    }
    Ok((pairs(&numbers)?, used))
}

/// The map as version 1.0 stores it before the data.
///
/// A file that ends with a hole gets an empty piece there: GNU tar takes the size from it.
pub(super) fn map_text(map: &Map) -> Vec<u8> {
    let end = map.segments.last().map_or(0, |(offset, length)| offset + length);
    let tail = (end < map.size).then_some((map.size, 0));
    let mut text = format!("{}\n", map.segments.len() + usize::from(tail.is_some()));
    for (offset, length) in map.segments.iter().chain(&tail) {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len() + usize::try_from(padding(bytes.len() as u64)).unwrap_or(0), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_ascend_and_add_up() {
        assert!(Map::new(vec![(0, 10), (20, 5)], 100, 15).is_ok());
        assert!(Map::new(vec![(0, 10), (5, 5)], 100, 15).is_err());
        assert!(Map::new(vec![(0, 10)], 100, 11).is_err());
        assert!(Map::new(vec![(90, 11)], 100, 11).is_err());
        assert!(Map::new(vec![(u64::MAX, 2)], 100, 2).is_err());
        assert!(Map::new(vec![], u64::MAX, 0).is_err());
    }
}
