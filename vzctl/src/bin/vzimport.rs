//! vzimport(8): the words in; everything else is [`vzctl::import`].

use std::process::ExitCode;

use vzconf::Paths;

fn main() -> ExitCode {
    vzctl::import::run(std::env::args_os(), &Paths::host()).into()
}
