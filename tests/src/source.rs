//! Small static programs that tests run inside VEs.

use std::path::{Path, PathBuf};

use crate::run::run;

/// Compiles a C program, statically linked, for the host's architecture. `None` without a C compiler.
///
/// # Panics
/// When the program does not compile.
#[must_use]
pub fn compile(dir: &Path, name: &str, source: &str) -> Option<PathBuf> {
    build(dir, name, source, &["-static"])
}

/// Compiles a freestanding program: it has `_start` and no libc. `None` without a C compiler.
///
/// # Panics
/// When the program does not compile.
#[must_use]
pub fn compile_bare(dir: &Path, name: &str, source: &str) -> Option<PathBuf> {
    build(dir, name, source, &BARE)
}

const BARE: [&str; 6] =
    ["-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"];

/// Compiles a freestanding 32-bit program: it has `_start` and no libc, so that no 32-bit libraries need
/// be installed. `None` when the compiler cannot.
///
/// # Panics
/// When it compiles for 64 bits and not for 32.
#[must_use]
pub fn compile_i386(dir: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let flags =
        ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"];
    build(dir, name, source, &flags)
}

fn build(dir: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    ["/usr/bin/gcc", "/usr/bin/cc"].into_iter().find(|path| Path::new(path).exists()).map(|compiler| {
        let file = dir.join(format!("{name}.c"));
        let program = dir.join(name);
        std::fs::write(&file, source).unwrap();
        let mut arguments = vec!["-O1", "-o", program.to_str().unwrap(), file.to_str().unwrap()];
        arguments.extend(flags);
        run(compiler, &arguments).ok();
        program
    })
}
