//! `Snapshots.xml`, in the form that OpenVZ's and Parallels' programs read and write:
//!
//! ```text
//! <ParallelsSavedStates>
//!   <SavedStateItem guid="">                       the template, nobody's snapshot
//!     <Name/><DateTime/><Creator/><ScreenShot/><Description/>
//!     <SavedStateItem guid="{…}" current="yes">    what grew out of it, and so on
//! ```
//! The file may come with a private area from elsewhere, so it is read as hostile text: no entities but the
//! five of XML, no includes, limits on everything, no recursion.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::id::Id;
use super::tree::{DESCRIPTION_MAX, Item, MOST, Tree};

const ITEM: &str = "SavedStateItem";
/// How deep anything may be nested: a chain of as many snapshots as there may be.
const DEEP: usize = 2 * MOST;

/// A state file that cannot be understood, and why.
pub(crate) type Bad = String;

/// What is known of an item whose end has not come yet.
#[derive(Default)]
struct Open {
    /// `None` is the template.
    id: Option<Id>,
    name: String,
    description: String,
    date: String,
    current: bool,
    /// It is in the tree: the first item below it, or its end, puts it there.
    placed: bool,
}

/// The text of an element that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Date,
    Description,
}

#[derive(Default)]
struct Reading {
    tree: Tree,
    open: Vec<Open>,
    current: Option<Id>,
    field: Option<Field>,
    /// Elements around us that mean nothing to us.
    foreign: usize,
    rooted: bool,
}

/// Reads the tree of a `Snapshots.xml`.
pub(super) fn parse(text: &str) -> Result<Tree, Bad> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut reading = Reading::default();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(element) => reading.start(&element)?,
            Event::End(_) => reading.end()?,
            Event::Text(text) => reading.text(&text.xml10_content())?,
            Event::CData(text) => reading.text(&text.xml10_content())?,
            Event::GeneralRef(entity) => reading.text(&resolved(&entity)?)?,
            Event::DocType(_) => return Err("it has a document type, which is not read".to_owned()),
            Event::Eof => break,
            _ => {}
        }
    }
    if !reading.rooted {
        return Err("it is no list of snapshots".to_owned());
    }
    if !reading.open.is_empty() {
        return Err("it ends too early".to_owned());
    }
    reading.tree.set_current(reading.current);
    Ok(reading.tree)
}

/// What an entity stands for: a character, or one of the five of XML.
pub(crate) fn resolved(entity: &BytesRef<'_>) -> Result<String, Bad> {
    if let Some(c) = entity.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(c.to_string());
    }
    let name = entity.xml10_content();
    resolve_predefined_entity(&name).map(str::to_owned).ok_or_else(|| format!("unknown entity '{name}'"))
}

impl Reading {
    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), Bad> {
        let name = element.name();
        let name: &str = name.as_ref();
        if !self.rooted {
            self.rooted = name == "ParallelsSavedStates";
            return if self.rooted { Ok(()) } else { Err(format!("it begins with '{name:.40}'")) };
        }
        if self.open.len() + self.foreign > DEEP {
            return Err("it is nested too deep".to_owned());
        }
        if self.foreign > 0 || self.field.is_some() {
            self.foreign += 1;
            return Ok(());
        }
        match name {
            ITEM => return self.item(element),
            "Name" => self.field = Some(Field::Name),
            "DateTime" => self.field = Some(Field::Date),
            "Description" => self.field = Some(Field::Description),
            _ => self.foreign = 1,
        }
        Ok(())
    }

    fn item(&mut self, element: &BytesStart<'_>) -> Result<(), Bad> {
        self.place()?;
        let mut open = Open::default();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value: &str = &attribute.value;
            match attribute.key.as_ref() {
                "guid" if !value.is_empty() => {
                    open.id = Some(value.parse().map_err(|error: super::BadId| error.to_string())?);
                }
                "current" => open.current = value == "yes",
                _ => {}
            }
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts the innermost item into the tree, below the item around it.
    fn place(&mut self) -> Result<(), Bad> {
        let parent = self.open.iter().rev().skip(1).find_map(|open| open.id);
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if std::mem::replace(&mut open.placed, true) {
            return Ok(());
        }
        let Some(id) = open.id else { return Ok(()) };
        if open.current {
            self.current = Some(id);
        }
        let take = std::mem::take::<String>;
        let item = Item {
            id,
            parent,
            name: take(&mut open.name),
            description: take(&mut open.description),
            date: take(&mut open.date),
        };
        self.tree.push_read(item).map_err(|error| error.to_string())
    }

    fn end(&mut self) -> Result<(), Bad> {
        if self.foreign > 0 {
            self.foreign -= 1;
        } else if self.field.take().is_none() {
            self.place()?;
            self.open.pop();
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Bad> {
        let (Some(field), Some(open), 0) = (self.field, self.open.last_mut(), self.foreign) else {
            return Ok(());
        };
        // Texts stand before the items below: what comes later would be lost.
        if open.placed {
            return Err("a text stands behind an item".to_owned());
        }
        let place = match field {
            Field::Name => &mut open.name,
            Field::Date => &mut open.date,
            Field::Description => &mut open.description,
        };
        place.push_str(text);
        if place.len() > DESCRIPTION_MAX { Err("a text is too long".to_owned()) } else { Ok(()) }
    }
}

/// Writes it.
pub(super) fn render(tree: &Tree) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ParallelsSavedStates>\n");
    if !tree.items().is_empty() {
        text.push_str("<SavedStateItem guid=\"\">");
        fields(&mut text, "", "", "");
        text.push('\n');
        below(&mut text, tree);
        text.push_str("</SavedStateItem>\n");
    }
    text.push_str("</ParallelsSavedStates>\n");
    text
}

/// All items, each inside its parent. The chain may be as long as there are items: no recursion.
fn below(text: &mut String, tree: &Tree) {
    enum Step<'a> {
        Open(&'a Item),
        Close,
    }
    let of = |parent: Option<Id>| tree.items().iter().filter(move |item| item.parent == parent).rev();
    let mut steps: Vec<Step<'_>> = of(None).map(Step::Open).collect();
    while let Some(step) = steps.pop() {
        let Step::Open(item) = step else {
            text.push_str("</SavedStateItem>\n");
            continue;
        };
        let current = if tree.current() == Some(item.id) { " current=\"yes\"" } else { "" };
        let _ = write!(text, "<{ITEM} guid=\"{}\"{current}>", item.id);
        fields(text, &item.name, &item.date, &item.description);
        text.push('\n');
        steps.push(Step::Close);
        steps.extend(of(Some(item.id)).map(Step::Open));
    }
}

fn fields(text: &mut String, name: &str, date: &str, description: &str) {
    let [name, date, description] = [name, date, description].map(escape);
    let _ = write!(
        text,
        "<Name>{name}</Name><DateTime>{date}</DateTime><Creator></Creator><ScreenShot></ScreenShot>\
         <Description>{description}</Description>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> Id {
        format!("00000000-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_tree_is_read_as_it_was_written(
            names in prop::collection::vec(("[ -~äöü€<>&\"']{0,20}", "[ -~\n\t€]{0,30}", any::<u8>()), 0..20)
        ) {
            let mut tree = Tree::default();
            for (n, (name, description, parent)) in (0u8..).zip(&names) {
                // Any of those before may be the one it grows out of.
                if n > 0 {
                    tree.switch(id(parent % n)).unwrap();
                }
                tree.add(id(n), name, description, "2026-11-28 12:00:00").unwrap();
            }
            let read = parse(&render(&tree)).unwrap();
            prop_assert_eq!(read.current(), tree.current());
            for item in tree.items() {
                prop_assert_eq!(read.get(item.id), Some(item));
            }
            prop_assert_eq!(read.items().len(), tree.items().len());
        }

        #[test]
        fn any_text_is_a_tree_or_an_error(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_markup_is_a_tree_or_an_error(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<ParallelsSavedStates>", "</ParallelsSavedStates>", "<SavedStateItem guid=\"\">", "</SavedStateItem>",
                "<SavedStateItem guid=\"{00000000-0000-4000-8000-000000000001}\" current=\"yes\">", "<Name>", "</Name>",
                "<Description>", "</Description>", "<DateTime/>", "&amp;", "&#x41;", "&x;", "text", "<![CDATA[x]]>",
            ]), 0..30)
        ) {
            let _ = parse(&parts.concat());
        }
    }

    #[test]
    fn what_other_programs_wrote_is_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ParallelsSavedStates xmlns:xsi="" xsi:noNamespaceSchemaLocation="">
              <SavedStateItem guid="">
                <Name></Name><DateTime></DateTime><Creator></Creator><ScreenShot></ScreenShot><Description></Description>
                <SavedStateItem guid="{0f0e0d0c-0b0a-4908-8706-050403020100}" current="no" state="poweroff">
                  <Name>first &amp; best</Name><DateTime>2014-01-02 03:04:05</DateTime><Creator>x</Creator><ScreenShot/>
                  <Description><![CDATA[two
lines]]></Description>
                  <SavedStateItem guid="{0f0e0d0c-0b0a-4908-8706-050403020101}" current="yes"><Name/></SavedStateItem>
                </SavedStateItem>
              </SavedStateItem>
            </ParallelsSavedStates>"#;
        let tree = parse(text).unwrap();
        let [first, second] = tree.items() else { panic!("{tree:?}") };
        assert_eq!((first.name.as_str(), first.description.as_str()), ("first & best", "two\nlines"));
        assert_eq!((first.parent, second.parent), (None, Some(first.id)));
        assert_eq!(tree.current(), Some(second.id));
    }

    #[test]
    fn hostile_files_are_refused() {
        let items = |n: usize| "<SavedStateItem guid=\"\">".repeat(n);
        for text in [
            "",
            "<x/>",
            "<ParallelsSavedStates><SavedStateItem guid=\"../../etc\"/></ParallelsSavedStates>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><ParallelsSavedStates/>",
            "<ParallelsSavedStates><SavedStateItem guid=\"{0f0e0d0c-0b0a-4908-8706-050403020100}\"><Name>&a;</Name>",
            "<ParallelsSavedStates><Name><SavedStateItem></Name></ParallelsSavedStates>",
            &format!("<ParallelsSavedStates>{}", items(DEEP + 2)),
            &format!("<ParallelsSavedStates>{}", "<a>".repeat(DEEP + 3)),
        ] {
            assert!(parse(text).is_err(), "{text:.200}");
        }
        let twice =
            "<SavedStateItem guid=\"{0f0e0d0c-0b0a-4908-8706-050403020100}\"></SavedStateItem>".repeat(2);
        assert!(parse(&format!("<ParallelsSavedStates>{twice}</ParallelsSavedStates>")).is_err());
    }
}
