//! `vzlist` from end to end, over a directory tree of the test's own. The running VE's init is the
//! test itself. Needs no root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vzconf::Paths;
use vzctl::list::{Caller, Output, run};

struct Node {
    dir: TempDir,
    paths: Paths,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        for made in
            [paths.conf_dir(), paths.names_dir(), paths.run_root().to_owned(), paths.vz().join("dump")]
        {
            fs::create_dir_all(made).unwrap();
        }
        let root = dir.path().display();
        fs::write(
            paths.vz_conf(),
            format!(
                "VE_PRIVATE={root}/vz/private/$VEID\nVE_ROOT={root}/vz/root/$VEID\nDUMPDIR={root}/vz/dump\n\
                 NETFILTER=full\n"
            ),
        )
        .unwrap();
        Self { dir, paths }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A VE with this config, and a private area.
    fn ve(&self, ctid: u32, config: &str) -> &Self {
        fs::write(self.paths.conf_dir().join(format!("{ctid}.conf")), config).unwrap();
        fs::create_dir_all(self.root().join(format!("vz/private/{ctid}"))).unwrap();
        fs::create_dir_all(self.root().join(format!("vz/root/{ctid}"))).unwrap();
        self
    }

    fn name(&self, name: &str, ctid: u32) -> &Self {
        symlink(self.paths.conf_dir().join(format!("{ctid}.conf")), self.paths.names_dir().join(name))
            .unwrap();
        self
    }

    /// Says that the VE's init is `pid`, started at `start_time` (none: when it really was).
    fn init(&self, ctid: u32, pid: u32, start_time: Option<u64>) -> &Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let real = || stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let start_time = start_time.unwrap_or_else(real);
        let dir = self.paths.run_root().join(ctid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let state = format!(
            r#"{{"version":1,"ctid":{ctid},"init":{{"pid":{pid},"start_time":{start_time}}},"started_at":1.5,"new":[]}}"#
        );
        fs::write(dir.join("state.json"), state).unwrap();
        self
    }

    fn run_it(&self, ctid: u32) -> &Self {
        self.init(ctid, std::process::id(), None)
    }

    fn list(&self, line: &str) -> Output {
        run(line.split_whitespace().map(str::to_owned), Caller::Root, &self.paths)
    }

    fn shown(&self, line: &str) -> String {
        let output = self.list(line);
        assert_eq!((output.err.as_str(), output.exit), ("", 0), "{line}");
        output.out
    }
}

#[test]
fn a_node_is_listed_as_it_is() {
    let node = Node::new();
    node.ve(
        101,
        "HOSTNAME=\"web.example.com\"\nNAME=\"web\"\nIP_ADDRESS=\"192.0.2.1/24 2001:db8::1\"\nBOOTORDER=1\n",
    )
    .ve(102, "HOSTNAME=\"db.example.com\"\nNAME=\"stolen\"\nIP_ADDRESS=\"192.0.2.2/24\"\nONBOOT=\"yes\"\n")
    .ve(103, "")
    .ve(104, "")
    .name("web", 101)
    .name("stolen", 101)
    .run_it(101);
    fs::write(node.root().join("vz/dump/Dump.103"), "").unwrap();
    fs::remove_dir(node.root().join("vz/private/104")).unwrap();

    assert_eq!(node.shown("-1"), "       101\n");
    assert_eq!(
        node.shown("-aH -octid,status,ip,name"),
        "       101 running   192.0.2.1       web\n       102 stopped   192.0.2.2/24    -\n       103 suspended -               -\n"
    );
    assert_eq!(node.shown("-S1"), "       102\n       103\n");
    assert_eq!(node.shown("-H -o ip 101"), "192.0.2.1 2001:db8::1\n");
    assert_eq!(node.shown("-H -o hostname web 102"), "web.example.com\ndb.example.com\n");
    assert_eq!(node.shown("-a -1 -s -bootorder"), "       101\n       102\n       103\n");
    assert_eq!(node.shown("-a -H -o netfilter,layout 102"), "-         simfs\n");
    assert_eq!(node.list("104").err, "Container(s) not found\n");
    assert_eq!(node.list("104").exit, 1);
    assert_eq!(node.list("stolen").exit, 1, "the config of 101 does not say so");
}

#[test]
fn limits_come_from_the_config_and_unset_ones_of_a_running_ve_are_none() {
    let node = Node::new();
    let config = "NUMPROC=\"40:50\"\nPHYSPAGES=\"0:65536\"\nSWAPPAGES=\"0:1G\"\n";
    node.ve(101, config).ve(102, config).run_it(101);
    assert_eq!(
        node.shown("-aHo numproc,numproc.b,numproc.l,swappages.l,numfile.l,vswap"),
        "         -         40         50     262144 9223372036854775807   yes\n\
         \x20        -         40         50     262144          0   yes\n"
    );
    let json: serde_json::Value = serde_json::from_str(&node.shown("-j -o numproc")).unwrap();
    assert_eq!(json[0]["numproc"]["limit"], 50);
}

#[test]
fn live_addresses_come_from_the_record_of_the_last_verb() {
    let node = Node::new();
    node.ve(101, "IP_ADDRESS=\"192.0.2.1/24\"\n").run_it(101);
    let record = node.root().join("var/lib/vzctl/veip/101");
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, "192.0.2.7 192.0.2.8\n").unwrap();
    assert_eq!(node.shown("-Hoip"), "192.0.2.7 192.0.2.8\n");
    fs::write(&record, "").unwrap();
    assert_eq!(node.shown("-Hoip"), "-\n");
}

#[test]
fn a_stale_state_file_is_not_a_running_ve() {
    let node = Node::new();
    node.ve(101, "").init(101, std::process::id(), Some(1));
    node.ve(102, "").init(102, u32::MAX, Some(1));
    node.ve(103, "").run_it(103);
    fs::write(node.paths.run_root().join("103/state.json"), "{\"init\":").unwrap();
    fs::create_dir_all(node.paths.run_root().join("lock")).unwrap();
    assert_eq!(node.list("").err, "Container(s) not found\n");
    assert_eq!(node.list("").exit, 0);
    assert_eq!(node.shown("-aHostatus"), "stopped\nstopped\nstopped\n");
}

#[test]
fn one_that_runs_is_listed_without_a_config() {
    let node = Node::new();
    node.run_it(101);
    assert_eq!(node.shown("-Hoctid,status,hostname"), "       101 running   -\n");
    assert_eq!(node.shown("-a -1"), "       101\n");
    assert_eq!(node.shown("-1 101"), "       101\n");
}

#[test]
fn a_mounted_root_beats_a_dump() {
    let node = Node::new();
    node.ve(101, &format!("VE_ROOT=\"{}/vz/private/$VEID\"\n", node.root().display()));
    fs::write(node.root().join("vz/dump/Dump.101"), "").unwrap();
    assert_eq!(node.shown("-aHostatus"), "mounted\n");
    // and is not looked for when nobody asks
    assert_eq!(node.shown("-a1"), "       101\n");
    assert_eq!(node.shown("-aHoctid -s status"), "       101\n");
}

#[test]
fn odd_configs_are_complained_of_and_the_rest_is_listed() {
    let node = Node::new();
    node.ve(101, "what is this\nDESCRIPTION=\"one\"\nBOOTORDER=\"soon\"\nDESCRIPTION=\"two\"\n");
    node.ve(102, "DESCRIPTION=\"caf\u{e9}\"");
    node.ve(103, "");
    let config = node.paths.conf_dir().join("103.conf");
    fs::remove_file(&config).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &config,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::create_dir(node.paths.conf_dir().join("104.conf")).unwrap();
    fs::create_dir_all(node.root().join("vz/private/104")).unwrap();
    symlink("nowhere", node.paths.conf_dir().join("105.conf")).unwrap();
    for other in
        ["0.conf", "0101.conf", "9999999999.conf", "101.conf.destroyed", "ve-x.conf-sample", "x.conf"]
    {
        fs::write(node.paths.conf_dir().join(other), "HOSTNAME=\"no\"\n").unwrap();
    }

    let output = node.list("-aHoctid,bootorder,description");
    assert_eq!(
        output.out,
        "       101          - one\n       102          - caf\u{e9}\n       103          - -\n       104          - -\n"
    );
    assert_eq!(output.exit, 0);
    for part in
        ["101.conf:1: ", "duplicate for DESCRIPTION", "103.conf: not a regular", "104.conf: not a regular"]
    {
        assert!(output.err.contains(part), "{part}: {}", output.err);
    }
    assert!(output.err.lines().all(|line| line.starts_with("Warning: ")), "{}", output.err);
}

#[test]
fn without_vz_conf_it_says_so() {
    let node = Node::new();
    node.ve(101, "").run_it(101);
    fs::remove_file(node.paths.vz_conf()).unwrap();
    let output = node.list("-a");
    assert_eq!((output.out.as_str(), output.exit), ("", 1));
    assert!(output.err.contains("vz.conf"), "{}", output.err);
    assert_eq!(node.shown("-1"), "       101\n", "which needs no config");
}

#[test]
fn only_root_may_look_but_anybody_may_read_the_help() {
    let node = Node::new();
    let as_user = |line: &str| run(line.split_whitespace().map(str::to_owned), Caller::User, &node.paths);
    let refused = as_user("-a");
    assert_eq!((refused.err.as_str(), refused.exit), ("This program can only be run under root.\n", 1));
    assert!(as_user("-L").out.starts_with("ctid            CTID           \nveid "));
    assert_eq!((as_user("-L").exit, as_user("--help").exit), (0, 1));
    assert_eq!(as_user("-o x").err, "Unknown field: x\n");
}

#[test]
fn uptime_is_that_of_init() {
    let node = Node::new();
    node.ve(101, "").run_it(101);
    let json: serde_json::Value = serde_json::from_str(&node.shown("-j")).unwrap();
    let uptime = json[0]["uptime"].as_f64().unwrap();
    assert!(uptime < 3600.0, "{uptime}");
    assert!(node.shown("-Houptime").starts_with("000d00h:"));
}

#[test]
fn two_hundred_are_listed_in_no_time() {
    let node = Node::new();
    for ctid in 101..301 {
        node.ve(ctid, &format!("HOSTNAME=\"ct{ctid}\"\nIP_ADDRESS=\"192.0.2.1\"\nPHYSPAGES=\"0:65536\"\n"));
        if ctid % 2 == 0 {
            node.run_it(ctid);
        }
    }
    let fastest = (0..5).map(|_| {
        let before = Instant::now();
        assert_eq!(node.shown("-a").lines().count(), 201);
        before.elapsed()
    });
    let fastest = fastest.min().unwrap();
    eprintln!("vzlist -a of 200: {fastest:?}");
    // A release build takes a few milliseconds; this is a debug build on a busy machine.
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
}
