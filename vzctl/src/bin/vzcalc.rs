//! vzcalc(8), how much of the node one VE takes: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::calc::run)
}
