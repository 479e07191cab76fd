//! The counters of one VE at one moment.
use std::ops::{Index, IndexMut};

use vzconf::units::UNLIMITED;

use crate::resource::Resource;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// In use now.
    pub held: u64,
    /// The highest use since the VE started.
    pub maxheld: u64,
    /// Barrier; [`UNLIMITED`] when none is set.
    pub barrier: u64,
    /// Limit; [`UNLIMITED`] when none is set.
    pub limit: u64,
    /// How often the limit refused, since the VE started.
    pub failcnt: u64,
}

impl Default for Counter {
    /// Nothing used, nothing limited.
    fn default() -> Self {
        Self { held: 0, maxheld: 0, barrier: UNLIMITED, limit: UNLIMITED, failcnt: 0 }
    }
}

/// All counters of one VE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beancounter {
    /// Whose; 0 is the host.
    pub id: u32,
    counters: [Counter; Resource::ALL.len()],
}

impl Beancounter {
    /// A new one, as the kernel made it: all unlimited, but no memory is guaranteed.
    #[must_use]
    pub fn new(id: u32) -> Self {
        let mut new = Self { id, counters: [Counter::default(); Resource::ALL.len()] };
        new[Resource::Vmguarpages].barrier = 0;
        new
    }

    /// Every resource with its counter, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, &Counter)> {
        Resource::ALL.into_iter().zip(&self.counters)
    }
}

impl Index<Resource> for Beancounter {
    type Output = Counter;

    fn index(&self, resource: Resource) -> &Counter {
        &self.counters[resource as usize]
    }
}

impl IndexMut<Resource> for Beancounter {
    fn index_mut(&mut self, resource: Resource) -> &mut Counter {
        &mut self.counters[resource as usize]
    }
}
