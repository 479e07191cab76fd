//! Which rows are shown, and in which order.

use vzconf::Ctid;

use super::options::{Options, Scope};
use super::pattern::matches;
use super::row::{Row, Status};

/// Leaves the rows that the options and the CTIDs (none: no restriction) ask for, sorted.
pub fn select(mut rows: Vec<Row>, options: &Options, ids: &[Ctid]) -> Vec<Row> {
    rows.retain(|row| {
        is_asked(row, options.scope, ids)
            && fits(options.hostname.as_deref(), row.hostname.as_deref())
            && fits(options.name.as_deref(), row.name.as_deref())
            && fits(options.description.as_deref(), row.description.as_deref())
    });
    rows.sort_by_key(|row| row.ctid);
    if let Some(sort) = &options.sort {
        rows.sort_by(|a, b| sort.field.of(a).compare(sort.field.of(b)));
        if sort.reversed {
            rows.reverse();
        }
    }
    rows
}

/// Naming a VE shows it whether it runs or not.
fn is_asked(row: &Row, scope: Scope, ids: &[Ctid]) -> bool {
    let running = row.status == Status::Running;
    let in_scope = match scope {
        Scope::Running => running || !ids.is_empty(),
        Scope::All => true,
        Scope::Stopped => !running,
    };
    in_scope && (ids.is_empty() || ids.contains(&row.ctid))
}

/// A pattern never fits what is unset, not even `*`.
fn fits(pattern: Option<&str>, text: Option<&str>) -> bool {
    match (pattern, text) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(pattern), Some(text)) => matches(pattern, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::row::{Counter, Resource};
    use crate::list::{Request, parse};

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(str::to_owned)) {
            Ok(Request::List(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn row(ctid: u32) -> Row {
        Row::new(Ctid::new(ctid).unwrap())
    }

    fn order(rows: Vec<Row>, line: &str) -> Vec<u32> {
        select(rows, &options(line), &[]).iter().map(|row| row.ctid.get()).collect()
    }

    #[test]
    fn boot_order_is_highest_first_unset_last_then_ctid() {
        let rows: Vec<_> = [(105, None), (101, Some(5)), (104, Some(9)), (103, Some(5)), (102, None)]
            .map(|(ctid, bootorder)| Row { bootorder, ..row(ctid) })
            .into();
        assert_eq!(order(rows.clone(), "-a -s -bootorder"), [104, 101, 103, 102, 105]);
        assert_eq!(order(rows, "-a -s bootorder"), [105, 102, 103, 101, 104]);
    }

    #[test]
    fn barrier_and_limit_sort_by_themselves() {
        let with = |ctid, barrier, limit| {
            let mut row = row(ctid);
            *row.counter_mut(Resource::Numproc) = Counter { barrier, limit, ..Counter::default() };
            row
        };
        let rows = vec![with(101, 10, 30), with(102, 20, 20)];
        assert_eq!(order(rows.clone(), "-a -s numproc.b"), [101, 102]);
        assert_eq!(order(rows, "-a -s numproc.l"), [102, 101]);
    }

    #[test]
    fn unset_sorts_before_set_and_ties_go_by_ctid() {
        let rows: Vec<_> = [(104, Some("b")), (103, None), (102, Some("a")), (101, Some("b")), (100, None)]
            .map(|(ctid, name)| Row { hostname: name.map(str::to_owned), ..row(ctid) })
            .into();
        assert_eq!(order(rows.clone(), "-a"), [100, 101, 102, 103, 104]);
        assert_eq!(order(rows.clone(), "-a -s hostname"), [100, 103, 102, 101, 104]);
        assert_eq!(order(rows, "-a -s -hostname"), [104, 101, 102, 103, 100]);
    }

    #[test]
    fn load_and_status_sort() {
        let rows: Vec<_> = [(101, Some([1.0, 0.5, 0.1])), (102, None), (103, Some([1.0, 0.2, 3.0]))]
            .map(|(ctid, laverage)| Row { laverage, ..row(ctid) })
            .into();
        assert_eq!(order(rows, "-a -s laverage"), [102, 103, 101]);
        let rows: Vec<_> = [(101, Status::Suspended), (102, Status::Mounted), (103, Status::Running)]
            .map(|(ctid, status)| Row { status, ..row(ctid) })
            .into();
        assert_eq!(order(rows, "-a -s status"), [103, 102, 101]);
    }

    #[test]
    fn scopes_names_and_patterns_combine() {
        let up = |ctid: u32, host: &str| Row {
            status: Status::Running,
            hostname: Some(host.to_owned()),
            ..row(ctid)
        };
        let rows = vec![up(101, "web1"), up(102, "db1"), row(103)];
        assert_eq!(order(rows.clone(), ""), [101, 102]);
        assert_eq!(order(rows.clone(), "-a"), [101, 102, 103]);
        assert_eq!(order(rows.clone(), "-S"), [103]);
        assert_eq!(order(rows.clone(), "-a -S"), [103]);
        assert_eq!(order(rows.clone(), "-a -h web*"), [101]);
        assert_eq!(order(rows.clone(), "-a -h *"), [101, 102]);
        let ids = [Ctid::new(103).unwrap(), Ctid::new(102).unwrap()];
        let shown = select(rows, &options(""), &ids);
        assert_eq!(shown.iter().map(|row| row.ctid.get()).collect::<Vec<_>>(), [102, 103]);
    }
}
