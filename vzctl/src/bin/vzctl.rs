//! Control of containers: see vzctl(8).

fn main() -> std::process::ExitCode {
    vzctl::run::main(std::env::args_os().skip(1))
}
