//! vzlist(8): the words in, the words out; everything else is [`vzctl::list`].

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use vzconf::Paths;
use vzctl::list::{Caller, run};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let caller = if rustix::process::geteuid().is_root() { Caller::Root } else { Caller::User };
    let output = run(arguments, caller, &Paths::host());
    // There is nowhere left to complain to when standard error is closed.
    let _ = std::io::stderr().write_all(output.err.as_bytes());
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(output.out.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::from(output.exit),
        // `vzlist | head` has read what it wants.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(output.exit),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "vzlist: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
