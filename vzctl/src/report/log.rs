//! The log file: one line an event, one `write` a line. It is opened for each: a copy of the process that works on in the
//! background has none of its files, and whoever rotates the log needs not tell us.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use vzconf::Ctid;

/// Where and how much is logged: LOGGING, LOGFILE, LOG_LEVEL and VERBOSE of vz.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogSettings {
    /// LOGGING is not `no`.
    pub(super) enabled: bool,
    /// LOGFILE.
    pub(super) file: PathBuf,
    /// LOG_LEVEL: lines above it are not logged; -1 logs errors only.
    pub(super) level: i32,
    /// VERBOSE: the console's level, unless the command line says otherwise.
    pub(super) verbose: i32,
}

impl LogSettings {
    /// Reads the settings through `get`, which gives a key's value in vz.conf. Numbers that are none count as 0.
    pub(super) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>, default_file: PathBuf) -> Self {
        let number = |key| get(key).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self {
            enabled: get("LOGGING") != Some("no"),
            file: get("LOGFILE").filter(|file| !file.is_empty()).map_or(default_file, PathBuf::from),
            level: number("LOG_LEVEL"),
            verbose: number("VERBOSE"),
        }
    }
}

/// The log file of one run.
#[derive(Debug)]
pub(super) struct Log {
    settings: LogSettings,
    program: &'static str,
    /// It could not be opened; that was told once.
    broken: Cell<bool>,
}

impl Log {
    pub(super) fn new(settings: LogSettings, program: &'static str) -> Self {
        Self { settings, program, broken: Cell::new(false) }
    }

    /// Appends a line, if the level is logged.
    ///
    /// # Errors
    /// The first time the file cannot be opened or written: the sentence to show.
    pub(super) fn line(&self, ct: Option<Ctid>, level: i32, message: &str) -> Result<(), String> {
        let settings = &self.settings;
        if !settings.enabled || settings.level < level || self.broken.get() {
            return Ok(());
        }
        let mut file = open(settings).map_err(|cause| {
            self.broken.set(true);
            format!("WARNING: cannot write the log file {}: {cause}", settings.file.display())
        })?;
        let line = format_line(&jiff::Zoned::now(), self.program, ct, message);
        // A full disk must not stop what is being done, and the console has said it already.
        let _ = file.write_all(line.as_bytes());
        Ok(())
    }
}

fn open(settings: &LogSettings) -> io::Result<File> {
    // Not blocking: a log file that is a FIFO must not hang every command. (Rust always sets O_CLOEXEC.)
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(nonblock).open(&settings.file)
}

/// `<YYYY-MM-DDTHH:MM:SS±zzzz> vzctl : [CT <id> : ]<message>`
fn format_line(now: &jiff::Zoned, program: &str, ct: Option<Ctid>, message: &str) -> String {
    let date = now.strftime("%Y-%m-%dT%H:%M:%S%z");
    let ct = ct.filter(|ct| !ct.is_host()).map(|ct| format!("CT {ct} : ")).unwrap_or_default();
    format!("{date} {program} : {ct}{}\n", one_line(message))
}

/// The message without control characters, which could forge a second line.
fn one_line(message: &str) -> String {
    let message = message.trim_matches(|c: char| c.is_whitespace());
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: PathBuf, level: i32) -> LogSettings {
        LogSettings { enabled: true, file, level, verbose: 0 }
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let now: jiff::Zoned = "2026-11-23T09:05:07+02:00[+02:00]".parse().unwrap();
        let ct = Some(Ctid::new(101).unwrap());
        assert_eq!(
            format_line(&now, "vzctl", ct, "Starting container..."),
            "2026-11-23T09:05:07+0200 vzctl : CT 101 : Starting container...\n"
        );
        assert_eq!(
            format_line(&now, "vzctl", None, "\tdump..."),
            "2026-11-23T09:05:07+0200 vzctl : dump...\n"
        );
        assert_eq!(format_line(&now, "vzctl", Some(Ctid::HOST), "x"), "2026-11-23T09:05:07+0200 vzctl : x\n");
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        assert_eq!(one_line("a\n2026 vzctl : CT 1 : b\x1b[2J"), "a 2026 vzctl : CT 1 : b [2J");
    }

    #[test]
    fn lines_are_appended_up_to_the_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vzctl.log");
        std::fs::write(&path, "before\n").unwrap();
        let log = Log::new(settings(path.clone(), 0), "vzctl");
        for (level, message) in [(-1, "bad"), (0, "good"), (1, "chatter")] {
            log.line(None, level, message).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n"), "{text}");
        assert!(text.contains(" vzctl : bad\n") && text.contains(" vzctl : good\n"), "{text}");
        assert!(!text.contains("chatter"), "{text}");
    }

    #[test]
    fn nothing_is_opened_before_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vzctl.log");
        let log = Log::new(settings(path.clone(), 0), "vzctl");
        log.line(None, 1, "chatter").unwrap();
        assert!(!path.exists());
        log.line(None, 0, "news").unwrap();
        assert!(path.exists());
    }

    #[test]
    fn an_unwritable_log_is_told_once() {
        let log = Log::new(settings("/proc/no/such.log".into(), 0), "vzctl");
        let complaint = log.line(None, 0, "one").unwrap_err();
        assert!(complaint.contains("/proc/no/such.log"), "{complaint}");
        log.line(None, 0, "two").unwrap();
    }

    #[test]
    fn a_fifo_as_log_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vzctl.log");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let log = Log::new(settings(path, 0), "vzctl");
        assert!(log.line(None, 0, "one").is_err());
    }

    #[test]
    fn settings_come_from_vz_conf() {
        let all = |key: &str| match key {
            "LOGGING" => Some("no"),
            "LOGFILE" => Some("/tmp/x.log"),
            "LOG_LEVEL" => Some("-1"),
            "VERBOSE" => Some("2"),
            _ => None,
        };
        let read = LogSettings::read(all, "/default".into());
        let want = LogSettings { enabled: false, file: "/tmp/x.log".into(), level: -1, verbose: 2 };
        assert_eq!(read, want);
        let none = LogSettings::read(|_| None, "/default".into());
        assert_eq!(none, LogSettings { enabled: true, file: "/default".into(), level: 0, verbose: 0 });
    }
}
