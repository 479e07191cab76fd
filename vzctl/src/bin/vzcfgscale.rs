//! vzcfgscale(8), a configuration made larger or smaller: see [`vzctl::fit`].

fn main() -> std::process::ExitCode {
    vzctl::fit::main(vzctl::fit::scale::run)
}
