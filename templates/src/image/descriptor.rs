//! `DiskDescriptor.xml`: what OpenVZ's and Virtuozzo's tools know of an image.
//!
//! It is written in their words, and read as what a stranger may have written: of the text only elements and their
//! plain text count, its size and depth are limited, and files are named, never paths.

use std::io;

use quick_xml::events::{BytesDecl, BytesText, Event};
use quick_xml::{Reader, Writer};

use crate::snapshot::xml;

/// Larger files are none.
pub const MAX: usize = 256 << 10;
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: usize = 1024;
const SECTOR: u64 = 512;
/// Of the disks that nobody has any more, whose shape is told all the same.
const HEADS: u64 = 16;
const SECTORS_OF_TRACK: u64 = 63;
/// The one image that is written to, in OpenVZ's.
pub const BASE: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
/// The parent of an image that has none.
pub const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

/// What a descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The size of the disk in sectors of 512 bytes: the length of a raw image, not what its file system shows.
    pub sectors: u64,
    /// Its files.
    pub images: Vec<ImageFile>,
    /// Which of them lies on which.
    pub shots: Vec<Shot>,
    /// The identifier of the one that is written to, where it is said.
    pub top: Option<String>,
}

/// One file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Its identifier, in braces.
    pub guid: String,
    /// `Plain` for raw ones, `Compressed` for those in the parallels format.
    pub kind: String,
    /// Its name, as written: not to be trusted as one.
    pub file: String,
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// Whose.
    pub guid: String,
    /// On which it lies; [`NONE`] for the first.
    pub parent: String,
}

impl Descriptor {
    /// That of a raw image in one file of so many bytes.
    #[must_use]
    pub fn plain(file: &str, bytes: u64) -> Self {
        Self {
            sectors: bytes / SECTOR,
            images: vec![ImageFile {
                guid: BASE.to_owned(),
                kind: "Plain".to_owned(),
                file: file.to_owned(),
            }],
            shots: vec![Shot { guid: BASE.to_owned(), parent: NONE.to_owned() }],
            top: Some(BASE.to_owned()),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// None: it is written to memory.
    pub fn text(&self) -> io::Result<String> {
        let mut out = Writer::new_with_indent(Vec::new(), b' ', 2);
        out.write_event(Event::Decl(BytesDecl::new("1.0", None, None)))?;
        let root = out.create_element("Parallels_disk_image").with_attribute(("Version", "1.0"));
        root.write_inner_content(|out| {
            group(out, "Disk_Parameters", |out| self.parameters(out))?;
            group(out, "StorageData", |out| group(out, "Storage", |out| self.storage(out)))?;
            group(out, "Snapshots", |out| self.snapshots(out))
        })?;
        let mut bytes = out.into_inner();
        bytes.push(b'\n');
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    fn parameters(&self, out: &mut Out) -> io::Result<()> {
        leaf(out, "Disk_size", self.sectors)?;
        leaf(out, "Cylinders", self.sectors / (HEADS * SECTORS_OF_TRACK))?;
        leaf(out, "Heads", HEADS)?;
        leaf(out, "Sectors", SECTORS_OF_TRACK)?;
        leaf(out, "Padding", 0)
    }

    fn storage(&self, out: &mut Out) -> io::Result<()> {
        leaf(out, "Start", 0)?;
        leaf(out, "End", self.sectors)?;
        leaf(out, "Blocksize", 2048)?;
        for image in &self.images {
            group(out, "Image", |out| {
                leaf(out, "GUID", &image.guid)?;
                leaf(out, "Type", &image.kind)?;
                leaf(out, "File", &image.file)
            })?;
        }
        Ok(())
    }

    fn snapshots(&self, out: &mut Out) -> io::Result<()> {
        if let Some(top) = &self.top {
            leaf(out, "TopGUID", top)?;
        }
        for shot in &self.shots {
            group(out, "Shot", |out| {
                leaf(out, "GUID", &shot.guid)?;
                leaf(out, "ParentGUID", &shot.parent)
            })?;
        }
        Ok(())
    }

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX {
            return Err(format!("it has more than {} KiB", MAX >> 10));
        }
        let mut reading = Reading::default();
        reading.all(text)?;
        reading.descriptor()
    }
}

type Out = Writer<Vec<u8>>;

fn group(out: &mut Out, name: &str, inner: impl FnOnce(&mut Out) -> io::Result<()>) -> io::Result<()> {
    out.create_element(name).write_inner_content(inner).map(drop)
}

fn leaf(out: &mut Out, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    out.create_element(name).write_text_content(BytesText::new(&value.to_string())).map(drop)
}

/// The state of a reader that goes through a text once.
#[derive(Debug, Default)]
struct Reading {
    open: Vec<String>,
    /// The text since the last tag.
    text: String,
    size: Option<u64>,
    images: Vec<ImageFile>,
    shots: Vec<Shot>,
    top: Option<String>,
    root: bool,
}

impl Reading {
    fn all(&mut self, text: &str) -> Result<(), String> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(element) => self.open(element.name().as_ref())?,
                Event::End(_) => self.close()?,
                Event::Text(text) => self.text += &text.xml10_content(),
                Event::GeneralRef(entity) => self.text += &xml::resolved(&entity)?,
                // It could make text out of nothing.
                Event::DocType(_) => return Err("it has a document type".to_owned()),
                Event::Eof => break,
                _ => {}
            }
        }
        if self.open.is_empty() && self.root { Ok(()) } else { Err("it ends too early".to_owned()) }
    }

    fn open(&mut self, name: &str) -> Result<(), String> {
        if self.open.is_empty() && (self.root || name != "Parallels_disk_image") {
            return Err(format!("its first element is {}, not Parallels_disk_image", shown(name)));
        }
        self.root = true;
        match (self.path().as_str(), name) {
            ("Parallels_disk_image/StorageData/Storage", "Image") => {
                self.images.push(ImageFile { guid: String::new(), kind: String::new(), file: String::new() });
            }
            ("Parallels_disk_image/Snapshots", "Shot") => {
                self.shots.push(Shot { guid: String::new(), parent: NONE.to_owned() });
            }
            _ => {}
        }
        if self.images.len() > MAX_ITEMS || self.shots.len() > MAX_ITEMS {
            return Err(format!("it has more than {MAX_ITEMS} images"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err("its elements are nested too deep".to_owned());
        }
        self.open.push(name.to_owned());
        self.text.clear();
        Ok(())
    }

    fn path(&self) -> String {
        self.open.join("/")
    }

    fn close(&mut self) -> Result<(), String> {
        let path = self.path();
        self.open.pop();
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        let value = || text.to_owned();
        let inside = path.strip_prefix("Parallels_disk_image/").unwrap_or_default();
        match (inside, self.images.last_mut(), self.shots.last_mut()) {
            ("Disk_Parameters/Disk_size", ..) => {
                self.size = Some(text.parse().map_err(|_| format!("its Disk_size is '{}'", shown(text)))?);
            }
            ("StorageData/Storage/Image/GUID", Some(image), _) => image.guid = value(),
            ("StorageData/Storage/Image/Type", Some(image), _) => image.kind = value(),
            ("StorageData/Storage/Image/File", Some(image), _) => image.file = value(),
            ("Snapshots/Shot/GUID", _, Some(shot)) => shot.guid = value(),
            ("Snapshots/Shot/ParentGUID", _, Some(shot)) => shot.parent = value(),
            ("Snapshots/TopGUID", ..) => self.top = Some(value()),
            _ => {}
        }
        Ok(())
    }

    fn descriptor(self) -> Result<Descriptor, String> {
        let sectors = self.size.ok_or("it has no Disk_size")?;
        if self.images.iter().any(|image| image.file.is_empty() || image.guid.is_empty()) {
            return Err("an image has no file or no GUID".to_owned());
        }
        if self.images.is_empty() {
            return Err("it has no image".to_owned());
        }
        Ok(Descriptor { sectors, images: self.images, shots: self.shots, top: self.top })
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Descriptor::plain("root.hds", 2 << 30);
        assert_eq!(written.sectors, 4 << 20);
        assert_eq!(Descriptor::parse(&written.text().unwrap()), Ok(written));
    }

    #[test]
    fn one_of_old_tools_is_read() {
        let text = "<?xml version=\"1.0\"?>\n<!-- made by ploop -->\n<Parallels_disk_image Version=\"1.0\">\
            <Disk_Parameters><Disk_size>4194304</Disk_size><Cylinders>4161</Cylinders><Miscellaneous>\
            <CompatLevel>level2</CompatLevel><Bootable>1</Bootable></Miscellaneous></Disk_Parameters>\
            <StorageData><Storage><Start>0</Start><End>4194304</End><Blocksize>2048</Blocksize>\
            <Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type><File>root.hds</File></Image>\
            <Image><GUID>{a}</GUID><Type>Compressed</Type><File>root.hds.{a}</File></Image>\
            </Storage></StorageData><Snapshots><TopGUID>{a}</TopGUID>\
            <Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>\
            <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>\
            <Shot><GUID>{a}</GUID><ParentGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</ParentGUID></Shot>\
            </Snapshots></Parallels_disk_image>";
        let read = Descriptor::parse(text).unwrap();
        assert_eq!((read.images.len(), read.shots.len(), read.top.as_deref()), (2, 2, Some("{a}")));
        assert_eq!(read.images[1].file, "root.hds.{a}");
        assert_eq!((read.shots[0].parent.as_str(), read.shots[1].parent.as_str()), (NONE, BASE));
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        let whole = Descriptor::plain("root.hds", 1 << 30).text().unwrap();
        for (text, why) in [
            ("", "too early"),
            ("<a></a>", "first element"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><Parallels_disk_image/>", "document type"),
            ("<Parallels_disk_image></Parallels_disk_image>", "no Disk_size"),
            (&whole[..whole.len() - 5], "not closed"),
            ("<Parallels_disk_image></Image>", "expected"),
            ("<Parallels_disk_image>&big;</Parallels_disk_image>", "unknown entity"),
            (&whole[..whole.len() - 24], "too early"),
            (&whole.replace("root.hds", ""), "no file"),
            (&whole.replace("2097152</Disk_size>", "-1</Disk_size>"), "Disk_size is '-1'"),
            (&"<Parallels_disk_image>".repeat(100_000), "more than 256 KiB"),
            (&format!("<Parallels_disk_image>{}", "<a>".repeat(100)), "too deep"),
        ] {
            let error = Descriptor::parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_names_survive(file in "[^\\p{C}\\s]{1,20}", kind in "[a-zA-Z<>&\"']{1,10}", sectors: u64) {
            let mut written = Descriptor::plain(&file, 0);
            written.sectors = sectors;
            written.images[0].kind = kind;
            prop_assert_eq!(Descriptor::parse(&written.text().unwrap()), Ok(written));
        }

        #[test]
        fn no_text_panics(text in "(<|>|/|!|-|\\?|[a-z ]|Parallels_disk_image|Image|&lt;|é){0,60}") {
            let _ = Descriptor::parse(&text);
        }
    }
}
