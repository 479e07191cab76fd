//! vzmetrics(8), the containers of the host as OpenMetrics text: see [`vzctl::metrics`].

fn main() -> std::process::ExitCode {
    vzctl::check::main(vzctl::metrics::run)
}
