//! Where to cut a file: at places that its bytes choose, so that an insertion moves one cut and not all later ones.
//!
//! A gear hash (Xia et al., FastCDC) with a stricter mask before the usual size and a laxer one after it. The cuts are
//! no part of the format; but other cuts find nothing again in earlier backups, so table and masks stay as they are.

/// No chunk is shorter, but the last of a file.
pub(super) const MIN: usize = 32 << 10;
const USUAL: usize = 128 << 10;
/// No chunk is longer.
pub(super) const MAX: usize = 512 << 10;

/// 19 bits before the usual size, 15 after it: the upper ones, which depend on the last 64 bytes.
const STRICT: u64 = !0 << 45;
const LAX: u64 = !0 << 49;

const GEAR: [u64; 256] = gear();

/// splitmix64 from a fixed seed.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0x767a_6261_636b_7570_u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
}

/// The length of the first chunk of `bytes`, which are at least [`MAX`] or all that is left.
pub(super) fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= MIN {
        return bytes.len();
    }
    let most = bytes.len().min(MAX);
    let usual = most.min(USUAL);
    let mut hash = 0_u64;
    // The hash forgets what is more than 64 bytes back.
    for &byte in &bytes[MIN - 64..MIN] {
        hash = (hash << 1).wrapping_add(GEAR[byte as usize]);
    }
    for (mask, from, to) in [(STRICT, MIN, usual), (LAX, usual, most)] {
        for (i, &byte) in bytes[from..to].iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[byte as usize]);
            if hash & mask == 0 {
                return from + i + 1;
            }
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cut(bytes));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    #[test]
    fn chunks_have_about_their_usual_size() {
        let bytes = noise(32 << 20);
        let chunks = chunks(&bytes);
        assert!(chunks[..chunks.len() - 1].iter().all(|chunk| (MIN..=MAX).contains(&chunk.len())));
        let average = bytes.len() / chunks.len();
        assert!((96 << 10..192 << 10).contains(&average), "{average}");
        assert!(chunks.iter().filter(|chunk| chunk.len() == MAX).count() < chunks.len() / 20);
    }

    #[test]
    fn an_insertion_costs_few_chunks() {
        let old = noise(8 << 20);
        let mut new = old.clone();
        new.splice(3_000_000..3_000_000, *b"inserted");
        let known: HashSet<&[u8]> = chunks(&old).into_iter().collect();
        let unknown = chunks(&new).into_iter().filter(|chunk| !known.contains(chunk)).count();
        assert!(unknown <= 3, "{unknown}");
    }
}
