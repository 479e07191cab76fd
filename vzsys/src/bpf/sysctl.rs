//! A cgroup whose processes may not change one file of `/proc/sys`: the limit of System V memory, which since 6.9
//! belongs to the root of its namespace.

use std::os::fd::AsFd;

use super::calls::{self, AT_SYSCTL, CGROUP_SYSCTL, Name};
use super::insn::{FRAME, Insn, Program, When};
use crate::error::Result;

const NAME: Name = calls::name("vz_shmall");

/// Refuses writes to `kernel.shmall` from this cgroup v2 (`EPERM`), or no more.
///
/// # Errors
/// The errno of bpf(2): `EINVAL` when the kernel has no such programs (5.2).
pub fn hold_shmall(cgroup: impl AsFd, hold: bool) -> Result<()> {
    let cgroup = cgroup.as_fd();
    let mut held = false;
    for id in calls::attached(cgroup, AT_SYSCTL)? {
        let Some(program) = calls::program(id)? else { continue };
        if calls::program_info(program.as_fd())?.0 != NAME {
            continue;
        }
        if !hold {
            calls::detach(cgroup, AT_SYSCTL, id)?;
        }
        held = true;
    }
    if held || !hold {
        return Ok(());
    }
    let program = calls::load(CGROUP_SYSCTL, AT_SYSCTL, &assemble(), NAME)?;
    calls::attach(cgroup, AT_SYSCTL, program.as_fd())
}

/// `struct bpf_sysctl` has at 0 whether it is a write.
fn assemble() -> Vec<Insn> {
    const GET_NAME: i32 = 101;
    const BASE_NAME_ONLY: i32 = 1;
    const BUFFER: i16 = -16;
    let mut program = Program::default();
    program
        .add([Insn::copy64(6, 1), Insn::load(2, 6, 0)])
        .jump(When::Is(2, 0), "allow")
        .add([
            Insn::set64(1, 0),
            Insn::store64(FRAME, 1, BUFFER),
            Insn::store64(FRAME, 1, BUFFER + 8),
            Insn::copy64(1, 6),
            Insn::copy64(2, FRAME),
            Insn::add64(2, BUFFER.into()),
            Insn::set64(3, 16),
            Insn::set64(4, BASE_NAME_ONLY),
            Insn::call(GET_NAME),
            Insn::load64(1, FRAME, BUFFER),
        ])
        .add(Insn::number(2, u64::from_ne_bytes(*b"shmall\0\0")))
        .add([Insn::subtract64(1, 2)])
        .jump(When::IsNot(1, 0), "allow")
        .add([Insn::set(0, 0), Insn::exit()])
        .label("allow")
        .add([Insn::set(0, 1), Insn::exit()]);
    program.assemble()
}
