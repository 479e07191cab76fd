//! Images of the Open Container Initiative, and Docker's: read into templates, and templates written as images.
//!
//! ```text
//! oci:DIR          ─┐
//! docker-archive:F ─┼▶ Blobs ─▶ index ─▶ manifest ─▶ config, layers ─▶ tree ─▶ init ─▶ template
//! docker://…       ─┘  checked by digest and size    in their order            ours, where none is
//! ```
//!
//! Nothing of an image is trusted: documents are small or refused, every blob is what its digest says or the import
//! fails, layers are laid below a root handle, and what fails leaves nothing.

mod blob;
mod credentials;
mod docker_archive;
mod document;
mod error;
mod export;
mod import;
mod init;
mod layout;
mod platform;
mod registry;
mod run;
mod source;
#[cfg(test)]
mod tests;

pub use error::OciError;
pub use export::{Exported, export};

pub use import::{How, import};
pub use init::Preference;
pub use platform::Platform;
pub use registry::Access;
pub use run::ImageConfig;
pub use source::Source;
