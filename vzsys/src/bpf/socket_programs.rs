//! The programs of a gate for sockets, and the page that they count in.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::calls::{self, AT_SOCK_CREATE, AT_SOCK_OPS, AT_SOCK_RELEASE, CGROUP_SOCK, Name, SOCK_OPS};
use super::insn::{Insn, Program, When, offset};
use crate::error::{Result, SysError};

/// Where the programs stand, with their names.
pub(super) const PLACES: [(u32, Name); 3] = [
    (AT_SOCK_CREATE, calls::name("vz_sock_create")),
    (AT_SOCK_OPS, calls::name("vz_sock_ops")),
    (AT_SOCK_RELEASE, calls::name("vz_sock_release")),
];

/// The numbers of one kind, 64 bits each, in a row of eight.
pub(super) const ROW: usize = 8;
pub(super) const COUNT: usize = 0;
pub(super) const LIMIT: usize = 1;
pub(super) const FAILED: usize = 2;
pub(super) const PEAK: usize = 3;
/// How many of the counted sockets have no mark: they are older than the gate.
pub(super) const SEEDED: usize = 4;
/// How many were ever counted.
pub(super) const MADE: usize = 5;

/// Helpers.
const SK_STORAGE_GET: i32 = 107;
const SOCK_OPS_CB_FLAGS_SET: i32 = 59;
const SET_RETVAL: i32 = 187;

#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    pub(super) counters: i32,
    pub(super) marks: i32,
}

/// A program with a second choice for kernels that do not know a helper.
pub(super) struct Step {
    pub(super) at: usize,
    kind: u32,
    code: Vec<Insn>,
    older: Option<Vec<Insn>>,
}

impl Step {
    pub(super) fn load(&self, name: Name) -> Result<OwnedFd> {
        // Only programs that can stand at several places of one kind say at which.
        let place = if self.kind == CGROUP_SOCK { PLACES[self.at].0 } else { 0 };
        match (calls::load(self.kind, place, &self.code, name), &self.older) {
            (Err(error), Some(older)) if is_unknown(&error) => calls::load(self.kind, place, older, name),
            (done, _) => done,
        }
    }
}

fn is_unknown(error: &SysError) -> bool {
    matches!(error.errno(), Errno::INVAL | Errno::ACCESS | Errno::PERM)
}

/// Registers that calls leave alone.
const CONTEXT: u8 = 6;
const ROWS: u8 = 7;
const NOW: u8 = 8;

/// Both of `struct bpf_sock`: at 12 the protocol. Leaves the row of its kind in `ROWS`.
fn begin(program: &mut Program, maps: Maps) {
    const PROTOCOL: i16 = 12;
    const TCP: i32 = 6;
    const MPTCP: i32 = 262;
    program
        .add([Insn::copy64(CONTEXT, 1)])
        .add(Insn::map_value(ROWS, maps.counters))
        .add([Insn::load(2, CONTEXT, PROTOCOL)])
        .jump(When::Is(2, TCP), "row")
        .jump(When::Is(2, MPTCP), "row")
        .add([Insn::add64(ROWS, ROW as i32 * 8)])
        .label("row");
}

/// The mark of the socket in register 2, in register 0: its address, or 0.
fn mark(program: &mut Program, maps: Maps, create: bool) {
    program.add(Insn::map(1, maps.marks)).add([
        Insn::set64(3, 0),
        Insn::set64(4, create.into()),
        Insn::call(SK_STORAGE_GET),
    ]);
}

/// Counts in `ROWS`; leaves how many there were before in `NOW`.
fn count_up(program: &mut Program) {
    program.add([
        Insn::set64(NOW, 1),
        Insn::atomic_add(ROWS, NOW, offset(MADE)),
        Insn::fetch_add(ROWS, NOW, offset(COUNT)),
    ]);
}

/// Notes the highest number there was. Two at once may note the lower one; the next one puts it right.
fn note_peak(program: &mut Program) {
    program
        .add([Insn::add64(NOW, 1), Insn::load64(1, ROWS, offset(PEAK))])
        .jump(When::AtMost(NOW, 1), "allow")
        .add([Insn::store64(ROWS, NOW, offset(PEAK))]);
}

fn finish(mut program: Program) -> Vec<Insn> {
    program.label("allow").add([Insn::set(0, 1), Insn::exit()]);
    program.assemble()
}

pub(super) fn create(maps: Maps) -> Step {
    let code = |with_errno: bool| {
        let mut program = Program::default();
        begin(&mut program, maps);
        count_up(&mut program);
        program.add([Insn::load64(1, ROWS, offset(LIMIT))]).jump(When::AtLeast(NOW, 1), "refuse");
        program.add([Insn::copy64(2, CONTEXT)]);
        mark(&mut program, maps, true);
        program.jump(When::Is(0, 0), "refuse").add([Insn::set64(1, 1), Insn::store64(0, 1, 0)]);
        note_peak(&mut program);
        program.jump(When::Always, "allow").label("refuse").add([
            Insn::set64(1, 1),
            Insn::atomic_add(ROWS, 1, offset(FAILED)),
            Insn::set64(1, -1),
            Insn::atomic_add(ROWS, 1, offset(COUNT)),
        ]);
        if with_errno {
            program.add([Insn::set(1, -libc::ENOBUFS), Insn::call(SET_RETVAL)]);
        }
        program.add([Insn::set(0, 0), Insn::exit()]);
        finish(program)
    };
    Step { at: 0, kind: CGROUP_SOCK, code: code(true), older: Some(code(false)) }
}

pub(super) fn release(maps: Maps) -> Step {
    let mut program = Program::default();
    begin(&mut program, maps);
    program.add([Insn::copy64(2, CONTEXT)]);
    mark(&mut program, maps, false);
    program
        .jump(When::Is(0, 0), "unmarked")
        .add([Insn::set64(1, 0), Insn::exchange(0, 1, 0)])
        .jump(When::Is(1, 0), "allow")
        .jump(When::Always, "uncount")
        // Older than the gate, if there are such.
        .label("unmarked")
        .add([Insn::set64(1, -1), Insn::fetch_add(ROWS, 1, offset(SEEDED))])
        .jump(When::NotPositive(1), "stranger")
        .label("uncount")
        .add([Insn::set64(1, -1), Insn::atomic_add(ROWS, 1, offset(COUNT))])
        .jump(When::Always, "allow")
        .label("stranger")
        .add([Insn::set64(1, 1), Insn::atomic_add(ROWS, 1, offset(SEEDED))]);
    Step { at: 2, kind: CGROUP_SOCK, code: finish(program), older: None }
}

/// Fields of `struct bpf_sock_ops`: at 0 what happens, at 8 the second argument, at 84 what we are told of.
pub(super) fn ops(maps: Maps) -> Step {
    const SECOND: i16 = 8;
    const CB_FLAGS: i16 = 84;
    const SOCKET: i16 = 184;
    const PASSIVE_ESTABLISHED: i32 = 5;
    const STATE: i32 = 10;
    const STATE_FLAG: i32 = 4;
    const CLOSED: i32 = 7;
    let mut program = Program::default();
    program
        .add([Insn::copy64(CONTEXT, 1), Insn::load(2, CONTEXT, 0)])
        .jump(When::Is(2, STATE), "state")
        .jump(When::IsNot(2, PASSIVE_ESTABLISHED), "allow")
        .add([Insn::load64(2, CONTEXT, SOCKET)])
        .jump(When::Is(2, 0), "allow");
    mark(&mut program, maps, true);
    program
        .jump(When::Is(0, 0), "allow")
        .add([Insn::set64(1, 2), Insn::store64(0, 1, 0)])
        .add([
            Insn::copy64(1, CONTEXT),
            Insn::load(2, CONTEXT, CB_FLAGS),
            Insn::or(2, STATE_FLAG),
            Insn::call(SOCK_OPS_CB_FLAGS_SET),
        ])
        .add(Insn::map_value(ROWS, maps.counters));
    count_up(&mut program);
    note_peak(&mut program);
    program
        .jump(When::Always, "allow")
        .label("state")
        .add([Insn::load(2, CONTEXT, SECOND)])
        .jump(When::IsNot(2, CLOSED), "allow")
        .add([Insn::load64(2, CONTEXT, SOCKET)])
        .jump(When::Is(2, 0), "allow");
    mark(&mut program, maps, false);
    program
        .jump(When::Is(0, 0), "allow")
        .add([Insn::set64(1, 0), Insn::exchange(0, 1, 0)])
        .jump(When::Is(1, 0), "allow")
        .add(Insn::map_value(ROWS, maps.counters))
        .add([Insn::set64(1, -1), Insn::atomic_add(ROWS, 1, offset(COUNT))]);
    Step { at: 1, kind: SOCK_OPS, code: finish(program), older: None }
}
