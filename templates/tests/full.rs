//! A full disk and a quota that is used up are told alike, whoever meets them.
#![allow(clippy::unwrap_used)]

use rustix::io::Errno;
use templates::build::BuildError;
use templates::cache::CacheError;
use templates::oci::OciError;
use vzconf::Exit;
use vzsys::SysError;

#[test]
fn no_room_is_46_for_everybody() {
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        let error = || SysError::new("write", "a file", errno);
        assert!(error().is_full(), "{errno}");
        let codes = [
            CacheError::from(error()).exit(),
            BuildError::from(error()).exit(),
            OciError::from(error()).exit(),
        ];
        assert_eq!(codes, [Exit::FsNoDiskSpace; 3], "{errno}");
    }
    assert!(!SysError::new("write", "a file", Errno::FBIG).is_full());
}
