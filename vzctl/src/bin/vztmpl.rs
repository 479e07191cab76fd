//! vztmpl(8): the words in; everything else is [`vzctl::tmpl`].

use std::process::ExitCode;

use vzconf::Paths;
use vzctl::tmpl;

fn main() -> ExitCode {
    tmpl::run(std::env::args_os(), &Paths::host()).into()
}
