//! vzcpucheck(8), CPU units and what the node is worth: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::power::run)
}
