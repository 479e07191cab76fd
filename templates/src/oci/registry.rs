//! `docker://REGISTRY/NAME`: images fetched by the distribution protocol. The only place that knows `ureq`.
//!
//! Whatever a registry sends is compared with its digest. Its tokens and the admin's password go to no other host than
//! the one that asked for them: not along a redirection, and not over plain HTTP unless that was wished.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};
use vzsys::Call;

use super::blob::{Blob, Blobs, Digest, check, compare};
use super::credentials::{Challenge, login};
use super::document::{self, Document, MANIFEST};
use super::error::OciError;
use super::source::RegistryName;
use crate::archive::{Progress, Sum};

/// How long a connection, or an answer's next bytes, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often in a row a request may fail before it is given up; what brings anything new counts anew.
const TRIES: u32 = 4;
/// A token is short.
const TOKEN: u64 = 1 << 20;
/// How often progress is told, in bytes.
const TELL: u64 = 1 << 20;
/// The host's own list of authorities; without it Mozilla's.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// How registries are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Without encryption: whoever is on the way sees the password, and can withhold images, but not change them
    /// where they are named by digest.
    pub plain_http: bool,
    /// Passwords in the form of Docker's `config.json`.
    pub auth_file: Option<PathBuf>,
}

/// One image of a registry.
pub(super) struct Registry {
    name: RegistryName,
    agent: Agent,
    /// `https://registry-1.docker.io/v2/library/debian`
    base: String,
    /// Where blobs are kept until the import is over.
    dir: PathBuf,
    /// `user:password` in base64.
    login: Option<String>,
    /// The header that the registry wants to see.
    pass: RefCell<Option<String>>,
    plain: bool,
    /// Pauses between tries.
    pause: Cell<Duration>,
}

/// What is to be fetched.
struct Wish<'a> {
    url: String,
    accept: Option<String>,
    /// From this byte on.
    from: u64,
    what: &'a str,
}

impl Registry {
    /// Reads passwords; nothing is sent yet. `dir` is where blobs are kept.
    pub(super) fn new(name: RegistryName, access: &Access, dir: PathBuf) -> Result<Self, OciError> {
        let host = if name.registry == "docker.io" { "registry-1.docker.io" } else { &name.registry };
        let scheme = if access.plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}", name.repository);
        let login =
            access.auth_file.as_deref().map(|path| login(path, &name.registry)).transpose()?.flatten();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!access.plain_http)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .tls_config(TlsConfig::builder().root_certs(authorities()).build())
            .user_agent(concat!("vztmpl/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            name,
            agent: config.new_agent(),
            base,
            dir,
            login,
            pass: RefCell::new(None),
            plain: access.plain_http,
            pause: Cell::new(Duration::from_millis(200)),
        })
    }

    /// The manifest or index that the name stands for.
    pub(super) fn top(&self) -> Result<(Document, Digest), OciError> {
        let word = self.name.digest.as_ref().or(self.name.tag.as_ref()).map_or("latest", String::as_str);
        let url = format!("{}/manifests/{word}", self.base);
        let accept = [INDEXES, MANIFESTS].concat().join(", ");
        let (bytes, told) = self.small(&url, Some(accept), MANIFEST)?;
        let object = self.name.to_string();
        let digest = match self.name.digest.as_deref().or(told.as_deref()).map(str::parse::<Digest>) {
            Some(Ok(digest)) => {
                let blob = Blob { digest: digest.clone(), size: bytes.len() as u64, media: String::new() };
                check(&object, &blob, &bytes)?;
                digest
            }
            // A header of another kind proves nothing.
            _ => Digest::of(&bytes),
        };
        Ok((document::parse(&object, &bytes)?, digest))
    }

    /// A whole document, and the digest that the registry tells.
    fn small(
        &self,
        url: &str,
        accept: Option<String>,
        limit: u64,
    ) -> Result<(Vec<u8>, Option<String>), OciError> {
        let wish = Wish { url: url.to_owned(), accept, from: 0, what: "image" };
        let mut tries = 0;
        loop {
            let response = self.get(&wish)?;
            let told = header(&response, "docker-content-digest");
            match read_small(response, url, limit) {
                Err(OciError::Unreachable { .. }) if tries + 1 < TRIES => tries += 1,
                done => return done.map(|bytes| (bytes, told)),
            }
        }
    }

    /// One answer that is a success. Busy registries and broken connections are tried again.
    fn get(&self, wish: &Wish<'_>) -> Result<Response<Body>, OciError> {
        let mut tries = 0;
        let mut asked = false;
        loop {
            tries += 1;
            let answer = self.send(wish);
            let response = match answer {
                Ok(response) => response,
                Err(error) if tries < TRIES && passing(&error) => {
                    self.wait(None);
                    continue;
                }
                Err(error) => return Err(unreachable(&wish.url, &error)),
            };
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                self.ask_pass(&response, wish)?;
            } else if (status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) && tries < TRIES {
                self.wait(header(&response, "retry-after"));
            } else {
                return Err(self.refused(wish, response));
            }
        }
    }

    fn send(&self, wish: &Wish<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(&wish.url);
        if let Some(accept) = &wish.accept {
            request = request.header("Accept", accept);
        }
        if wish.from > 0 {
            request = request.header("Range", format!("bytes={}-", wish.from));
        }
        if let Some(pass) = self.pass.borrow().as_ref() {
            request = request.header("Authorization", pass);
        }
        request.call()
    }

    /// A little longer each time, or as long as the registry wishes within reason.
    fn wait(&self, wished: Option<String>) {
        let wished = wished.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let pause = wished.unwrap_or(self.pause.get()).min(Duration::from_secs(30));
        std::thread::sleep(pause);
        self.pause.set((self.pause.get() * 2).min(Duration::from_secs(5)));
    }

    /// Gets what the registry wants to see: a token by its own rules, or the password itself.
    fn ask_pass(&self, response: &Response<Body>, wish: &Wish<'_>) -> Result<(), OciError> {
        let refused = |reason: String| OciError::Refused { url: wish.url.clone(), reason };
        let no_login = || {
            refused(format!(
                "it asks for a password; give a file with one for {} by --authfile",
                self.name.registry
            ))
        };
        let challenges = response.headers().get_all("www-authenticate");
        let challenges: Vec<Challenge> =
            challenges.iter().filter_map(|value| Challenge::parse(value.to_str().ok()?)).collect();
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let token = self.token(bearer).map_err(|error| match error {
                OciError::Refused { .. } if self.login.is_none() => no_login(),
                other => other,
            })?;
            *self.pass.borrow_mut() = Some(format!("Bearer {token}"));
            return Ok(());
        }
        if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            let login = self.login.as_ref().ok_or_else(no_login)?;
            *self.pass.borrow_mut() = Some(format!("Basic {login}"));
            return Ok(());
        }
        Err(refused("it wants to know who we are, in a way that is not known".to_owned()))
    }

    fn token(&self, challenge: &Challenge) -> Result<String, OciError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let Some(realm) = &challenge.realm else {
            return Err(OciError::malformed(&self.base, "it asks for a token and does not say from where"));
        };
        if !self.plain && !realm.starts_with("https://") {
            let reason = "it sends us for a token to a place without encryption".to_owned();
            return Err(OciError::Refused { url: realm.clone(), reason });
        }
        let mut request = self.agent.get(realm);
        if let Some(service) = &challenge.service {
            request = request.query("service", service);
        }
        let scope = challenge.scope.clone();
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.name.repository));
        request = request.query("scope", scope);
        if let Some(login) = &self.login {
            request = request.header("Authorization", format!("Basic {login}"));
        }
        let response = request.call().map_err(|error| unreachable(realm, &error))?;
        if !response.status().is_success() {
            let reason = format!("no token: {}", response.status());
            return Err(OciError::Refused { url: realm.clone(), reason });
        }
        let bytes = read_small(response, realm, TOKEN)?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|error| OciError::malformed(realm, error))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        token.ok_or_else(|| OciError::malformed(realm, "its answer has no token"))
    }

    fn refused(&self, wish: &Wish<'_>, response: Response<Body>) -> OciError {
        let status = response.status();
        if status == StatusCode::NOT_FOUND && wish.what == "image" {
            let wanted = self.name.digest.as_ref().or(self.name.tag.as_ref()).cloned().unwrap_or_default();
            return OciError::NoImage {
                place: format!("{}/{}", self.name.registry, self.name.repository),
                wanted,
                offered: String::new(),
            };
        }
        let said = read_small(response, &wish.url, TOKEN).ok().and_then(|bytes| message(&bytes));
        let reason = match said {
            Some(said) => format!("{status}: {said}"),
            None => status.to_string(),
        };
        OciError::Refused { url: wish.url.clone(), reason }
    }

    /// Fetches what is missing of a blob and adds it to `file`. Returns its size so far.
    fn fetch(&self, blob: &Blob, target: &mut Target, tell: &mut dyn FnMut(u64)) -> Result<(), OciError> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let response = self.get(&Wish { url: url.clone(), accept: None, from: target.size, what: "blob" })?;
        if target.size > 0 && !continues(&response, target.size) {
            target.restart(blob)?;
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 128 << 10];
        let mut told = target.size;
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => {
                    return Err(OciError::Unreachable { url, reason: error.to_string() });
                }
            };
            target.add(&buffer[..n])?;
            if target.size > blob.size {
                break;
            }
            if target.size - told >= TELL {
                told = target.size;
                tell(told);
            }
        }
        if target.size < blob.size {
            let reason = format!("the connection ended after {} of {} bytes", target.size, blob.size);
            return Err(OciError::Unreachable { url, reason });
        }
        Ok(())
    }
}

/// A blob that is being written.
struct Target {
    file: File,
    path: String,
    sum: Sum,
    size: u64,
}

impl Target {
    fn create(dir: &Path, blob: &Blob) -> Result<Self, OciError> {
        let path = dir.join(&blob.digest.hex);
        let name = path.display().to_string();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.call("open", || &name)?;
        // Nobody needs its name again: it goes with the last descriptor, whatever happens to us.
        std::fs::remove_file(&path).call("unlink", || &name)?;
        Ok(Self { file, path: name, sum: Sum::new(blob.digest.algorithm), size: 0 })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), OciError> {
        self.file.write_all(bytes).call("write", || &self.path)?;
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, blob: &Blob) -> Result<(), OciError> {
        self.file.set_len(0).call("ftruncate", || &self.path)?;
        self.file.rewind().call("lseek", || &self.path)?;
        self.sum = Sum::new(blob.digest.algorithm);
        self.size = 0;
        Ok(())
    }
}

impl Blobs for Registry {
    fn document(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>, OciError> {
        let known = INDEXES.contains(&blob.media.as_str()) || MANIFESTS.contains(&blob.media.as_str());
        let (kind, accept) = if known { ("manifests", Some(blob.media.clone())) } else { ("blobs", None) };
        let url = format!("{}/{kind}/{}", self.base, blob.digest);
        if blob.size > limit {
            return Err(OciError::TooLarge { object: url, what: "size", limit });
        }
        let (bytes, _) = self.small(&url, accept, limit)?;
        check(&url, blob, &bytes)?;
        Ok(bytes)
    }

    fn file(&self, blob: &Blob, progress: &mut dyn FnMut(Progress)) -> Result<File, OciError> {
        let mut target = Target::create(&self.dir, blob)?;
        let mut tell = |read| progress(Progress { read, total: blob.size, unpacked: 0 });
        let mut tries = 0;
        loop {
            let before = target.size;
            match self.fetch(blob, &mut target, &mut tell) {
                Ok(()) => break,
                Err(OciError::Unreachable { url, reason }) => {
                    tries = if target.size > before { 1 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(OciError::Unreachable { url, reason });
                    }
                    self.wait(None);
                }
                Err(error) => return Err(error),
            }
        }
        let object = format!("{}: layer {}", self.name, blob.digest.short());
        compare(&object, blob, target.sum, target.size)?;
        target.file.seek(SeekFrom::Start(0)).call("lseek", || &target.path)?;
        Ok(target.file)
    }
}

/// Whether an answer goes on where we stopped.
fn continues(response: &Response<Body>, from: u64) -> bool {
    let range = header(response, "content-range").unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn read_small(response: Response<Body>, url: &str, limit: u64) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    let body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let read = body.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| OciError::Unreachable { url: url.to_owned(), reason: error.to_string() })?;
    if bytes.len() as u64 > limit {
        return Err(OciError::TooLarge { object: url.to_owned(), what: "size", limit });
    }
    Ok(bytes)
}

/// What the registry says in its own words.
fn message(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let first = value.get("errors")?.get(0)?;
    let text = first.get("message").or_else(|| first.get("code"))?.as_str()?;
    Some(text.chars().filter(|c| !c.is_control()).take(200).collect())
}

fn unreachable(url: &str, error: &ureq::Error) -> OciError {
    OciError::Unreachable { url: url.to_owned(), reason: error.to_string() }
}

/// Whether it may be otherwise in a moment.
fn passing(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::Io(error) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
        ureq::Error::Timeout(_) => true,
        _ => false,
    }
}

/// The authorities that this host trusts.
fn authorities() -> RootCerts {
    let file = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
    let certificates: Vec<_> = file
        .iter()
        .flat_map(|bytes| parse_pem(bytes))
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() { RootCerts::WebPki } else { certificates.into() }
}
