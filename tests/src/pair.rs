//! Two hosts: the node, and a second one beside it, with a cable between them and an sshd on each.
//!
//! ```text
//!  node                                      second
//!  its own namespaces, /vz, /etc/vz, /run    the same, made inside of the node's; its own cgroups
//!  10.98.0.1 cable ───────────── veth ────── cable 10.98.0.2
//! ```
//! The second host's processes are seen in the node's `/proc`, and its files below `/proc/PID/root`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::ctid;
use crate::inside::{self, skip};
use crate::node::Node;
use crate::outside;
use crate::run::{Background, Run, alive, command, run};
use crate::wait::{holds, until};
use crate::world::World;

/// Set in the second host.
const SECOND: &str = "VZTESTS_SECOND";
const SSHD: &str = "/usr/sbin/sshd";
const READY: &str = "ready";
const SOON: Duration = Duration::from_secs(60);
/// The addresses of the two.
const ADDRESSES: [&str; 2] = ["10.98.0.1", "10.98.0.2"];

/// Two hosts.
#[derive(Debug)]
pub struct Pair<'n> {
    /// The first: the test runs on it.
    pub a: &'n Node,
    /// The second.
    pub b: Node,
    ssh: PathBuf,
}

/// Runs a test's body on two throw-away hosts. Afterwards every VE is destroyed, and the first host must be as it
/// was; so must the files of the second.
///
/// # Panics
/// When the body does, or something is left behind.
pub fn on_two_nodes<F: FnOnce(&Pair<'_>)>(body: F) {
    if !rustix::process::geteuid().is_root() {
        return skip("root");
    }
    if !Path::new(SSHD).exists() {
        return skip("sshd (package openssh-server)");
    }
    if std::env::var_os(SECOND).is_some() {
        return serve();
    }
    let Some(dir) = std::env::var_os(outside::NODE) else {
        return outside::run_inside(inside::test_name::<F>());
    };
    let first = std::env::var(outside::FIRST).unwrap().parse().unwrap();
    let a = Node::new(PathBuf::from(dir), first);
    fs::write(a.dir().join(outside::RAN), "").unwrap();
    inside::make_host(&a, "a.test", None);
    let ssh = a.dir().join("ssh");
    make_keys(&ssh);
    let second = Second::start(&a, inside::test_name::<F>(), first);
    cable(second.init);
    let mut sshds: Vec<Child> = Vec::new();
    let pair = Pair { b: a.second(second.init), a: &a, ssh };
    for (number, prefix) in [(0, Vec::new()), (1, enter(second.init))] {
        admit(if number == 0 { pair.a } else { &pair.b });
        sshds.push(start_sshd(&a, &pair.ssh, number, prefix));
    }
    for node in [pair.a, &pair.b] {
        let mut last = String::new();
        let answers = holds(SOON, || {
            let run = pair.shell(node, "true");
            last = run.to_string();
            run.code == 0
        });
        let said = |number| fs::read_to_string(pair.ssh.join(format!("log-{number}"))).unwrap_or_default();
        assert!(answers, "no sshd answers:\n{last}\n{}\n{}", said(0), said(1));
    }
    let before = World::take(&a);
    let files = pair.files();
    a.witness(|| pair.b.witness(|| body(&pair)));
    pair.b.destroy_all();
    a.destroy_all();
    until("nothing is left on the second host", SOON, || pair.files() == files);
    before.must_return(&a);
    for mut sshd in sshds {
        let _ = sshd.kill();
        let _ = sshd.wait();
    }
}

impl Pair<'_> {
    /// The options with which `node` reaches the other one, and that one's address.
    #[must_use]
    pub fn way(&self, node: &Node) -> [String; 2] {
        let address = ADDRESSES[usize::from(!node.is_second())];
        [format!("--ssh=-F {}", self.ssh.join("config").display()), address.to_owned()]
    }

    /// `vzmigrate` on `node` towards the other one, not started.
    #[must_use]
    pub fn command(&self, node: &Node, options: &[&str], ct: &str) -> std::process::Command {
        let [ssh, address] = self.way(node);
        let words = [options, &[&ssh, &address, ct]].concat();
        node.command_of("vzmigrate", &words)
    }

    /// Runs it.
    #[track_caller]
    pub fn migrate(&self, node: &Node, options: &[&str], ct: &str) -> Run {
        self.start(node, options, ct).finish()
    }

    /// Starts it.
    #[must_use]
    #[track_caller]
    pub fn start(&self, node: &Node, options: &[&str], ct: &str) -> Background {
        Background::spawn(self.command(node, options, ct), &[])
    }

    /// Runs `vzmigrate --resolve` on `node`.
    #[track_caller]
    pub fn resolve(&self, node: &Node, ct: &str, options: &[&str]) -> Run {
        let [ssh, _] = self.way(node);
        let words = [&["--resolve", ct, &ssh], options].concat();
        Background::spawn(node.command_of("vzmigrate", &words), &[]).finish()
    }

    /// A command line on the other host of `node`, by ssh.
    #[track_caller]
    pub fn shell(&self, node: &Node, line: &str) -> Run {
        let [_, address] = self.way(node);
        let config = self.ssh.join("config");
        let words = ["-F", config.to_str().unwrap(), "-o", "BatchMode=yes", &address, line];
        Background::spawn(node.command_of("/usr/bin/ssh", &words), &[]).finish()
    }

    /// What is served next on a host kills itself at this point.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn fault(&self, node: &Node, point: &str) {
        fs::write(self.ssh.join(format!("fault-{}", usize::from(node.is_second()))), point).unwrap();
    }

    /// Nothing goes over the cable any more, and nobody is told.
    pub fn cut(&self) {
        let chain = |name, hook, rule| {
            format!(
                "add chain inet cut {name} {{ type filter hook {hook} priority -300; }}; \
                 add rule inet cut {name} {rule} \"cable\" drop; "
            )
        };
        let rules = [
            "add table inet cut; ".to_owned(),
            chain("come", "input", "iifname"),
            chain("go", "output", "oifname"),
        ];
        run("nft", &[&rules.concat()]).ok();
    }

    /// It does again.
    pub fn heal(&self) {
        run("nft", &["delete table inet cut"]).ok();
    }

    /// The pids of processes of a move that stand at a point where they were to stop.
    #[must_use]
    pub fn stopped(&self) -> Vec<i32> {
        let state = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stands = |pid: &i32| state(pid).rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"));
        self.processes("vzmigrate").into_iter().filter(stands).collect()
    }

    /// The pids of `vzmigrate --serve` on a host, as the first host sees them.
    #[must_use]
    pub fn servers(&self) -> Vec<i32> {
        of_command(|words| words.iter().any(|word| word == "--serve") && words[0].ends_with("vzmigrate"))
    }

    /// The pids of ssh clients.
    #[must_use]
    pub fn clients(&self) -> Vec<i32> {
        of_command(|words| words[0].ends_with("/ssh"))
    }

    /// The pids of processes by their command line, as the first host sees them: those of both.
    #[must_use]
    pub fn processes(&self, line: &str) -> Vec<i32> {
        of_command(|words| words.join(" ").contains(line))
    }

    /// Files of the second host that a VE, or a move of one, could leave.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for top in
            ["/vz/private", "/vz/template/base", "/etc/vz/conf", "/etc/vz/names", "/var/lib/vzctl", "/run/vz"]
        {
            let shown =
                run("find", &[self.b.path(top).to_str().unwrap(), "-mindepth", "1", "-maxdepth", "3"]);
            let lines = shown.out().lines().map(str::to_owned).collect::<Vec<_>>();
            let stays = |line: &String| {
                let stay =
                    ["/run/vz/proc", "/run/vz/bpf", "/run/vz/overlays", "/run/vz/beancounters", ".destroyed"];
                let homes = ["/idmap", "/creating", "/veip", "/migrate", "/owned", "/epochs", "/vztmp"];
                stay.iter().any(|part| line.contains(part)) || homes.iter().any(|home| line.ends_with(home))
            };
            found.extend(lines.into_iter().filter(|line| !stays(line)));
        }
        found.sort();
        found
    }
}

fn of_command(wanted: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words.first().is_some_and(|first| !first.is_empty()) && wanted(&words) && alive(*pid)
    })
    .collect()
}

/// Keys, configurations, and a place for the fault points of what is served.
fn make_keys(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for name in ["host", "user"] {
        let path = dir.join(name);
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path.to_str().unwrap()]).ok();
    }
    let host = fs::read_to_string(dir.join("host.pub")).unwrap();
    let known: String = ADDRESSES.iter().map(|address| format!("{address} {host}")).collect();
    fs::write(dir.join("known"), known).unwrap();
    let show = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "Host *\nUser root\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nStrictHostKeyChecking yes\n",
        show("user"),
        show("known")
    );
    fs::write(dir.join("config"), config).unwrap();
}

/// What sshd wants of a host: a user of its own, and that root is not locked.
fn admit(node: &Node) {
    let passwd = node.path("/etc/passwd");
    let text = fs::read_to_string(&passwd).unwrap();
    if !text.lines().any(|line| line.starts_with("sshd:")) {
        fs::write(&passwd, format!("{text}sshd:x:114:65534::/run/sshd:/usr/sbin/nologin\n")).unwrap();
    }
    let shadow = node.path("/etc/shadow");
    let text = fs::read_to_string(&shadow).unwrap();
    fs::write(&shadow, text.replace("root:!", "root:*")).unwrap();
}

/// An sshd of its own; what it starts finds the programs under test.
fn start_sshd(node: &Node, dir: &Path, number: usize, prefix: Vec<String>) -> Child {
    let bin = dir.join(format!("bin-{number}"));
    fs::create_dir_all(&bin).unwrap();
    let fault = dir.join(format!("fault-{number}"));
    let wrapper = format!(
        "#!/bin/sh\nVZ_FAULT=$(cat {0} 2>/dev/null)\nrm -f {0}\nexport VZ_FAULT\nexec {1} \"$@\"\n",
        fault.display(),
        node.program("vzmigrate").display()
    );
    fs::write(bin.join("vzmigrate"), wrapper).unwrap();
    fs::set_permissions(bin.join("vzmigrate"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
         PidFile none\nSetEnv PATH={}:/usr/sbin:/usr/bin:/sbin:/bin\n",
        ADDRESSES[number],
        dir.join("host").display(),
        dir.join("user.pub").display(),
        bin.display()
    );
    let path = dir.join(format!("sshd-{number}"));
    fs::write(&path, config).unwrap();
    let sshd = format!(
        "mkdir -p /run/sshd && exec {SSHD} -D -f {} -E {}",
        path.display(),
        dir.join(format!("log-{number}")).display()
    );
    let words = [prefix, ["/bin/sh", "-c", &sshd].map(str::to_owned).to_vec()].concat();
    let mut command = command(&words[0], &words[1..].iter().map(String::as_str).collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What enters the second host.
pub(crate) fn enter(init: i32) -> Vec<String> {
    let target = format!("--target={init}");
    ["nsenter", &target, "--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--"]
        .map(str::to_owned)
        .to_vec()
}

/// The second host's processes end with this.
struct Second {
    group: String,
    child: Child,
    init: i32,
}

impl Second {
    fn start(a: &Node, test: &str, first: u32) -> Self {
        let dir = a.dir().join("second");
        fs::create_dir_all(&dir).unwrap();
        let mut command = outside::apart(&inside::group_of_second(first));
        command
            // (The kernel names what it runs from where it was mounted outside of this host.)
            .arg(std::env::args_os().next().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
            .env(SECOND, "1")
            .env(outside::NODE, &dir)
            .env(outside::FIRST, first.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let ready = dir.join(READY);
        until("the second host is up", SOON, || ready.exists());
        let unshare = i32::try_from(child.id()).unwrap();
        let init = of_command(|_| true).into_iter().find(|pid| parent(*pid) == Some(unshare));
        Self {
            group: inside::group_of_second(first),
            child,
            init: init.expect("the first process of the second host"),
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        holds(SOON, || !alive(self.init));
        holds(SOON, || {
            ctid::sweep_group(&self.group);
            !ctid::vz_groups().iter().any(|dir| dir.join(&self.group).exists())
        });
    }
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Ends at both hosts, with addresses.
fn cable(second: i32) {
    let netns = second.to_string();
    run("ip", &["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &netns]).ok();
    let enter = enter(second);
    for (number, prefix) in [(0, Vec::new()), (1, enter)] {
        let address = format!("{}/24", ADDRESSES[number]);
        let steps = [
            vec!["address", "add", &address, "dev", "cable"],
            // No address that comes by itself, later.
            vec!["link", "set", "cable", "addrgenmode", "none"],
            vec!["link", "set", "cable", "up"],
        ];
        for words in steps {
            let mut all: Vec<&str> = prefix.iter().map(String::as_str).collect();
            all.push("ip");
            all.extend(words);
            run(all[0], &all[1..]).ok();
        }
    }
    let flags = || fs::read_to_string("/sys/class/net/cable/operstate").unwrap_or_default();
    until("the cable is plugged in", SOON, || flags().trim() == "up");
}

/// The second host: its root and configuration; then it waits for its end.
fn serve() {
    let first = std::env::var(outside::FIRST).unwrap().parse().unwrap();
    let node = Node::new(PathBuf::from(std::env::var_os(outside::NODE).unwrap()), first);
    inside::make_host(&node, "b.test", Some(&inside::group_of_second(first)));
    fs::write(node.dir().join(READY), "").unwrap();
    loop {
        std::thread::park();
    }
}
