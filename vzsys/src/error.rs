//! One error for every system call: it prints as the call does in strace.

use std::fmt;

use rustix::io::Errno;

/// A failed system call, with what it was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SysError {
    call: &'static str,
    args: String,
    errno: i32,
}

/// The result of a system call of this crate.
pub type Result<T> = std::result::Result<T, SysError>;

impl SysError {
    /// `call(args) = errno`.
    #[must_use]
    pub fn new(call: &'static str, args: impl fmt::Display, errno: Errno) -> Self {
        Self { call, args: args.to_string(), errno: errno.raw_os_error() }
    }

    /// The same from an `std::io::Error`; one without an errno counts as `EIO`.
    #[must_use]
    pub fn from_io(call: &'static str, args: impl fmt::Display, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        Self::new(call, args, errno)
    }

    /// The errno, for callers that decide by it.
    #[must_use]
    pub fn errno(&self) -> Errno {
        Errno::from_raw_os_error(self.errno)
    }

    /// Whether it failed for want of room: the disk is full, or the quota of whose file it is. (`EFBIG` is about the
    /// size of one file, and no room helps.)
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), Errno::NOSPC | Errno::DQUOT)
    }

    /// The call's name.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.errno).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "{}({}): {}", self.call, self.args, text)?;
        // Every call that is made is in the oldest kernel that is supported.
        if self.errno() == Errno::NOSYS { f.write_str(" (kernel 5.15 or newer is needed)") } else { Ok(()) }
    }
}

/// Gives a plain rustix, nix or std result the name and arguments of its call.
pub trait Call<T> {
    /// Names the call; `args` is rendered only on failure.
    fn call<A: fmt::Display>(self, call: &'static str, args: impl FnOnce() -> A) -> Result<T>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call<A: fmt::Display>(self, call: &'static str, args: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|errno| SysError::new(call, args(), errno))
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call<A: fmt::Display>(self, call: &'static str, args: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|error| SysError::from_io(call, args(), &error))
    }
}

impl<T> Call<T> for nix::Result<T> {
    fn call<A: fmt::Display>(self, call: &'static str, args: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|errno| SysError::new(call, args(), Errno::from_raw_os_error(errno as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_like_a_line_of_strace() {
        let error = SysError::new("mount_setattr", "\"/vz/root/101\", IDMAP", Errno::PERM);
        assert_eq!(error.to_string(), "mount_setattr(\"/vz/root/101\", IDMAP): Operation not permitted");
        assert_eq!(error.errno(), Errno::PERM);
    }
}
