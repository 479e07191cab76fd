use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{ConfFile, resolve};
use crate::{Error, Exit, SaveFailure};

#[test]
fn grammar() {
    for (line, want) in [
        ("KEY=\"value\"", Some("value")),
        ("  KEY=\"value\"  \r", Some("value")),
        ("KEY=\"a\" # comment", Some("a")),
        ("KEY=\"a\"b\" c", Some("a\"b")),
        ("KEY=\"unclosed", Some("unclosed")),
        ("KEY=plain # text", Some("plain # text")),
        ("KEY=", Some("")),
        ("KEY=\"\"", Some("")),
        ("KEY=\"a\\\"b\\\\c\\$d\\`\"", Some("a\"b\\c$d`")),
        ("KEY=a\\ b", Some("a b")),
        ("KEY=a=b", Some("a=b")),
        ("#KEY=\"value\"", None),
        (" # KEY=\"value\"", None),
        ("KEY =\"value\"", None),
        ("key=\"value\"", None),
        ("XKEY=\"value\"", None),
        ("KEY", None),
    ] {
        assert_eq!(ConfFile::parse(line).get("KEY"), want, "{line:?}");
    }
    assert_eq!(ConfFile::parse("A=1\n\n#x\njunk\n =3\n").stray_lines(), [4, 5]);
}

#[test]
fn set_touches_only_its_line() {
    let text = "# Config\n\n#UUID: 1b4e28ba\nFOO=bar # odd\n  ONBOOT=\"no\"\n#ONBOOT=\"yes\"\nLAST=\"x\"";
    let mut conf = ConfFile::parse(text);
    assert_eq!(conf.to_string(), text);
    conf.set("ONBOOT", "yes").unwrap();
    assert_eq!(conf.to_string(), text.replace("  ONBOOT=\"no\"", "ONBOOT=\"yes\""));
    conf.set("NEW", "").unwrap();
    assert!(conf.to_string().ends_with("LAST=\"x\"\nNEW=\"\"\n"), "{conf}");
    assert!(conf.remove("FOO") && !conf.remove("FOO"));
    assert!(!conf.to_string().contains("FOO"));
}

#[test]
fn set_leaves_one_line_of_duplicates_and_aliases() {
    let mut conf = ConfFile::parse("A=1\nDCACHE=1:2\nB=2\nDCACHESIZE=3:4\nA=5\n");
    assert_eq!(conf.all("DCACHESIZE").collect::<Vec<_>>(), ["1:2", "3:4"]);
    conf.set("DCACHESIZE", "7:8").unwrap();
    conf.set("A", "1").unwrap();
    assert_eq!(conf.to_string(), "A=1\nDCACHESIZE=\"7:8\"\nB=2\n");
}

#[test]
fn line_breaks_are_refused() {
    for value in ["a\nb", "a\rb", "a\0b"] {
        let error = ConfFile::default().set("DESCRIPTION", value).unwrap_err();
        assert_eq!(error.exit(), Exit::InvalidValue);
    }
}

#[test]
fn bytes_that_are_not_utf8_survive() {
    let bytes = b"DESCRIPTION=\"caf\xe9\"\nA=\"1\"\n";
    let mut conf = ConfFile::parse_bytes(bytes);
    assert_eq!(conf.to_bytes(), bytes);
    conf.set("A", "2").unwrap();
    assert_eq!(conf.to_bytes(), b"DESCRIPTION=\"caf\xe9\"\nA=\"2\"\n");
}

/// What a shell sees after sourcing the file with `VEID=101`.
fn sourced(conf: &ConfFile, key: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conf");
    conf.save(&file).unwrap();
    let script = format!("VEID=101; . \"$0\" && printf %s \"${key}\"");
    let out = Command::new("sh").args(["-c", &script]).arg(&file).stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_shell_reads_what_we_read() {
    for value in
        ["a\"b", "back\\slash", "end\\", "$HOME ${HOME} $(id) `id`", "it's; rm -rf # x", "!", "a\tb", "\""]
    {
        let mut conf = ConfFile::default();
        conf.set("DESCRIPTION", value).unwrap();
        assert_eq!(sourced(&conf, "DESCRIPTION"), value);
        assert_eq!(ConfFile::parse(&conf.to_string()).get("DESCRIPTION"), Some(value));
    }
    for (value, seen) in [("/vz/root/$VEID", "/vz/root/101"), ("/a/${VEID}/$X", "/a/101/$X")] {
        let mut conf = ConfFile::default();
        conf.set("VE_ROOT", value).unwrap();
        assert_eq!(sourced(&conf, "VE_ROOT"), seen);
        assert_eq!(ConfFile::parse(&conf.to_string()).get("VE_ROOT"), Some(value));
    }
}

#[test]
fn save_keeps_mode_owner_and_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.conf"), dir.path().join("101.conf"));
    fs::write(&real, "A=1\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&real, Some(123), Some(456)).unwrap();
    }
    let before = fs::metadata(&real).unwrap();
    symlink("real.conf", &link).unwrap();
    let mut conf = ConfFile::load(&link).unwrap();
    conf.set("A", "2").unwrap();
    conf.save(&link).unwrap();
    let after = fs::metadata(&real).unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), "A=\"2\"\n");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(before.ino(), after.ino(), "replaced, not rewritten");
    assert_eq!((before.mode(), before.uid(), before.gid()), (after.mode(), after.uid(), after.gid()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    symlink("new.conf", dir.path().join("dangling")).unwrap();
    conf.save(&dir.path().join("dangling")).unwrap();
    assert!(dir.path().join("new.conf").exists());
    symlink("loop", dir.path().join("loop")).unwrap();
    assert!(resolve(&dir.path().join("loop")).is_err());
}

#[test]
fn a_new_file_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("new"), dir.path().join("link"));
    ConfFile::parse("A=1\n").save_new(&file).unwrap();
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for taken in [&file, &link] {
        let Err(Error::Save { source, .. }) = ConfFile::parse("A=2\n").save_new(taken) else { panic!() };
        assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "A=1\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn what_a_crash_leaves_behind_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("101.conf");
    fs::write(&file, "A=1\n").unwrap();
    let temp = dir.path().join(format!(".101.conf.{}.tmp", std::process::id()));
    // Cut off in the middle, read-only, as a killed process may leave it.
    fs::write(&temp, "A=\"").unwrap();
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(ConfFile::load(&file).unwrap().get("A"), Some("1"));
    let mut conf = ConfFile::load(&file).unwrap();
    conf.set("A", "2").unwrap();
    conf.save(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "A=\"2\"\n");
    assert!(!temp.exists());
}

#[test]
fn a_failed_save_names_the_file_and_the_cause() {
    let error = ConfFile::default().save(std::path::Path::new("/proc/101.conf")).unwrap_err();
    let Error::Save { path, .. } = &error else { panic!("{error}") };
    assert_eq!(path, std::path::Path::new("/proc/101.conf"));
    for (errno, failure, exit, text) in [
        (rustix::io::Errno::ROFS, SaveFailure::ReadOnly, Exit::ConfigSave, "read-only"),
        (rustix::io::Errno::ACCESS, SaveFailure::Denied, Exit::ConfigSave, "permission denied"),
        (rustix::io::Errno::NOSPC, SaveFailure::NoSpace, Exit::FsNoDiskSpace, "no space left"),
        (rustix::io::Errno::DQUOT, SaveFailure::NoSpace, Exit::FsNoDiskSpace, "no space left"),
    ] {
        let error = Error::save("/etc/vz/conf/101.conf", errno.into());
        let Error::Save { failure: got, .. } = &error else { panic!("{error}") };
        assert_eq!((*got, error.exit()), (failure, exit));
        let shown = error.to_string();
        assert!(shown.contains(text) && shown.contains("/etc/vz/conf/101.conf"), "{shown}");
    }
}

proptest! {
    #[test]
    fn any_bytes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(ConfFile::parse_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn any_text_round_trips(text in "([A-Z]{0,3}[=#]?[\"\\\\$`a-z \t]{0,8}[\r]?\n?){0,8}") {
        prop_assert_eq!(ConfFile::parse(&text).to_string(), text);
    }

    #[test]
    fn set_then_get(text in "([A-C]=\"?[a-z\"\\\\ ]{0,5}\n?){0,6}", key in "[A-D]", value in "[^\n\r\0]{0,40}") {
        let mut conf = ConfFile::parse(&text);
        conf.set(&key, &value).unwrap();
        prop_assert_eq!(conf.get(&key), Some(value.as_str()));
        let again = ConfFile::parse(&conf.to_string());
        prop_assert_eq!(again.all(&key).collect::<Vec<_>>(), vec![value.as_str()]);
        prop_assert_eq!(again.to_bytes(), conf.to_bytes());
    }
}
