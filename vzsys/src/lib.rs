//! How Linux does it.
