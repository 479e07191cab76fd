//! vzcfgvalidate(8), limits that fit: see [`vzctl::fit`].

fn main() -> std::process::ExitCode {
    vzctl::fit::main(vzctl::fit::validate::run)
}
