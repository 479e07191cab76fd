//! vzubc(8), the beancounters as people read them: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::ubc::run)
}
