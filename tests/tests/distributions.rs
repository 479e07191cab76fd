//! Real distributions: they boot to their default target with nothing failed, can be reached, and stop by
//! their own way.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use vztests::{Background, Node, Ve, command, on_node, run, skip, until};

const BOOT: Duration = Duration::from_secs(120);
const ADDRESS: &str = "10.30.0.1";

/// Creates and starts a VE of a template.
fn boot<'n>(node: &'n Node, template: &str) -> Option<Ve<'n>> {
    if !node.has_template(template) {
        return None;
    }
    let ve = node.ve(1);
    ve.ok(
        "create",
        &["--ostemplate", template, "--config", "vswap-1g", "--hostname", "guest.test", "--ipadd", ADDRESS],
    );
    ve.ok("start", &["--wait"]).says("Container started successfully");
    Some(ve)
}

fn has_systemd_running(ve: &Ve<'_>) {
    let mut last = String::new();
    until("systemd has finished booting", BOOT, || {
        last = ve.run("exec2", &["systemctl is-system-running"]).out();
        !["initializing", "starting", ""].contains(&last.trim())
    });
    let failed = ve.run("exec2", &["systemctl --failed --no-legend --plain; for u in $(systemctl --failed --no-legend --plain | cut -d' ' -f1); do systemctl status --no-pager -l $u; done"]);
    assert_eq!(last.trim(), "running", "{failed}");
}

/// What holds for every guest, whatever its init.
fn is_a_whole_system(ve: &Ve<'_>) {
    assert_eq!(ve.sh("hostname"), "guest.test");
    until("it answers a ping", Duration::from_secs(20), || {
        run("ping", &["-q", "-c", "1", "-W", "1", ADDRESS]).code == 0
    });
    until("sshd answers", Duration::from_secs(60), || {
        let Ok(mut stream) = TcpStream::connect((ADDRESS, 22)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut banner = [0; 4];
        stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-"
    });
    root_logs_in_with_a_password(ve);
    assert_eq!(ve.sh("id -u; stat -c %u /etc/passwd"), "0\n0");
    ve.sh("touch /root/file && ls /root/file");
    // A service user can be become, and owns what it makes.
    let nobody = ve.sh("su -s /bin/sh nobody -c 'id -u; touch /tmp/of-nobody; stat -c %U /tmp/of-nobody'");
    assert!(nobody.ends_with("\nnobody"), "{nobody}");
}

/// As the README tells people to.
fn root_logs_in_with_a_password(ve: &Ve<'_>) {
    ve.ok("set", &["--userpasswd", "root:Secr3t word", "--save"]);
    let answer = ve.node.scratch().join("askpass");
    fs::write(&answer, "#!/bin/sh\necho 'Secr3t word'\n").unwrap();
    run("chmod", &["700", answer.to_str().unwrap()]).ok();
    let target = format!("root@{ADDRESS}");
    let options = [
        "-oStrictHostKeyChecking=no",
        "-oUserKnownHostsFile=/dev/null",
        "-oPreferredAuthentications=password",
        "-oNumberOfPasswordPrompts=1",
    ];
    let mut ssh = command("ssh", &options);
    ssh.args([&target, "id -u; hostname"]);
    ssh.env("SSH_ASKPASS", answer).env("SSH_ASKPASS_REQUIRE", "force");
    let login = Background::spawn(ssh, &[]).finish().ok();
    assert_eq!(login.out(), "0\nguest.test\n", "{login}");
}

/// What the distribution's own programs say of RAM, processors and time is what the VE has.
fn its_tools_know_its_limits(ve: &Ve<'_>) {
    if !std::path::Path::new("/dev/fuse").exists() {
        skip("FUSE");
        return;
    }
    assert_eq!(ve.sh("free -b | awk '/^Mem/ { print $2 }'"), (1_u64 << 30).to_string());
    let top = ve.sh("top -b -n 1 | head -n 5");
    assert!(top.contains("MiB Mem :   1024.0 total"), "{top}");
    let number = |line: &str| -> f64 { ve.sh(line).trim().parse().unwrap() };
    let host: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let own = number("cut -d' ' -f1 /proc/uptime");
    assert!(own < host && number("ps -o etimes= -p 1") <= own + 2.0, "up {own} s, the host {host} s");
    assert!(ve.sh("uptime").contains("load average"));
    ve.ok("set", &["--cpulimit", "100"]);
    // Both are asked again each time.
    assert_eq!(ve.sh("getconf _NPROCESSORS_ONLN; grep -c ^processor /proc/cpuinfo"), "1\n1");
    ve.ok("set", &["--cpulimit", "0"]);
}

/// Clean, and quick.
fn stops_by_itself(ve: &Ve<'_>) {
    let stop = ve.ok("stop", &[]).says("Container was stopped").never_says("Killing");
    assert!(stop.took < Duration::from_secs(20), "{stop}");
    ve.is("exist unmounted down");
}

/// Everything that is promised of a guest with systemd.
fn systemd_guest(node: &Node, template: &str) {
    let Some(ve) = boot(node, template) else { return };
    has_systemd_running(&ve);
    is_a_whole_system(&ve);
    its_tools_know_its_limits(&ve);
    assert_eq!(ve.sh("systemd-detect-virt --container").lines().next(), Some("lxc"));
    // Its init makes cgroups of its own inside the VE's.
    assert!(ve.sh("cat /proc/self/cgroup /proc/1/cgroup").contains("init.scope"));
    let old = ve.init().unwrap();
    let _ = ve.run("exec", &["reboot"]);
    until("it comes back", BOOT, || ve.init().is_some_and(|init| init != old));
    until("it can be entered", BOOT, || ve.run("exec2", &["true"]).code == 0);
    has_systemd_running(&ve);
    stops_by_itself(&ve);
}

/// The same of any other.
fn other_guest(node: &Node, template: &str, init: &str) {
    let Some(ve) = boot(node, template) else { return };
    is_a_whole_system(&ve);
    assert_eq!(ve.sh("cat /proc/1/comm"), init);
    let old = ve.init().unwrap();
    let _ = ve.run("exec", &["reboot"]);
    until("it comes back", BOOT, || ve.init().is_some_and(|init| init != old));
    until("it can be entered", BOOT, || ve.run("exec2", &["true"]).code == 0);
    until("it answers a ping", BOOT, || run("ping", &["-q", "-c", "1", "-W", "1", ADDRESS]).code == 0);
    stops_by_itself(&ve);
}

mod boot {
    use super::*;

    #[test]
    fn debian_12() {
        on_node(|node| systemd_guest(node, "debian-12-x86_64-minimal"));
    }

    #[test]
    fn debian_13() {
        on_node(|node| systemd_guest(node, "debian-13-x86_64-minimal"));
    }

    #[test]
    fn debian_12_i386() {
        on_node(|node| systemd_guest(node, "debian-12-i386-minimal"));
    }

    #[test]
    fn debian_12_with_sysvinit() {
        on_node(|node| other_guest(node, "debian-12-x86_64-sysvinit", "init"));
    }

    #[test]
    fn debian_12_with_openrc() {
        on_node(|node| other_guest(node, "debian-12-x86_64-openrc", "init"));
    }
}
