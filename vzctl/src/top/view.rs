//! What is shown of the VEs, and what a key changes about that.

use std::time::Duration;

use vzconf::Ctid;

use super::column::Column;
use super::options::Options;
use super::sampler::{Row, Snapshot};

/// The delays that + and - go through.
const DELAYS: [f64; 8] = [0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0];

/// A key that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
}

/// What is to be done about a key besides drawing anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Draw,
    Look,
    Suspend,
    Quit,
}

/// What the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    List,
    /// One VE.
    Detail(Ctid),
    Help,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) page: Page,
    pub(super) sort: Column,
    pub(super) reverse: bool,
    /// Only VEs whose number or name contains this.
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) typing: bool,
    /// The one that Enter is about.
    pub(super) chosen: Option<Ctid>,
    /// How many rows of the counters are above the page.
    pub(super) scrolled: usize,
    pub(super) paused: bool,
    pub(super) delay: Duration,
}

impl View {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            page: Page::List,
            sort: options.sort,
            reverse: options.reverse,
            filter: options.filter.clone(),
            typing: false,
            chosen: None,
            scrolled: 0,
            paused: false,
            delay: options.delay,
        }
    }

    /// The rows of the list, in order.
    pub(super) fn rows<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Row> {
        let mut rows: Vec<&Row> = snapshot.rows.iter().filter(|row| self.admits(row)).collect();
        rows.sort_by(|a, b| self.sort.order(a, b));
        if self.reverse {
            rows.reverse();
        }
        rows
    }

    fn admits(&self, row: &Row) -> bool {
        let wanted = self.filter.to_lowercase();
        row.ctid.to_string().contains(&wanted) || row.name.to_lowercase().contains(&wanted)
    }

    /// Where the chosen row is; a list always has one.
    pub(super) fn at(&self, rows: &[&Row]) -> usize {
        rows.iter().position(|row| Some(row.ctid) == self.chosen).unwrap_or(0)
    }

    /// A key was pressed while this was shown; a page is `page` rows.
    pub(super) fn key(&mut self, key: Key, snapshot: &Snapshot, page: usize) -> Effect {
        match key {
            Key::Interrupt => return Effect::Quit,
            Key::Suspend => return Effect::Suspend,
            _ if self.typing => {
                self.type_filter(key);
                return Effect::Draw;
            }
            _ => {}
        }
        match self.page {
            Page::Help => {
                self.page = Page::List;
                Effect::Draw
            }
            Page::List => self.key_in_list(key, &self.rows(snapshot), page),
            Page::Detail(ctid) => self.key_in_detail(key, ctid, &self.rows(snapshot), page),
        }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Letter(c) => self.filter.push(c),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            Key::Enter => self.typing = false,
            _ => {}
        }
    }

    fn key_in_list(&mut self, key: Key, rows: &[&Row], page: usize) -> Effect {
        match key {
            Key::Enter => {
                if let Some(row) = rows.get(self.at(rows)) {
                    self.page = Page::Detail(row.ctid);
                    self.scrolled = 0;
                }
            }
            Key::Escape => self.filter.clear(),
            Key::Letter('/') => self.typing = true,
            Key::Right | Key::Letter('>') => self.sort = self.sort.beside(true),
            Key::Left | Key::Letter('<') => self.sort = self.sort.beside(false),
            Key::Letter('r') => self.reverse = !self.reverse,
            Key::Letter('C') => self.sort = Column::Cpu,
            Key::Letter('M') => self.sort = Column::Ram,
            Key::Letter('F') => self.sort = Column::Fails,
            Key::Letter('N') => self.sort = Column::Ctid,
            _ => match moved(key, self.at(rows), page, rows.len()) {
                Some(at) => self.chosen = rows.get(at).map(|row| row.ctid),
                None => return self.key_anywhere(key),
            },
        }
        Effect::Draw
    }

    fn key_in_detail(&mut self, key: Key, ctid: Ctid, rows: &[&Row], page: usize) -> Effect {
        match key {
            Key::Escape | Key::Enter | Key::Backspace | Key::Letter('q') => {
                self.page = Page::List;
                self.chosen = Some(ctid);
            }
            // The next one, without a way back to the list.
            Key::Left | Key::Right => {
                let at = rows.iter().position(|row| row.ctid == ctid).unwrap_or(0);
                let at = if key == Key::Right { at + 1 } else { at.saturating_sub(1) };
                if let Some(row) = rows.get(at) {
                    self.page = Page::Detail(row.ctid);
                    self.chosen = Some(row.ctid);
                }
            }
            _ => match moved(key, self.scrolled, page, beancounters::Resource::ALL.len()) {
                Some(at) => self.scrolled = at,
                None => return self.key_anywhere(key),
            },
        }
        Effect::Draw
    }

    fn key_anywhere(&mut self, key: Key) -> Effect {
        match key {
            Key::Letter('q') => return Effect::Quit,
            Key::Letter('?' | 'h') => self.page = Page::Help,
            Key::Letter('p') => self.paused = !self.paused,
            Key::Letter(' ') => return Effect::Look,
            Key::Letter('+') => self.delay = next_delay(self.delay, true),
            Key::Letter('-') => self.delay = next_delay(self.delay, false),
            _ => {}
        }
        Effect::Draw
    }
}

/// Where a key leads to from here among so many; `None` for those that do not move.
fn moved(key: Key, at: usize, page: usize, many: usize) -> Option<usize> {
    let to = match key {
        Key::Up | Key::Letter('k') => at.saturating_sub(1),
        Key::Down | Key::Letter('j') => at + 1,
        Key::PageUp => at.saturating_sub(page),
        Key::PageDown => at + page,
        Key::Home | Key::Letter('g') => 0,
        Key::End | Key::Letter('G') => many,
        _ => return None,
    };
    Some(to.min(many.saturating_sub(1)))
}

fn next_delay(now: Duration, longer: bool) -> Duration {
    let now = now.as_secs_f64();
    let next = if longer {
        DELAYS.into_iter().find(|delay| *delay > now)
    } else {
        DELAYS.into_iter().rev().find(|delay| *delay < now)
    };
    Duration::from_secs_f64(next.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::super::sampler::tests::{idle, row};
    use super::*;

    fn snapshot() -> Snapshot {
        let rows = [(103, "mail", 5.0), (102, "web", 90.0), (101, "Web-old", 20.0)];
        let rows = rows.map(|(ctid, name, cpu)| {
            let mut row = row(&idle(ctid), name);
            row.cpu = Some(cpu);
            row
        });
        Snapshot { rows: rows.into(), ..Snapshot::default() }
    }

    fn press(view: &mut View, keys: &[Key]) -> Effect {
        let snapshot = snapshot();
        keys.iter().map(|key| view.key(*key, &snapshot, 2)).last().unwrap()
    }

    fn list(view: &View) -> Vec<u32> {
        view.rows(&snapshot()).iter().map(|row| row.ctid.get()).collect()
    }

    fn new() -> View {
        View::new(&Options::default())
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut view = new();
        assert_eq!(list(&view), [102, 101, 103]);
        press(&mut view, &[Key::Letter('r')]);
        assert_eq!(list(&view), [103, 101, 102]);
        press(&mut view, &[Key::Letter('N'), Key::Letter('r')]);
        assert_eq!(list(&view), [101, 102, 103]);
        press(&mut view, &[Key::Letter('/'), Key::Letter('W'), Key::Letter('E'), Key::Enter]);
        assert_eq!((list(&view), view.typing), (vec![101, 102], false));
        press(&mut view, &[Key::Letter('/'), Key::Backspace, Key::Backspace, Key::Letter('3')]);
        assert_eq!(list(&view), [103]);
        press(&mut view, &[Key::Escape]);
        assert_eq!((list(&view).len(), view.typing), (3, false));
    }

    #[test]
    fn letters_of_a_filter_are_no_commands() {
        let mut view = new();
        assert_eq!(press(&mut view, &[Key::Letter('/'), Key::Letter('q')]), Effect::Draw);
        assert_eq!(view.filter, "q");
        assert_eq!(press(&mut view, &[Key::Interrupt]), Effect::Quit);
    }

    #[test]
    fn a_choice_stays_with_its_ve() {
        let mut view = new();
        press(&mut view, &[Key::Down]);
        assert_eq!(view.chosen, Ctid::new(101).ok());
        press(&mut view, &[Key::Letter('r'), Key::Letter('N')]);
        let snapshot = snapshot();
        assert_eq!(view.at(&view.rows(&snapshot)), 2, "it is elsewhere now");
        press(&mut view, &[Key::PageUp, Key::Enter]);
        assert_eq!(view.page, Page::Detail(Ctid::new(103).unwrap()));
        press(&mut view, &[Key::Right, Key::Escape]);
        assert_eq!((view.page, view.chosen), (Page::List, Ctid::new(102).ok()));
        press(&mut view, &[Key::End, Key::Down, Key::Home, Key::Up]);
        assert_eq!(view.chosen, Ctid::new(103).ok());
    }

    #[test]
    fn counters_are_scrolled_in_the_detail() {
        let mut view = new();
        press(&mut view, &[Key::Enter, Key::PageDown, Key::Down]);
        assert_eq!(view.scrolled, 3);
        press(&mut view, &[Key::Escape, Key::Enter]);
        assert_eq!(view.scrolled, 0);
    }

    #[test]
    fn a_list_without_rows_has_nothing_to_choose() {
        let mut view = new();
        let nothing = Snapshot::default();
        for key in [Key::Down, Key::End, Key::Enter, Key::PageUp] {
            assert_eq!(view.key(key, &nothing, 5), Effect::Draw);
        }
        assert_eq!((view.page, view.chosen), (Page::List, None));
    }

    #[test]
    fn it_can_be_slower_faster_paused_and_left() {
        let mut view = new();
        press(&mut view, &[Key::Letter('+')]);
        assert_eq!(view.delay, Duration::from_secs(3));
        press(&mut view, &[Key::Letter('-'), Key::Letter('-')]);
        assert_eq!(view.delay, Duration::from_secs(1));
        press(&mut view, &[Key::Letter('-'); 9]);
        assert_eq!(view.delay, Duration::from_millis(200));
        press(&mut view, &[Key::Letter('p')]);
        assert!(view.paused);
        assert_eq!(press(&mut view, &[Key::Letter(' ')]), Effect::Look);
        press(&mut view, &[Key::Letter('?')]);
        assert_eq!(view.page, Page::Help);
        assert_eq!(press(&mut view, &[Key::Letter('q')]), Effect::Draw, "any key leaves the help");
        assert_eq!(press(&mut view, &[Key::Letter('q')]), Effect::Quit);
    }
}
