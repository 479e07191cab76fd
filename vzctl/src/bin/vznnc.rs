//! vznnc(8), a program on a TCP connection: see [`vzctl::check::nnc`].

fn main() -> std::process::ExitCode {
    vzctl::check::nnc::main(std::env::args_os().skip(1))
}
