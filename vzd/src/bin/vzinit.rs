//! The init of VEs that were made of images without one; `vztmpl import` puts it into the template.

fn main() -> std::process::ExitCode {
    vzd::init_main()
}
