//! vzmemcheck(8), memory used and promised: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::memory::run)
}
