//! `vzmon`, the monitor of one running VE.
//!
//! It is the parent of the VE's init (only a parent can tell a reboot from a halt on every kernel),
//! keeps the master of its console, and when init has ended becomes `vzctl`, which tidies up or starts
//! the VE again. It has one thread and waits in one poll(2).
#![forbid(unsafe_code)]

mod console;
mod launch;
mod supervisor;
mod views;
mod watch;

/// The program: a monitor, or the supervisor that a monitor starts.
pub fn main() -> std::process::ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == supervisor::WORD) {
        return supervisor::main();
    }
    launch::main()
}
