//! A registry on loopback that behaves as it is told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::made::{Finished, digest};

/// How it behaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Manners {
    /// It wants a token.
    pub(super) token: bool,
    /// It sends blobs from elsewhere.
    pub(super) redirect: bool,
    /// It closes the connection after so many bytes of a blob.
    pub(super) cut: Option<usize>,
    /// It does not know about ranges.
    pub(super) no_range: bool,
    /// Every blob has a wrong byte.
    pub(super) lie: bool,
    /// It is busy for the first so many requests.
    pub(super) busy: u32,
}

/// A running registry; its thread ends with the test's process.
pub(super) struct Server {
    pub(super) host: String,
    /// Request lines and the headers that matter.
    pub(super) log: Arc<Mutex<Vec<String>>>,
}

struct State {
    manners: Manners,
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    index: Vec<u8>,
    host: String,
    log: Arc<Mutex<Vec<String>>>,
    busy: Mutex<u32>,
}

impl Server {
    pub(super) fn start(image: &Finished, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [image.descriptor]
        });
        let state = Arc::new(State {
            busy: Mutex::new(manners.busy),
            manners,
            blobs: image.blobs.iter().map(|blob| (digest(blob), blob.clone())).collect(),
            manifest: image.blobs.last().unwrap().clone(),
            index: serde_json::to_vec(&index).unwrap(),
            host: host.clone(),
            log: Arc::clone(&log),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Self { host, log }
    }

    pub(super) fn asked(&self, word: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(word)).count()
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut first = [0];
        // The hello of TLS has no lines to be waited for.
        if stream.peek(&mut first).is_err() || first != *b"G" {
            return;
        }
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        let (mut authorization, mut range) = (String::new(), None);
        reader.read_line(&mut line).unwrap_or(0);
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) <= 2 {
                break;
            }
            let lower = header.to_ascii_lowercase();
            if lower.starts_with("authorization:") {
                authorization = header[14..].trim().to_owned();
            }
            if let Some(from) = lower.strip_prefix("range: bytes=") {
                range = from.trim().trim_end_matches('-').parse::<usize>().ok();
            }
        }
        self.log.lock().unwrap().push(format!("{path} [{authorization}] {range:?}"));
        let answer = self.answer(&path, &authorization, range);
        let _ = stream.write_all(&answer);
    }

    fn answer(&self, path: &str, authorization: &str, range: Option<usize>) -> Vec<u8> {
        let plain = |status: &str, headers: &str, body: &[u8]| {
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        {
            let mut busy = self.busy.lock().unwrap();
            if *busy > 0 {
                *busy -= 1;
                return plain("503 Busy", "Retry-After: 0\r\n", b"");
            }
        }
        if path.starts_with("/token?") {
            let fits = path.contains("service=reg") && path.contains("scope=repository%3Aa%2Fb%3Apull");
            return if fits {
                plain("200 OK", "", br#"{"token":"secret"}"#)
            } else {
                plain("400 Bad", "", b"")
            };
        }
        if let Some(elsewhere) = path.strip_prefix("/elsewhere/") {
            // Whoever stores the blobs must not learn the registry's token.
            if !authorization.is_empty() {
                return plain("400 Bad", "", b"");
            }
            return self.blob(elsewhere, range);
        }
        if self.manners.token && authorization != "Bearer secret" {
            let host = &self.host;
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"reg\",scope=\"repository:a/b:pull\"\r\n"
            );
            return plain("401 Unauthorized", &challenge, b"");
        }
        let index = "Content-Type: application/vnd.oci.image.index.v1+json\r\n";
        match path.strip_prefix("/v2/a/b/") {
            Some("manifests/v1") => plain("200 OK", index, &self.index),
            Some(rest) if rest == format!("manifests/{}", digest(&self.manifest)) => {
                plain("200 OK", "", &self.manifest)
            }
            Some(rest) if rest.starts_with("blobs/") => {
                let wanted = &rest[6..];
                if self.manners.redirect {
                    return plain("307 There", &format!("Location: /elsewhere/{wanted}\r\n"), b"");
                }
                self.blob(wanted, range)
            }
            _ => {
                plain("404 Not Found", "", br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such"}]}"#)
            }
        }
    }

    fn blob(&self, wanted: &str, range: Option<usize>) -> Vec<u8> {
        let Some(blob) = self.blobs.get(wanted) else {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        };
        let mut blob = blob.clone();
        if self.manners.lie {
            *blob.last_mut().unwrap() ^= 1;
        }
        let from = range.filter(|_| !self.manners.no_range).unwrap_or(0);
        let body = &blob[from.min(blob.len())..];
        let status = if from > 0 {
            format!("206 Partial\r\nContent-Range: bytes {from}-{}/{}", blob.len() - 1, blob.len())
        } else {
            "200 OK".to_owned()
        };
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let cut = self.manners.cut.filter(|_| !self.manners.no_range || range.is_none());
        let body = &body[..cut.unwrap_or(body.len()).min(body.len())];
        [head.as_bytes(), body].concat()
    }
}
