//! The monitor of one VE. Started by `vzctl`; not for people.

fn main() -> std::process::ExitCode {
    vzd::main()
}
