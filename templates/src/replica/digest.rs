//! The hash of each file of a copy, made as it goes by: nobody has to read the files again for it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::entry::{Content, Op};
use super::error::ReplicaError;
use super::{PIECE, Sink};

/// SHA-256 of each file that went by as a whole, by its path.
#[derive(Debug, Default)]
pub struct Digests {
    open: Option<Open>,
    known: BTreeMap<Vec<u8>, [u8; 32]>,
}

#[derive(Debug)]
struct Open {
    path: Vec<u8>,
    at: u64,
    hasher: Sha256,
}

impl Digests {
    /// Sees a step.
    pub fn op(&mut self, op: &Op) {
        match op {
            Op::File { path, content } => {
                self.known.remove(path);
                let whole = *content == Content::New;
                self.open = whole.then(|| Open { path: path.clone(), at: 0, hasher: Sha256::new() });
            }
            // Zeros in a new file are holes, which need no step.
            Op::Zero { .. } => self.open = None,
            Op::Close { size, .. } => {
                if let Some(mut open) = self.open.take()
                    && open.zeros_to(*size)
                {
                    self.known.insert(open.path, open.hasher.finalize().into());
                }
            }
            _ => {}
        }
    }

    /// Sees bytes of the open file.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) {
        let Some(open) = &mut self.open else { return };
        if open.zeros_to(offset) {
            open.hasher.update(bytes);
            open.at += bytes.len() as u64;
        } else {
            self.open = None;
        }
    }

    /// The hash of a file, in hexadecimal digits; `None` of one that did not go by as a whole.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<String> {
        use std::fmt::Write as _;
        let hash = self.known.get(path.as_bytes())?;
        Some(hash.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

impl Open {
    /// What was left out reads as zeros; whether it comes in order.
    fn zeros_to(&mut self, offset: u64) -> bool {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        while self.at < offset {
            let now = usize::try_from(offset - self.at).unwrap_or(PIECE).min(PIECE);
            self.hasher.update(&ZEROS[..now]);
            self.at += now as u64;
        }
        self.at == offset
    }
}

/// A sink that sees what goes into another one.
#[derive(Debug)]
pub struct Hashing<'s, S: Sink> {
    /// Where it goes.
    pub sink: &'s mut S,
    /// What was seen.
    pub digests: Digests,
}

impl<S: Sink> Sink for Hashing<'_, S> {
    fn op(&mut self, op: Op) -> Result<(), ReplicaError> {
        self.digests.op(&op);
        self.sink.op(op)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        // First on its way: the other side works meanwhile.
        self.sink.data(offset, bytes)?;
        self.digests.data(offset, bytes);
        Ok(())
    }
}
