//! Things switched on or off by name.
use std::fmt;
use std::str::FromStr;

/// One entry of FEATURES or CAPABILITY: `name:on` or `name:off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toggle {
    /// Its name (features lower-case, capabilities upper-case).
    pub name: String,
    /// On or off.
    pub on: bool,
}

/// Not `name:on` or `name:off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not NAME:on or NAME:off")]
pub struct BadToggle;

impl FromStr for Toggle {
    type Err = BadToggle;

    fn from_str(text: &str) -> Result<Toggle, BadToggle> {
        match text.split_once(':') {
            Some((name, "on")) if !name.is_empty() => Ok(Toggle { name: name.to_string(), on: true }),
            Some((name, "off")) if !name.is_empty() => Ok(Toggle { name: name.to_string(), on: false }),
            _ => Err(BadToggle),
        }
    }
}

impl fmt::Display for Toggle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, if self.on { "on" } else { "off" })
    }
}
