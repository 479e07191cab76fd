//! vzsplit(8), a sample for N VEs: see [`vzctl::fit`].

fn main() -> std::process::ExitCode {
    vzctl::fit::main(vzctl::fit::split::run)
}
