//! From our init to the image's command, in its process.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{Gid, Uid, fchown, setgid, setgroups, setuid};
use vzsys::launch::ImageCommand;

use super::user::{self, User};

/// Where programs are when the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As shells have it.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// The second stage: the child of our init.
pub(super) fn main() -> ExitCode {
    match super::load() {
        Ok(command) => {
            // A new session, with the console as its terminal: shells have job control.
            let _ = rustix::process::setsid();
            let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
            become_it(&command)
        }
        Err(reason) => super::complain(&reason),
    }
}

/// Becomes the command. Returns only when that failed.
pub(super) fn become_it(command: &ImageCommand) -> ExitCode {
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        eprintln!("vzinit: {what}: {why}");
        ExitCode::from(NOT_EXECUTABLE)
    };
    let user = match user::find(&command.user) {
        Ok(user) => user,
        Err(reason) => return failed("cannot become the image's user", &reason),
    };
    let directory = if command.directory.is_empty() { "/" } else { command.directory.as_str() };
    let environment = environment(command, &user);
    if let Err(errno) = switch(&user) {
        return failed(&format!("cannot become user {}", command.user), &errno);
    }
    // As the user: it may lie where root of the VE cannot look.
    if let Err(error) = std::env::set_current_dir(directory) {
        return failed(&format!("cannot enter {directory}"), &error);
    }
    let name = &command.command[0];
    let Some(program) = find(name, &environment) else {
        eprintln!("vzinit: cannot find the image's command {name}");
        return ExitCode::from(NOT_FOUND);
    };
    let strings = |list: &[String]| -> Vec<CString> {
        list.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect()
    };
    let Ok(path) = CString::new(program.as_os_str().as_bytes()) else {
        return ExitCode::from(NOT_FOUND);
    };
    vzsys::process::default_signals();
    let Err(errno) = nix::unistd::execve(&path, &strings(&command.command), &strings(&environment));
    failed(&format!("cannot execute {}", program.display()), &errno)
}

/// The image's variables, and what every program may expect.
fn environment(command: &ImageCommand, user: &User) -> Vec<String> {
    let mut list = command.environment.clone();
    let mut default = |key: &str, value: String| {
        let prefix = format!("{key}=");
        if !list.iter().any(|line| line.starts_with(&prefix)) {
            list.push(format!("{prefix}{value}"));
        }
    };
    default("PATH", PATH.to_owned());
    default("HOME", user.home.clone());
    default("TERM", "linux".to_owned());
    default("HOSTNAME", rustix::system::uname().nodename().to_string_lossy().into_owned());
    default("container", "lxc".to_owned());
    list
}

fn switch(user: &User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if user.uid != 0 {
        // Else it could not open /dev/stdout, which is where images write their logs.
        let _ = fchown(std::io::stdin(), Some(uid), None);
    }
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups)?;
    setgid(gid)?;
    setuid(uid)
}

/// The program's file, as execvp(3) finds it.
fn find(name: &str, environment: &[String]) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let path = environment.iter().find_map(|line| line.strip_prefix("PATH=")).unwrap_or(PATH);
    let places = path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name));
    places.into_iter().find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_variables_win() {
        let command = ImageCommand { environment: vec!["PATH=/x".into()], ..ImageCommand::default() };
        let user = User { uid: 0, gid: 0, groups: vec![], home: "/root".into() };
        let list = environment(&command, &user);
        assert!(list.contains(&"PATH=/x".to_owned()) && list.contains(&"HOME=/root".to_owned()));
        assert_eq!(list.iter().filter(|line| line.starts_with("PATH=")).count(), 1);
    }

    #[test]
    fn programs_are_found_in_the_images_path() {
        let environment = ["PATH=/nowhere:/bin".to_owned()];
        assert_eq!(find("sh", &environment), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("no-such-program", &environment), None);
        assert_eq!(find("/x/y", &environment), Some(PathBuf::from("/x/y")));
    }
}
