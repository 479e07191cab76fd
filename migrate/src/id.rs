//! Ids of moves.

use crate::error::{Error, Result};
use crate::exit::Exit;

/// A new one: 32 random hexadecimal digits.
pub(crate) fn fresh() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::here(Exit::Usage, format!("getrandom(): {errno}")))?;
    if got != bytes.len() {
        return Err(Error::here(Exit::Usage, "getrandom(): too few bytes"));
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
