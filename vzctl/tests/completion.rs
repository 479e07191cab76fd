//! Completion: what is proposed where, and that the shells accept the scripts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use vzconf::Paths;
use vzctl::complete::{Shell, Sources, answer};

/// A host with 101 (web, running), 102 (db) and 205 (running).
fn host() -> (TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    let mut sources = Sources::of(&paths);
    sources.devices = dir.path().join("net");
    for each in [&sources.conf, &sources.names, &sources.run, &sources.templates, &sources.devices] {
        fs::create_dir_all(each).unwrap();
    }
    for file in ["0.conf", "101.conf", "102.conf", "205.conf", "103.conf.destroyed", "ve-basic.conf-sample"] {
        fs::write(sources.conf.join(file), "").unwrap();
    }
    for (name, target) in [("web", "101"), ("db", "102")] {
        symlink(paths.conf_dir().join(format!("{target}.conf")), sources.names.join(name)).unwrap();
    }
    for running in ["101", "205", "999", "102"] {
        fs::create_dir(sources.run.join(running)).unwrap();
    }
    for running in ["101", "205", "999"] {
        fs::write(sources.run.join(running).join("state.json"), "{}").unwrap();
    }
    for file in ["debian-12.tar.zst", "tiny.tar", "tiny.tar.json", "bad\nname.tar"] {
        fs::write(sources.templates.join(file), "").unwrap();
    }
    fs::create_dir(sources.devices.join("br0")).unwrap();
    (dir, sources)
}

/// What is proposed at the end of the line, without the explanations.
fn at(sources: &Sources, line: &str) -> Vec<String> {
    let words = std::iter::once("line").chain(line.split(' ')).map(OsString::from);
    let text = answer(sources, &words.collect::<Vec<_>>());
    text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn containers_are_proposed_by_state() {
    let (_dir, sources) = host();
    for (line, want) in [
        ("vzctl start ", "102 db"),
        ("vzctl destroy ", "102 db"),
        ("vzctl stop ", "101 205 web"),
        ("vzctl --quiet enter ", "101 205 web"),
        ("vzctl exec 2", "205"),
        ("vzctl set ", "101 102 205 db web"),
        ("vzctl create ", "206"),
        ("vzctl stop w", "web"),
        ("vzctl stop --fast ", "101 205 web"),
        ("vzlist ", "101 102 205 db web"),
    ] {
        assert_eq!(at(&sources, line).join(" "), want, "{line:?}");
    }
}

#[test]
fn the_tools_take_what_they_take() {
    let (_dir, sources) = host();
    for (line, want) in [
        ("vzubc ", "101 205 web"),
        ("vzubc -q -qh ", ""),
        ("vzubc -q", "-qh -qm"),
        ("vzubc --re", "--relative"),
        ("vzubc -f ", ":paths"),
        ("vzubc -rd ", ":paths"),
        ("/usr/sbin/vzcalc -v ", "101 102 205"),
        ("vzmemcheck --a", "--absolute"),
        ("vzcpucheck ", "--verbose --help"),
        ("vzoversell ", ":paths"),
        ("vzpid ", ""),
        ("vzpid -", "--ctpid --help"),
        ("vznnc -", "-l -c -p -f --help"),
        ("vzcfgvalidate -", "--repair --interactive --vswap --help"),
        ("vzcfgvalidate -v ", "yes no"),
        ("vzcfgvalidate -r ", ":paths"),
        ("vzsplit ", "--number --file --swap --vswap --help"),
        ("vzsplit -n ", ""),
        ("vzsplit --vswap n", "no"),
        ("vzcfgscale --a", "--all"),
        ("vzcfgscale -a ", ""),
        ("vzcfgscale -v ", ":paths"),
        ("vzcfgscale -a 2 -o ", ":paths"),
    ] {
        assert_eq!(at(&sources, line).join(" "), want, "{line:?}");
    }
}

#[test]
fn the_first_container_is_101() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(at(&Sources::of(&Paths::under(dir.path())), "vzctl create "), ["101"]);
}

#[test]
fn words_and_values_are_proposed() {
    let (_dir, sources) = host();
    for (line, want) in [
        ("vzctl st", "start stop status"),
        ("vzctl dele", "delete"),
        ("vzctl --qu", "--quiet"),
        ("vzctl start 102 --w", "--wait"),
        ("vzctl start 102 ", "--force --wait --skip-fsck --skip-remount --help"),
        ("vzctl start 102 --wait --w", ""),
        ("vzctl create 206 --ostemplate ", "debian-12 tiny"),
        ("vzctl create 206 --ostemplate=ti", "--ostemplate=tiny"),
        ("vzctl create 206 --ostemplate = ti", "tiny"),
        ("vzctl create 206 --config ", "basic"),
        ("vzctl create 206 --layout s", "simfs"),
        ("vzctl set 101 --onboot ", "yes no"),
        ("vzctl set 101 --hostname ", ""),
        ("vzctl set 101 --hostname web --save --setm", "--setmode"),
        ("vzctl set 101 --bridge ", "br0"),
        ("vzctl set 101 --ipadd 10.0.0.1 --ipa", "--ipadd"),
        ("vzctl enter 101 ", "--exec"),
        ("vzctl exec 101 ls ", ""),
        ("vzctl runscript 101 ", ":paths"),
        ("vzctl completion ", "bash zsh fish"),
        ("vzctl frob ", ""),
        ("vzlist -o ctid,hostn", "ctid,hostname"),
        ("vzlist -s -bootor", "-bootorder"),
        ("vzlist --js", "--json"),
        ("/usr/bin/vztmpl rm d", "debian-12"),
        ("vztmpl ver", "verify"),
    ] {
        assert_eq!(at(&sources, line).join(" "), want, "{line:?}");
    }
}

#[test]
fn kinds_have_plain_answers() {
    let (_dir, sources) = host();
    for (kind, want) in [
        ("ctids", "101\tweb\n102\tdb\n205\ndb\tCTID 102\nweb\tCTID 101\n"),
        ("next", "206\tnext free CTID\n"),
        ("templates", "debian-12\ntiny\n"),
        ("samples", "basic\n"),
        ("frob", ""),
    ] {
        assert_eq!(answer(&sources, &[kind.into()]), want, "{kind}");
    }
    assert_eq!(answer(&sources, &[]), "");
}

#[test]
fn shells_accept_the_scripts() {
    for (program, shell) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, shell.script()).unwrap();
        let run = Command::new(program).arg("-n").arg(&script).stdin(Stdio::null()).output();
        match run {
            Ok(output) => assert!(output.status.success(), "{program}: {output:?}"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{program}: {error}"),
        }
    }
}

#[test]
fn bash_completes_with_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("vzctl");
    fs::write(&fake, "#!/bin/sh\nprintf '101\\tweb\\n'; printf '%s\\n' \"$#:$2:$3:$4\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&fake, mode).unwrap();
    let test = "source /dev/stdin; COMP_WORDS=(vzctl stop 1); COMP_CWORD=2; _vzctl vzctl 1 stop; \
                printf '%s ' \"${COMPREPLY[@]}\"";
    let mut child = Command::new("bash")
        .args(["--norc", "-c", test])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), Shell::Bash.script().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "101 5:line:vzctl:stop ");
}

#[test]
fn bash_quotes_what_needs_it_and_asks_for_what_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("vzctl");
    fs::write(&fake, "#!/bin/sh\nprintf '%s\\n' ctid,hostname 'my db' \"$4\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&fake, mode).unwrap();
    for (typed, current, want) in [
        (r"my\\\ d", r"my\ d", r"ctid,hostname|my\ db|my\ d|"),
        (r#"\"my\ d"#, "my d", "ctid,hostname|my db|my d|"),
    ] {
        let test = format!(
            "source \"$0\"; COMP_WORDS=(vzlist {typed}); COMP_CWORD=1; _vzctl vzlist '{current}' vzlist; \
             printf '%s|' \"${{COMPREPLY[@]}}\""
        );
        let script = dir.path().join("script");
        fs::write(&script, Shell::Bash.script()).unwrap();
        let output = Command::new("bash")
            .args(["--norc", "-c", &test])
            .arg(&script)
            .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), want, "{typed}: {output:?}");
    }
}

#[test]
fn fish_completes_with_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("vzctl");
    fs::write(&fake, "#!/bin/sh\nprintf '101\\tweb\\n1%s\\n' \"$#:$2:$3:$4\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&fake, mode).unwrap();
    let script = dir.path().join("script.fish");
    fs::write(&script, Shell::Fish.script()).unwrap();
    let run = Command::new("fish")
        .args(["--no-config", "-c", "source $argv[1]; complete -C 'vzctl stop 1'"])
        .arg(&script)
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("101\tweb") && text.contains("15:line:vzctl:stop"), "{output:?}");
}
