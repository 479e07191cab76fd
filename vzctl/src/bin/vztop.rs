//! vztop(8), how the containers that run are, live: see [`vzctl::top`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::top::run)
}
