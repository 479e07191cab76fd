//! `/etc/inittab`, of System V init and of busybox.

use super::init::InitKind;
use super::run_files::READY_MARK;
use super::text;

/// The id of our lines; the original vzctl used it as well.
const READY_ID: &str = "vz";

/// Takes terminals that a VE does not have out of force, puts a login on the console, and has the
/// ready mark made when the default runlevel is reached. `getty` is the guest's program for logins.
pub(super) fn edit(old: &str, init: InitKind, getty: Option<&str>) -> String {
    let outside = text::without_block(old);
    let mut console = false;
    let mut lines = Vec::new();
    for line in outside.lines() {
        if line.split(':').next() == Some(READY_ID) {
            continue;
        }
        match terminal(line, init) {
            Some(Terminal::Absent) => lines.push(format!("{}{line}", text::OFF)),
            Some(Terminal::Console) => {
                console = true;
                lines.push(line.to_owned());
            }
            None => lines.push(line.to_owned()),
        }
    }
    let mut body = String::new();
    let busybox = init == InitKind::Busybox;
    if let (false, Some(getty)) = (console, getty) {
        let (id, levels) = if busybox { ("console", "") } else { ("vzc", "2345") };
        let arguments = if getty.ends_with("mingetty") { "console" } else { "38400 console linux" };
        body.push_str(&format!("{id}:{levels}:respawn:{getty} {arguments}\n"));
    }
    // At the end: init runs the lines in order and waits for those that start the runlevel.
    let (id, levels) = if busybox { ("", "") } else { (READY_ID, "2345") };
    body.push_str(&format!("{id}:{levels}:once:/bin/touch {READY_MARK}\n"));
    text::with_block(&text::join(lines.iter().map(String::as_str)), &body)
}

enum Terminal {
    Console,
    Absent,
}

/// The terminal that a line keeps a program on.
fn terminal(line: &str, init: InitKind) -> Option<Terminal> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let mut fields = line.splitn(4, ':');
    let (id, _, action, process) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if !matches!(action, "respawn" | "ondemand" | "askfirst") {
        return None;
    }
    // busybox takes the id for the terminal, and none for the console.
    let login = process.starts_with('-') || ["/sh", "login", "getty"].iter().any(|p| process.contains(p));
    if init == InitKind::Busybox && id.is_empty() && login {
        return Some(Terminal::Console);
    }
    let mut words = process.split_whitespace().chain([id.trim()]);
    if words.clone().any(|word| word == "console" || word == "/dev/console") {
        return Some(Terminal::Console);
    }
    let absent = |word: &str| {
        let name = word.strip_prefix("/dev/").unwrap_or(word);
        let rest = ["tty", "hvc", "vc/"].iter().find_map(|prefix| name.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.ends_with(|c: char| c.is_ascii_digit()))
    };
    words.any(absent).then_some(Terminal::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttys_go_the_console_comes() {
        let old = "id:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2\n1:2345:respawn:/sbin/getty 38400 tty1\n\
                   T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\nvz:2345:once:touch /.vzfifo\n";
        let new = edit(old, InitKind::Sysvinit, Some("/sbin/getty"));
        let want = format!(
            "id:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2\n#vz: 1:2345:respawn:/sbin/getty 38400 tty1\n\
             #vz: T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n\n{}\nvzc:2345:respawn:/sbin/getty 38400 console linux\n\
             vz:2345:once:/bin/touch /run/.vzready\n{}\n",
            text::BEGIN,
            text::END
        );
        assert_eq!(new, want);
        assert_eq!(edit(&new, InitKind::Sysvinit, Some("/sbin/getty")), new);
    }

    #[test]
    fn a_console_of_the_guest_stays() {
        let old = "::sysinit:/sbin/openrc sysinit\nconsole::respawn:/sbin/getty 38400 console\ntty1::respawn:/sbin/getty 38400 tty1\n";
        let new = edit(old, InitKind::Busybox, Some("/sbin/getty"));
        assert!(new.contains("\n#vz: tty1::respawn"), "{new}");
        assert_eq!(new.matches("console::respawn").count(), 1);
        assert!(new.contains("\n:::once:") || new.contains("\n::once:/bin/touch"), "{new}");
    }
}
