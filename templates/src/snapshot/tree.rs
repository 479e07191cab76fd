//! Which snapshots there are, which grew out of which, and which one the VE stands on: plain data.

use super::id::Id;

/// More would be somebody's mistake, or somebody's attack.
pub(super) const MOST: usize = 4096;
/// Bytes of a name.
pub(super) const NAME_MAX: usize = 1024;
/// Bytes of a description.
pub(super) const DESCRIPTION_MAX: usize = 64 * 1024;

/// One snapshot as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: Id,
    /// The one it grew out of; `None` for one that grew out of the template.
    pub parent: Option<Id>,
    /// Its name, for people; may be empty, need not be unique.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, `YYYY-MM-DD HH:MM:SS` in local time.
    pub date: String,
}

/// A change that the tree does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// It is there already.
    #[error("snapshot {0} exists already")]
    Exists(Id),
    /// It is not there.
    #[error("there is no snapshot {0}")]
    Missing(Id),
    /// Nobody needs as many.
    #[error("there are {MOST} snapshots already; delete some")]
    TooMany,
    /// The text cannot be stored.
    #[error("the {0} of a snapshot may have {1} bytes and no control characters")]
    BadText(&'static str, usize),
}

/// All snapshots of a VE. Parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    items: Vec<Item>,
    current: Option<Id>,
}

/// Line breaks are for descriptions only; XML can store no other control characters.
fn storable(text: &str, max: usize, lines: bool) -> bool {
    let fine = |c: char| match c {
        '\n' | '\t' => lines,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    };
    text.len() <= max && text.chars().all(fine)
}

impl Tree {
    /// All, parents before children, and older before younger where neither is the other's.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The one the VE stands on: what is made next grows out of it.
    #[must_use]
    pub fn current(&self) -> Option<Id> {
        self.current
    }

    /// One by its id.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    /// Those that grew out of it, directly.
    pub fn children(&self, id: Id) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.parent == Some(id))
    }

    /// From it to the one that grew out of the template.
    #[must_use]
    pub fn chain(&self, id: Id) -> Vec<&Item> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(item) = next.and_then(|id| self.get(id)) {
            chain.push(item);
            // Parents come first, so this ends; a broken promise shall not make it endless.
            next = item.parent.filter(|_| chain.len() <= self.items.len());
        }
        chain
    }

    /// What [`Tree::add`] would refuse, before anything is done.
    ///
    /// # Errors
    /// The same.
    pub fn check(&self, id: Id, name: &str, description: &str) -> Result<(), TreeError> {
        if self.get(id).is_some() {
            return Err(TreeError::Exists(id));
        }
        if self.items.len() >= MOST {
            return Err(TreeError::TooMany);
        }
        if !storable(name, NAME_MAX, false) {
            return Err(TreeError::BadText("name", NAME_MAX));
        }
        if !storable(description, DESCRIPTION_MAX, true) {
            return Err(TreeError::BadText("description", DESCRIPTION_MAX));
        }
        Ok(())
    }

    /// Adds a snapshot of what the VE is now: it grew out of the current one, and is the current one then.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn add(&mut self, id: Id, name: &str, description: &str, date: &str) -> Result<(), TreeError> {
        self.check(id, name, description)?;
        self.items.push(Item {
            id,
            parent: self.current,
            name: name.to_owned(),
            description: description.to_owned(),
            date: date.to_owned(),
        });
        self.current = Some(id);
        Ok(())
    }

    /// The VE stands on this one from now on.
    ///
    /// # Errors
    /// [`TreeError::Missing`].
    pub fn switch(&mut self, id: Id) -> Result<(), TreeError> {
        self.get(id).ok_or(TreeError::Missing(id))?;
        self.current = Some(id);
        Ok(())
    }

    /// Takes one away: what grew out of it grows out of its parent then.
    ///
    /// # Errors
    /// [`TreeError::Missing`].
    pub fn remove(&mut self, id: Id) -> Result<Item, TreeError> {
        let at = self.items.iter().position(|item| item.id == id).ok_or(TreeError::Missing(id))?;
        let gone = self.items.remove(at);
        for item in self.items.iter_mut().filter(|item| item.parent == Some(id)) {
            item.parent = gone.parent;
        }
        if self.current == Some(id) {
            self.current = gone.parent;
        }
        Ok(gone)
    }

    /// For the reader: an item below one that is there already.
    pub(super) fn push_read(&mut self, item: Item) -> Result<(), TreeError> {
        self.check(item.id, &item.name, &item.description)?;
        if let Some(parent) = item.parent.filter(|parent| self.get(*parent).is_none()) {
            return Err(TreeError::Missing(parent));
        }
        self.items.push(item);
        Ok(())
    }

    /// The same: what the file says of the current one, if it is there.
    pub(super) fn set_current(&mut self, id: Option<Id>) {
        self.current = id.filter(|id| self.get(*id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Id {
        format!("00000000-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    fn tree(n: u8) -> Tree {
        let mut tree = Tree::default();
        (1..=n).for_each(|n| tree.add(id(n), &format!("s{n}"), "", "2026-11-28 12:00:00").unwrap());
        tree
    }

    fn ids(items: &[&Item]) -> Vec<Id> {
        items.iter().map(|item| item.id).collect()
    }

    #[test]
    fn each_snapshot_grows_out_of_the_current_one() {
        let mut tree = tree(2);
        assert_eq!(tree.get(id(2)).unwrap().parent, Some(id(1)));
        tree.switch(id(1)).unwrap();
        tree.add(id(3), "", "", "").unwrap();
        assert_eq!(ids(&tree.chain(id(3))), [id(3), id(1)]);
        assert_eq!(ids(&tree.children(id(1)).collect::<Vec<_>>()), [id(2), id(3)]);
        assert_eq!(tree.current(), Some(id(3)));
        assert_eq!(tree.add(id(3), "", "", ""), Err(TreeError::Exists(id(3))));
        assert_eq!(tree.switch(id(9)), Err(TreeError::Missing(id(9))));
    }

    #[test]
    fn what_grew_out_of_a_deleted_one_grows_out_of_its_parent() {
        let mut tree = tree(3);
        tree.remove(id(2)).unwrap();
        assert_eq!(ids(&tree.chain(id(3))), [id(3), id(1)]);
        tree.remove(id(3)).unwrap();
        assert_eq!(tree.current(), Some(id(1)));
        tree.remove(id(1)).unwrap();
        assert_eq!((tree.current(), tree.items().len()), (None, 0));
        assert_eq!(tree.remove(id(1)), Err(TreeError::Missing(id(1))));
    }

    #[test]
    fn texts_that_cannot_be_stored_are_refused() {
        let tree = Tree::default();
        assert!(tree.check(id(1), "a\nb", "").is_err());
        assert!(tree.check(id(1), "", "a\nb").is_ok());
        assert!(tree.check(id(1), "", "\u{1b}[2J").is_err());
        assert!(tree.check(id(1), &"x".repeat(NAME_MAX + 1), "").is_err());
    }
}
