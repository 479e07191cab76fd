//! The programs of a gate for open files.
//!
//! These instructions, and no other part of the product, are given to the kernel under "Dual BSD/GPL": what stands at
//! functions for security modules must have a licence that goes with the kernel's own.
//!
//! ```text
//! file_alloc_security   before a file is open: counted; above the limit refused, and the kernel frees it
//! file_free_security    a file is freed, a refused one too: uncounted
//! ```
//!
//! Whose a file is, is told by the credentials that it was opened with, which it keeps: the user namespace in them or the
//! first one above it that has numbers. So whoever closes it, it is uncounted where it was counted.

use super::insn::{FRAME, Insn, Program, When, offset};

/// The numbers of one namespace, 64 bits each.
pub(super) const COUNT: usize = 0;
pub(super) const PEAK: usize = 1;
pub(super) const FAILED: usize = 2;
/// How many were ever opened.
pub(super) const MADE: usize = 3;
/// Whose they are; the programs leave it alone.
pub(super) const OWNER: usize = 4;
pub(super) const NUMBERS: usize = 5;

/// What may be above a namespace, itself included, and below the first one (`create_user_ns` in the kernel).
const LEVELS: usize = 33;
const MAP_LOOKUP_ELEM: i32 = 1;
const TASK_STORAGE_GET: i32 = 156;
const GET_CURRENT_TASK_BTF: i32 = 158;

/// Where the kernel has what is asked for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    /// `file.f_cred`
    pub(super) credentials: i16,
    /// `cred.user_ns`
    pub(super) namespace: i16,
    /// `user_namespace.parent`
    pub(super) parent: i16,
    /// `user_namespace.ns.inum`
    pub(super) number: i16,
}

/// Descriptors of maps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    /// Numbers by the namespace's own.
    pub(super) counts: i32,
    /// One number each: the limit; none is no limit.
    pub(super) limits: i32,
    /// Marks of tasks that are never refused.
    pub(super) excused: i32,
}

/// Registers that calls leave alone.
const NAMESPACE: u8 = 6;
const PARENT: u8 = 7;
const ROW: u8 = 8;
const NOW: u8 = 9;
/// The namespace's number, in the frame.
const KEY: i16 = -4;

/// The value of `KEY` in a map, in register 0: its address, or 0.
fn look_up(program: &mut Program, map: i32) {
    program.add(Insn::map(1, map)).add([
        Insn::copy64(2, FRAME),
        Insn::add64(2, KEY.into()),
        Insn::call(MAP_LOOKUP_ELEM),
    ]);
}

/// Leaves the row of the file's VE in `ROW`, or ends. The first namespace, the host's, has no parent: its files cost
/// three loads.
fn begin(program: &mut Program, at: Offsets, maps: Maps) {
    program.add([
        Insn::load64(1, 1, 0),
        Insn::load64(1, 1, at.credentials),
        Insn::load64(NAMESPACE, 1, at.namespace),
    ]);
    // Without a loop: kernels differ in the loops that they take.
    for _ in 0..LEVELS {
        program
            .jump(When::Is(NAMESPACE, 0), "done")
            .add([Insn::load64(PARENT, NAMESPACE, at.parent)])
            .jump(When::Is(PARENT, 0), "done")
            .add([Insn::load(1, NAMESPACE, at.number), Insn::store(FRAME, 1, KEY)]);
        look_up(program, maps.counts);
        program.jump(When::IsNot(0, 0), "found").add([Insn::copy64(NAMESPACE, PARENT)]);
    }
    program.jump(When::Always, "done").label("found").add([Insn::copy64(ROW, 0)]);
}

fn finish(mut program: Program) -> Vec<Insn> {
    program.label("done").add([Insn::set64(0, 0), Insn::exit()]);
    program.assemble()
}

/// Leaves in register 0 whether this task is never refused.
fn look_up_task(program: &mut Program, map: i32) {
    program.add([Insn::call(GET_CURRENT_TASK_BTF), Insn::copy64(2, 0)]);
    program.add(Insn::map(1, map)).add([Insn::set64(3, 0), Insn::set64(4, 0), Insn::call(TASK_STORAGE_GET)]);
}

/// A refused file stays counted: the kernel calls the other program for it. Until then, which is at once, somebody else
/// may be refused who would be the last to have room.
pub(super) fn alloc(at: Offsets, maps: Maps) -> Vec<Insn> {
    let mut program = Program::default();
    begin(&mut program, at, maps);
    program.add([Insn::set64(NOW, 1), Insn::fetch_add(ROW, NOW, offset(COUNT)), Insn::add64(NOW, 1)]);
    look_up(&mut program, maps.limits);
    program
        .jump(When::Is(0, 0), "counted")
        .add([Insn::load64(1, 0, 0)])
        .jump(When::AtMost(NOW, 1), "counted");
    look_up_task(&mut program, maps.excused);
    program
        .jump(When::IsNot(0, 0), "counted")
        .add([
            Insn::set64(1, 1),
            Insn::atomic_add(ROW, 1, offset(FAILED)),
            Insn::set64(0, -libc::ENFILE),
            Insn::exit(),
        ])
        .label("counted")
        .add([Insn::set64(1, 1), Insn::atomic_add(ROW, 1, offset(MADE)), Insn::load64(1, ROW, offset(PEAK))])
        // Two at once may note the lower one; the next one puts it right.
        .jump(When::AtMost(NOW, 1), "done")
        .add([Insn::store64(ROW, NOW, offset(PEAK))]);
    finish(program)
}

pub(super) fn free(at: Offsets, maps: Maps) -> Vec<Insn> {
    let mut program = Program::default();
    begin(&mut program, at, maps);
    program.add([Insn::set64(1, -1), Insn::atomic_add(ROW, 1, offset(COUNT))]);
    finish(program)
}
