//! `DiskDescriptor.xml`: what OpenVZ's and Virtuozzo's tools know of an image.
//!
//! It is written in their words, and read as what a stranger may have written: of the text only elements and their
//! plain text count, its size and depth are limited, and files are named, never paths.

use std::fmt::Write;

/// Larger files are none.
pub const MAX: usize = 256 << 10;
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: usize = 1024;
const SECTOR: u64 = 512;
/// The one image that is written to, in OpenVZ's.
pub const BASE: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
/// The parent of an image that has none.
pub const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

/// What a descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The size of the disk in sectors of 512 bytes.
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
    /// That of a raw image in one file.
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
    #[must_use]
    pub fn text(&self) -> String {
        let (sectors, cylinders) = (self.sectors, self.sectors / (16 * 63));
        let mut text = format!(
            "<?xml version=\"1.0\"?>\n<Parallels_disk_image Version=\"1.0\">\n  <Disk_Parameters>\n    \
             <Disk_size>{sectors}</Disk_size>\n    <Cylinders>{cylinders}</Cylinders>\n    <Heads>16</Heads>\n    \
             <Sectors>63</Sectors>\n    <Padding>0</Padding>\n  </Disk_Parameters>\n  <StorageData>\n    <Storage>\n      \
             <Start>0</Start>\n      <End>{sectors}</End>\n      <Blocksize>2048</Blocksize>\n"
        );
        for image in &self.images {
            let _ = write!(
                text,
                "      <Image>\n        <GUID>{}</GUID>\n        <Type>{}</Type>\n        <File>{}</File>\n      </Image>\n",
                escape(&image.guid),
                escape(&image.kind),
                escape(&image.file)
            );
        }
        text += "    </Storage>\n  </StorageData>\n  <Snapshots>\n";
        if let Some(top) = &self.top {
            let _ = writeln!(text, "    <TopGUID>{}</TopGUID>", escape(top));
        }
        for shot in &self.shots {
            let _ = write!(
                text,
                "    <Shot>\n      <GUID>{}</GUID>\n      <ParentGUID>{}</ParentGUID>\n    </Shot>\n",
                escape(&shot.guid),
                escape(&shot.parent)
            );
        }
        text + "  </Snapshots>\n</Parallels_disk_image>\n"
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

/// The state of a reader that goes through a text once.
#[derive(Debug, Default)]
struct Reading {
    open: Vec<String>,
    size: Option<u64>,
    images: Vec<ImageFile>,
    shots: Vec<Shot>,
    top: Option<String>,
    root: bool,
}

impl Reading {
    fn all(&mut self, mut text: &str) -> Result<(), String> {
        while let Some(start) = text.find('<') {
            let before = text[..start].trim();
            let tag = &text[start + 1..];
            let skipped = skip(tag)?;
            if let Some(rest) = skipped {
                text = rest;
                continue;
            }
            let end = tag.find('>').ok_or("a tag does not end")?;
            let (name, rest) = (&tag[..end], &tag[end + 1..]);
            match name.strip_prefix('/') {
                Some(closed) => self.close(closed.trim(), before)?,
                None => self.open(name)?,
            }
            text = rest;
        }
        if self.open.is_empty() && self.root { Ok(()) } else { Err("it ends too early".to_owned()) }
    }

    fn open(&mut self, tag: &str) -> Result<(), String> {
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let name = tag.split_ascii_whitespace().next().unwrap_or_default();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("a tag has no name".to_owned());
        }
        if self.open.is_empty() && (self.root || name != "Parallels_disk_image") {
            return Err(format!("its first element is {name}, not Parallels_disk_image"));
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
        if empty {
            return Ok(());
        }
        if self.open.len() == MAX_DEPTH {
            return Err("its elements are nested too deep".to_owned());
        }
        self.open.push(name.to_owned());
        Ok(())
    }

    fn path(&self) -> String {
        self.open.join("/")
    }

    fn close(&mut self, name: &str, text: &str) -> Result<(), String> {
        let path = self.path();
        if self.open.pop().as_deref() != Some(name) {
            return Err(format!("</{name}> closes nothing"));
        }
        let value = || unescape(text);
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

/// What is neither element nor text; a document type could make text out of nothing, and is refused.
fn skip(tag: &str) -> Result<Option<&str>, String> {
    for (begin, end) in [("?", "?>"), ("!--", "-->")] {
        if tag.starts_with(begin) {
            let at = tag.find(end).ok_or("a comment does not end")?;
            return Ok(Some(&tag[at + end.len()..]));
        }
    }
    if tag.starts_with('!') { Err("it has a document type".to_owned()) } else { Ok(None) }
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
        assert_eq!(Descriptor::parse(&written.text()), Ok(written));
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
        let whole = Descriptor::plain("root.hds", 1 << 30).text();
        for (text, why) in [
            ("", "too early"),
            ("<a></a>", "first element"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><Parallels_disk_image/>", "document type"),
            ("<Parallels_disk_image></Parallels_disk_image>", "no Disk_size"),
            (&whole[..whole.len() - 5], "does not end"),
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
            prop_assert_eq!(Descriptor::parse(&written.text()), Ok(written));
        }

        #[test]
        fn no_text_panics(text in "(<|>|/|!|-|\\?|[a-z ]|Parallels_disk_image|Image|&lt;|é){0,60}") {
            let _ = Descriptor::parse(&text);
        }
    }
}
