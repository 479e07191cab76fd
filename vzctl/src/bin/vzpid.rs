//! vzpid(8), which VE a process belongs to: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::pid::run)
}
