//! What the VEs were like of late, for small graphs.

use std::collections::{BTreeMap, VecDeque};

use vzconf::Ctid;

use super::sampler::{Row, Snapshot};

/// As many as a wide terminal has columns.
const KEPT: usize = 240;

/// What is drawn of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Graph {
    Cpu,
    Ram,
    Procs,
    Read,
    Write,
}

impl Graph {
    pub(super) const ALL: [Self; 5] = [Self::Cpu, Self::Ram, Self::Procs, Self::Read, Self::Write];

    fn of(self, row: &Row) -> f64 {
        match self {
            Self::Cpu => row.cpu.unwrap_or(0.0),
            Self::Ram => row.ram as f64,
            Self::Procs => row.procs as f64,
            Self::Read => row.read.unwrap_or(0.0),
            Self::Write => row.written.unwrap_or(0.0),
        }
    }
}

/// By VE, the newest last. Another life of a VE begins anew.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<Ctid, VecDeque<[f64; Graph::ALL.len()]>>);

impl History {
    pub(super) fn take(&mut self, snapshot: &Snapshot) {
        self.0.retain(|ctid, _| snapshot.rows.iter().any(|row| row.ctid == *ctid));
        for row in &snapshot.rows {
            let points = self.0.entry(row.ctid).or_default();
            if row.new {
                points.clear();
                continue;
            }
            points.push_back(Graph::ALL.map(|graph| graph.of(row)));
            if points.len() > KEPT {
                points.pop_front();
            }
        }
    }

    /// The newest `width` of them, the newest last.
    pub(super) fn points(&self, ctid: Ctid, graph: Graph, width: usize) -> Vec<f64> {
        let at = Graph::ALL.iter().position(|known| *known == graph).unwrap_or(0);
        let points = self.0.get(&ctid);
        let skip = points.map_or(0, |points| points.len().saturating_sub(width));
        points.into_iter().flatten().skip(skip).map(|point| point[at]).collect()
    }
}
