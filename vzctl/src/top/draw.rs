//! Draws the view. The only place that knows how a screen is laid out.

use beancounters::{Counted, Counter, Resource};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Sparkline, Table, TableState};
use vzconf::Ctid;
use vzconf::units::UNLIMITED;

use super::alarm::Alarms;
use super::batch::heading;
use super::column::Column;
use super::history::{Graph, History};
use super::sampler::{Row, Snapshot, in_units};
use super::units::{cut, size, time};
use super::view::{Page, View};

/// From here on a limit is close.
const CLOSE: f64 = 0.9;
const KEYS: &str =
    "Up Down choose  Enter look at it  < > sort by  r reverse  / filter  p pause  ? help  q quit";
const DETAIL_KEYS: &str = "Up Down scroll  Left Right another container  Esc back  p pause  q back";
const HELP: &str = include_str!("keys.txt");

/// Colours, unless the user wants none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    colored: bool,
}

impl Palette {
    /// Of `NO_COLOR` (no-color.org).
    pub(super) fn of_environment() -> Self {
        Self { colored: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn of(self, color: Color) -> Style {
        if self.colored { Style::new().fg(color) } else { Style::new() }
    }

    /// A limit refuses, now.
    fn alarm(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn close(self) -> Style {
        self.of(Color::Yellow).add_modifier(Modifier::BOLD)
    }
}

/// All that there is to draw.
#[derive(Debug)]
pub(super) struct Scene<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) view: &'s View,
    pub(super) history: &'s History,
    pub(super) alarms: &'s Alarms,
    pub(super) palette: Palette,
}

/// How many rows a page of what is scrolled has.
pub(super) fn page(height: u16, view: &View) -> usize {
    let around = if matches!(view.page, Page::Detail(_)) { 4 + 2 * Graph::ALL.len() } else { 4 };
    usize::from(height).saturating_sub(around).max(1)
}

pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [top, middle, alarm, bottom] = parts.areas(frame.area());
    let shown = scene.view.rows(scene.snapshot);
    frame.render_widget(Line::styled(heading(scene.snapshot, shown.len()), Modifier::BOLD), top);
    match scene.view.page {
        Page::List => list(frame, scene, &shown, middle),
        Page::Detail(ctid) => detail(frame, scene, ctid, middle),
        Page::Help => frame.render_widget(Paragraph::new(HELP), middle),
    }
    if let Some(newest) = scene.alarms.newest().next() {
        frame.render_widget(Line::styled(newest.to_string(), scene.palette.alarm()), alarm);
    }
    frame.render_widget(foot(scene.view), bottom);
}

fn foot(view: &View) -> Line<'static> {
    if view.typing {
        return Line::from(format!("Filter: {}_", cut(&view.filter, 60)));
    }
    let mut text = String::new();
    if view.paused {
        text.push_str("PAUSED  ");
    }
    if !view.filter.is_empty() {
        text.push_str(&format!("filter: {}  ", cut(&view.filter, 20)));
    }
    text.push_str(if matches!(view.page, Page::Detail(_)) { DETAIL_KEYS } else { KEYS });
    Line::styled(text, Modifier::DIM)
}

fn right(text: String, width: usize) -> String {
    format!("{text:>width$}")
}

fn list(frame: &mut Frame<'_>, scene: &Scene<'_>, rows: &[&Row], area: Rect) {
    if rows.is_empty() {
        let text = if scene.snapshot.rows.is_empty() {
            "No container is running. Start one: vzctl start CTID"
        } else {
            "No running container has this in its number or name. Esc shows all."
        };
        return frame.render_widget(Paragraph::new(text), area);
    }
    let columns = Column::fitting(usize::from(area.width), scene.view.sort);
    let title = |column: &Column| {
        let sorted = if *column == scene.view.sort { Modifier::UNDERLINED } else { Modifier::empty() };
        let width = column.width();
        let text = column.title().to_owned();
        let text = if column.is_text() { text } else { right(text, width) };
        Cell::from(Line::styled(text, Modifier::BOLD | sorted))
    };
    let widths =
        columns.iter().map(|column| Constraint::Length(u16::try_from(column.width()).unwrap_or(u16::MAX)));
    let body =
        rows.iter().map(|row| Cells::new(columns.iter().map(|column| cell(scene.palette, *column, row))));
    let table = Table::new(body, widths)
        .header(Cells::new(columns.iter().map(title)))
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(scene.view.at(rows));
    frame.render_stateful_widget(table, area, &mut state);
}

fn cell(palette: Palette, column: Column, row: &Row) -> Cell<'static> {
    let text = column.cell(row);
    let text = if column.is_text() { cut(&text, column.width()) } else { right(text, column.width()) };
    let part =
        |used: f64, limit: Option<f64>| limit.is_some_and(|limit| limit > 0.0 && used >= limit * CLOSE);
    let close = match column {
        Column::Cpu => part(row.cpu.unwrap_or(0.0), row.cap),
        Column::Ram => part(row.ram as f64, row.ram_limit.map(|bytes| bytes as f64)),
        Column::Procs => part(row.procs as f64, row.procs_limit.map(|many| many as f64)),
        _ => false,
    };
    let style = match column {
        Column::Fails if !row.refused.is_empty() => palette.alarm(),
        _ if close => palette.close(),
        _ => Style::new(),
    };
    Cell::from(Line::styled(text, style))
}

fn detail(frame: &mut Frame<'_>, scene: &Scene<'_>, ctid: Ctid, area: Rect) {
    let Some(row) = scene.snapshot.rows.iter().find(|row| row.ctid == ctid) else {
        return frame.render_widget(Paragraph::new(format!("Container {ctid} is not running.")), area);
    };
    let graphs = u16::try_from(Graph::ALL.len()).unwrap_or(0);
    let parts = Layout::vertical([Constraint::Length(1), Constraint::Length(2 * graphs), Constraint::Min(2)]);
    let [title, middle, bottom] = parts.areas(area);
    let name = if row.name.is_empty() { String::new() } else { format!(" ({})", cut(&row.name, 40)) };
    let text = format!("Container {ctid}{name}  up {}  refused {}", time(row.uptime), row.fails);
    frame.render_widget(Line::styled(text, Modifier::BOLD), title);
    let areas =
        Layout::vertical(Graph::ALL.map(|_| Constraint::Length(2))).areas::<{ Graph::ALL.len() }>(middle);
    for (graph, area) in Graph::ALL.into_iter().zip(areas) {
        sparkline(frame, scene, row, graph, area);
    }
    counters(frame, scene, row, bottom);
}

/// What the graph is of, and its newest value in words.
fn label(graph: Graph, row: &Row) -> String {
    let of = |limit: Option<String>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let rate = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{}/s", size(value)));
    match graph {
        Graph::Cpu => {
            let cap = of(row.cap.map(|cap| format!("{cap:.0}%")));
            row.cpu.map_or("cpu -".to_owned(), |cpu| format!("cpu {cpu:.1}%{cap}"))
        }
        Graph::Ram => {
            format!("ram {}{}", size(row.ram as f64), of(row.ram_limit.map(|bytes| size(bytes as f64))))
        }
        Graph::Procs => format!("procs {}{}", row.procs, of(row.procs_limit.map(|many| many.to_string()))),
        Graph::Read => format!("read {}", rate(row.read)),
        Graph::Write => format!("write {}", rate(row.written)),
    }
}

fn sparkline(frame: &mut Frame<'_>, scene: &Scene<'_>, row: &Row, graph: Graph, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Length(22), Constraint::Min(1)]).areas(area);
    frame.render_widget(Line::from(label(graph, row)), left);
    let points = scene.history.points(row.ctid, graph, usize::from(right.width));
    // In thousandths: what is below one is drawn too.
    let data: Vec<u64> = points.iter().map(|point| (point * 1000.0).max(0.0) as u64).collect();
    let top = match graph {
        Graph::Cpu => row.cap.unwrap_or(scene.snapshot.host.cpus as f64 * 100.0),
        Graph::Ram => row.ram_limit.map_or(0.0, |limit| limit as f64),
        _ => 0.0,
    };
    let highest = points.iter().copied().fold(top, f64::max);
    let line = Sparkline::default().data(data).max((highest * 1000.0).max(1.0) as u64);
    frame.render_widget(line.style(scene.palette.of(Color::Cyan)), right);
}

fn counters(frame: &mut Frame<'_>, scene: &Scene<'_>, row: &Row, area: Rect) {
    let titles = ["RESOURCE", "HELD", "MAXHELD", "BARRIER", "LIMIT", "FAILCNT"];
    let title = |(at, title): (usize, &str)| {
        let text = if at == 0 { title.to_owned() } else { right(title.to_owned(), 9) };
        Cell::from(Line::styled(text, Modifier::BOLD))
    };
    let body = row.counters.iter().skip(scene.view.scrolled).map(|(resource, counter)| {
        let refused = row.refused.iter().find(|(of, _)| *of == resource);
        let style = match refused {
            Some(_) => scene.palette.alarm(),
            None if is_close(counter) => scene.palette.close(),
            None => Style::new(),
        };
        let more = refused.map_or(String::new(), |(_, more)| format!(" +{more}"));
        let value = |value: u64| Cell::from(right(value_text(resource, value), 9));
        Cells::new([
            Cell::from(resource.name()),
            value(counter.held),
            value(counter.maxheld),
            value(counter.barrier),
            value(counter.limit),
            Cell::from(right(format!("{}{more}", counter.failcnt), 9)),
        ])
        .style(style)
    });
    let widths = [14, 9, 9, 9, 9, 16].map(Constraint::Length);
    let header = Cells::new(titles.into_iter().enumerate().map(title));
    frame.render_widget(Table::new(body, widths).header(header), area);
}

fn is_close(counter: &Counter) -> bool {
    counter.limit < UNLIMITED && counter.limit > 0 && counter.held as f64 >= counter.limit as f64 * CLOSE
}

fn value_text(resource: Resource, value: u64) -> String {
    match resource.counted() {
        _ if value >= UNLIMITED => "-".to_owned(),
        Counted::Items => value.to_string(),
        Counted::Bytes | Counted::Pages => size(in_units(resource, value) as f64),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::options::Options;
    use super::super::sampler::tests::{idle, row};
    use super::*;

    fn screen(view: &View, rows: Vec<Row>, width: u16, height: u16) -> String {
        let snapshot = Snapshot { at: "12:00:00".to_owned(), rows, ..Snapshot::default() };
        let (mut history, mut alarms) = (History::default(), Alarms::default());
        for _ in 0..3 {
            history.take(&snapshot);
        }
        alarms.take(&snapshot);
        let palette = Palette { colored: true };
        let scene = Scene { snapshot: &snapshot, view, history: &history, alarms: &alarms, palette };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &scene)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines =
            cells.chunks(usize::from(width)).map(|line| line.iter().map(|cell| cell.symbol()).collect());
        lines.collect::<Vec<String>>().join("\n")
    }

    fn busy() -> Row {
        let mut now = idle(101);
        now.counters[Resource::Numproc] =
            Counter { held: 95, maxheld: 100, barrier: 100, limit: 100, failcnt: 2 };
        let mut row = row(&now, "web\u{1b}[2J");
        row.cpu = Some(42.0);
        row
    }

    #[test]
    fn the_list_shows_each_and_the_newest_alarm() {
        let view = View::new(&Options::default());
        let text = screen(&view, vec![busy(), row(&idle(102), "mail")], 110, 12);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("12:00:00  running 2  cpu"), "{text}");
        assert!(lines[1].contains("CTID NAME") && lines[1].contains("CPU%"), "{text}");
        assert!(lines[2].contains("101 web\u{fffd}[2J") && lines[2].contains("42.0"), "{text}");
        assert!(lines[3].contains("102 mail"), "{text}");
        assert!(lines[10].contains("container 101: numproc refused 2 more, 2 in all"), "{text}");
        assert!(lines[11].contains("q quit"), "{text}");
    }

    #[test]
    fn the_detail_shows_graphs_and_counters() {
        let mut view = View::new(&Options::default());
        view.page = Page::Detail(Ctid::new(101).unwrap());
        view.scrolled = 4;
        let text = screen(&view, vec![busy()], 100, 30);
        assert!(text.contains("Container 101 (web"), "{text}");
        assert!(text.contains("cpu 42.0%") && text.contains("procs 95 of 100"), "{text}");
        assert!(text.contains('█'), "{text}");
        let numproc = text.lines().find(|line| line.contains("numproc  ")).unwrap();
        assert_eq!(
            numproc.split_whitespace().collect::<Vec<_>>(),
            ["numproc", "95", "100", "100", "100", "2", "+2"]
        );
        assert!(!text.contains("kmemsize"), "scrolled away:\n{text}");
        view.page = Page::Detail(Ctid::new(102).unwrap());
        assert!(screen(&view, vec![busy()], 80, 24).contains("Container 102 is not running."));
    }

    #[test]
    fn any_size_is_good_enough() {
        let mut view = View::new(&Options::default());
        for page in [Page::List, Page::Detail(Ctid::new(101).unwrap()), Page::Help] {
            view.page = page;
            for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
                screen(&view, vec![busy()], width, height);
            }
        }
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        let mut view = View::new(&Options::default());
        assert!(screen(&view, vec![], 80, 24).contains("vzctl start"));
        view.filter = "nosuch".to_owned();
        assert!(screen(&view, vec![busy()], 80, 24).contains("Esc shows all"));
    }
}
