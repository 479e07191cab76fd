//! What a registry asks for before it gives an image, and the passwords that the admin has for it.

use std::path::Path;

use serde::Deserialize;
use vzsys::Call;

use super::error::OciError;

/// `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In small letters.
    pub(super) scheme: String,
    pub(super) realm: Option<String>,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// Reads one; `None` for what cannot be one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut challenge = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        loop {
            rest = rest.trim_start_matches([' ', ',', '\t']);
            let Some((key, value)) = rest.split_once('=') else { break };
            let value = value.trim_start();
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            let place = match key.trim().to_ascii_lowercase().as_str() {
                "realm" => Some(&mut challenge.realm),
                "service" => Some(&mut challenge.service),
                "scope" => Some(&mut challenge.scope),
                _ => None,
            };
            if let Some(place) = place {
                *place = Some(value.to_owned());
            }
            rest = after;
        }
        Some(challenge)
    }
}

/// The password for a registry, out of a file like Docker's `config.json`.
pub(super) fn login(path: &Path, registry: &str) -> Result<Option<String>, OciError> {
    #[derive(Deserialize)]
    struct Auths {
        #[serde(default)]
        auths: std::collections::HashMap<String, Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        auth: Option<String>,
    }
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).call("read", name)?;
    let file: Auths = serde_json::from_slice(&bytes).map_err(|error| OciError::malformed(name(), error))?;
    let keys = [registry.to_owned(), format!("https://{registry}"), format!("https://index.{registry}/v1/")];
    let auth = keys.iter().find_map(|key| file.auths.get(key)).and_then(|auth| auth.auth.clone());
    match auth {
        Some(auth) if auth.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b)) => {
            Ok(Some(auth))
        }
        Some(_) => Err(OciError::malformed(name(), format!("the password for {registry} is no base64"))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://a.example/token",service="reg",scope="repository:x:pull,push",error="e""#;
        let challenge = Challenge::parse(text).unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.realm.as_deref(), Some("https://a.example/token"));
        assert_eq!(challenge.scope.as_deref(), Some("repository:x:pull,push"));
        assert_eq!(Challenge::parse("Basic realm=x").unwrap().realm.as_deref(), Some("x"));
        assert_eq!(Challenge::parse("Negotiate").unwrap().scheme, "negotiate");
        assert_eq!(Challenge::parse(r#"Bearer realm="x"#), None);
    }

    #[test]
    fn passwords_are_found_by_the_registrys_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, r#"{"auths":{"r.example":{"auth":"dTpw"},"bad.example":{"auth":"a b"}}}"#)
            .unwrap();
        assert_eq!(login(&path, "r.example").unwrap().as_deref(), Some("dTpw"));
        assert_eq!(login(&path, "other.example").unwrap(), None);
        assert!(login(&path, "bad.example").is_err());
    }
}
