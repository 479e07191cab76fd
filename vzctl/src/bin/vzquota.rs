//! vzquota(8), what VEs use of the disk: see [`vzctl::quota`].

fn main() -> std::process::ExitCode {
    vzctl::quota::main(&vzconf::Paths::host())
}
