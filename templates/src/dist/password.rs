//! Password hashes that the guest's crypt(3) understands.

use rustix::rand::{GetRandomFlags, getrandom};
use sha_crypt::{CustomizedPasswordHasher, Params, ShaCrypt};
use vzsys::SysError;

use super::error::DistError;
use super::text;

/// Bytes of salt: sixteen characters when written.
const SALT: usize = 12;

/// SHA-crypt, known to every C library since 2007. yescrypt is read by fewer and not needed: a guest
/// that prefers it accepts these too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Sha256,
    Sha512,
}

impl Method {
    /// What the guest's `/etc/login.defs` asks for, as far as we can.
    pub(super) fn by_login_defs(login_defs: &str) -> Self {
        let mut lines = login_defs.lines().map(str::split_whitespace);
        let stated =
            lines.find_map(|mut words| (words.next() == Some("ENCRYPT_METHOD")).then(|| words.next())?);
        if stated == Some("SHA256") { Self::Sha256 } else { Self::Sha512 }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Sha256 => "5",
            Self::Sha512 => "6",
        }
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], DistError> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|errno| DistError::Call {
        path: "/dev/urandom".into(),
        source: SysError::new("getrandom", N, errno),
    })?;
    Ok(bytes)
}

/// The hash for shadow(5), with a fresh salt.
pub(super) fn hash(password: &str, method: Method) -> Result<String, DistError> {
    if password.contains(['\n', '\r', '\0']) {
        return Err(DistError::BadPassword);
    }
    salted(password, method, &random::<SALT>()?)
}

fn salted(password: &str, method: Method, salt: &[u8]) -> Result<String, DistError> {
    let hasher = ShaCrypt::SHA512;
    let params = Params::RECOMMENDED;
    let hash = hasher.hash_password_customized(password.as_bytes(), salt, Some(method.id()), None, params);
    let hash = hash.map_err(|_| DistError::BadPassword)?.to_string();
    // 5000 rounds are the default, which is written by saying nothing.
    Ok(hash.replacen("rounds=5000$", "", 1))
}

/// Splits what `--userpasswd` takes.
#[must_use]
pub(super) fn is_user_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let body = name.strip_suffix('$').unwrap_or(name);
    name.len() <= 32 && body.starts_with(first) && body.chars().all(rest)
}

/// A number in login.defs(5), octal when it begins with 0.
pub(super) fn number(login_defs: &str, key: &str) -> Option<u32> {
    let line = login_defs.lines().find(|line| line.split_whitespace().next() == Some(key))?;
    let word = line.split_whitespace().nth(1)?;
    match word.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        _ => word.parse().ok(),
    }
}

/// The shell that useradd(8) would give.
pub(super) fn default_shell(useradd: &str) -> Option<&str> {
    text::value(useradd, "SHELL").filter(|shell| shell.starts_with('/') && !shell.contains([':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// openssl computes the same function from other code.
    fn openssl(password: &str, hash: &str) -> Option<String> {
        let mut fields = hash.split('$').skip(1);
        let (id, salt) = (fields.next()?, fields.next()?);
        let out =
            Command::new("openssl").args(["passwd", &format!("-{id}"), "-salt", salt, password]).output();
        Some(String::from_utf8(out.ok()?.stdout).ok()?.trim().to_owned())
    }

    #[test]
    fn hashes_are_those_of_crypt() {
        // From Drepper's SHA-crypt specification's reference code, and openssl where it is installed.
        for method in [Method::Sha256, Method::Sha512] {
            for password in ["secret", "p:w with blanks", "a", &"long".repeat(30), "pässwörd"] {
                let hash = hash(password, method).unwrap();
                assert!(hash.starts_with(&format!("${}$", method.id())), "{hash}");
                if let Some(theirs) = openssl(password, &hash) {
                    assert_eq!(hash, theirs);
                }
            }
        }
        let salts: Vec<_> = (0..2).map(|_| hash("x", Method::Sha512).unwrap()).collect();
        assert_ne!(salts[0], salts[1]);
        assert!(hash("a\nroot::", Method::Sha512).is_err());
    }

    #[test]
    fn login_defs() {
        let text = "# ENCRYPT_METHOD MD5\nENCRYPT_METHOD SHA256\nUID_MIN\t\t 500\nHOME_MODE 0700\n";
        assert_eq!(Method::by_login_defs(text), Method::Sha256);
        assert_eq!(Method::by_login_defs("ENCRYPT_METHOD YESCRYPT\n"), Method::Sha512);
        assert_eq!(number(text, "UID_MIN"), Some(500));
        assert_eq!(number(text, "HOME_MODE"), Some(0o700));
        assert_eq!(number(text, "UMASK"), None);
    }

    #[test]
    fn user_names() {
        for good in ["root", "www-data", "_apt", "a.b", "host$", "Bob"] {
            assert!(is_user_name(good), "{good}");
        }
        for bad in ["", "-x", "a:b", "a b", "a\nb", "1a", "..", "$", "ü", &"a".repeat(33)] {
            assert!(!is_user_name(bad), "{bad}");
        }
    }
}
