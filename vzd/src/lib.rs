//! `vzmon`, the monitor of one running VE.
//!
//! It is the parent of the VE's init (only a parent can tell a reboot from a halt on every kernel),
//! keeps the master of its console, and when init has ended becomes `vzctl`, which tidies up or starts
//! the VE again. It has one thread and waits in one poll(2).
#![forbid(unsafe_code)]

mod console;
mod first;
mod launch;
mod restore;
mod saver;
mod supervisor;
mod views;
mod watch;

/// The program: a monitor, the supervisor that a monitor starts, the server of the host's tables, or of a VE's views anew.
pub fn main() -> std::process::ExitCode {
    match std::env::args_os().nth(1) {
        Some(word) if word == supervisor::WORD => supervisor::main(),
        Some(word) if word == views::WORD => views::host_main(),
        Some(word) if word == views::MEND => views::mend_main(std::env::args().nth(2)),
        _ => launch::main(),
    }
}

/// The other program, `vzinit`: the first process of a VE without an init of its own.
pub fn init_main() -> std::process::ExitCode {
    first::main()
}
