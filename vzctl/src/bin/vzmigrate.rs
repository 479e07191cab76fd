//! vzmigrate(8); everything is [`vzctl::migrate`].

use std::process::ExitCode;

use vzconf::Paths;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    vzctl::migrate::main(&words, Paths::host())
}
