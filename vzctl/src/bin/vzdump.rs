//! vzdump(8): see [`vzctl::backup`].

fn main() -> std::process::ExitCode {
    vzctl::backup::dump(std::env::args_os(), &vzconf::Paths::host()).into()
}
