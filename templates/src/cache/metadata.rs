//! What is known about a template: `<name>.json` beside its tarball.

use std::fs::Metadata as Stat;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::oci::ImageConfig;

/// The metadata file. Every field may be missing: a tarball is a template without it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Version of this format.
    pub format: u32,
    /// `ID` of os-release: `debian`.
    pub distribution: String,
    /// `VERSION_ID` of os-release: `12`.
    pub version: String,
    /// `x86_64`, `i386`, `aarch64`.
    pub arch: String,
    /// `systemd`, `sysvinit`, `openrc`, `busybox`; empty if unknown.
    pub init: String,
    /// Bytes of the tarball.
    pub size: u64,
    /// Time of the tarball in nanoseconds: with the size it tells whether this is still about that file.
    pub mtime: i64,
    /// Bytes it unpacks to.
    pub unpacked: u64,
    /// Of the tarball.
    pub sha256: String,
    /// When it was made.
    pub date: String,
    /// Where it came from.
    pub origin: String,
    /// `name version` of each package, sorted.
    pub packages: Vec<String>,
    /// How it is run, of what was an OCI or Docker image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageConfig>,
    /// What newer versions wrote here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Metadata {
    /// Whether it describes this file.
    pub(super) fn fits(&self, stat: &Stat) -> bool {
        self.size == stat.len() && self.mtime == nanos(stat)
    }
}

pub(super) fn nanos(stat: &Stat) -> i64 {
    stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec())
}
