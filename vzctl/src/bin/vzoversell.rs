//! vzoversell(8), RAM and swap that VEs may use: see [`vzctl::check`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::check::oversell::run)
}
