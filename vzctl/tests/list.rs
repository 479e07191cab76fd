//! Golden tests of `vzlist`, one for each public program known to read its output: its own command
//! lines, and what they must get, in `tests/list/<program>.txt`. No root, no VE: rows made by hand.
//!
//! `VZLIST_BLESS=1` writes the files anew; read the difference before committing it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;

use vzconf::Ctid;
use vzctl::list::{self, Counter, Disk, Request, Resource, Row, Status, Switch};

fn ctid(id: u32) -> Ctid {
    Ctid::new(id).unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn switches(list: &[(&str, bool)]) -> Vec<Switch> {
    list.iter().map(|(name, on)| Switch { name: (*name).to_owned(), on: *on }).collect()
}

fn set(row: &mut Row, resource: Resource, [held, maxheld, barrier, limit, failcnt]: [u64; 5]) {
    let live = |count| (row.status == Status::Running).then_some(count);
    let (held, maxheld, failcnt) = (live(held), live(maxheld), live(failcnt));
    *row.counter_mut(resource) = Counter { held, maxheld, barrier, limit, failcnt };
}

/// A running VE with everything set.
fn rich() -> Row {
    const UNLIMITED: u64 = i64::MAX as u64;
    let mut row = Row {
        status: Status::Running,
        private: some("/vz/private/101"),
        root: some("/vz/root/101"),
        mount_opts: some("noatime"),
        origin_sample: some("vswap-256m"),
        hostname: some("ct101.example.com"),
        name: some("web-frontend-1"),
        description: some("web,front"),
        ostemplate: some("debian-12-x86_64-minimal"),
        ip: words("10.0.0.1 2001:db8::101"),
        nameserver: words("192.0.2.53 192.0.2.54"),
        searchdomain: words("example.com example.org"),
        diskspace: Some(Disk { usage: 654_321, soft: 2_097_152, hard: 2_306_867 }),
        diskinodes: Some(Disk { usage: 0, soft: 131_072, hard: 144_179 }),
        laverage: Some([1.0, 0.5, 0.25]),
        uptime: Some(183_845.5),
        cpulimit: Some(200),
        cpuunits: Some(1000),
        cpus: Some(2),
        ioprio: Some(4),
        iolimit: Some(10_485_760),
        iopslimit: Some(500),
        onboot: Some(true),
        bootorder: Some(10),
        layout: some("overlay"),
        features: switches(&[("nfs", true), ("ipip", false)]),
        disabled: false,
        vm_overcommit: Some(1.5),
        netfilter: some("stateless"),
        capability: switches(&[("net_admin", true), ("sys_time", false)]),
        ..Row::new(ctid(101))
    };
    set(&mut row, Resource::Numproc, [19, 43, 240, 240, 0]);
    set(&mut row, Resource::Kmemsize, [3_456_789, 4_000_000, 14_372_700, 14_790_164, 2]);
    set(&mut row, Resource::Physpages, [12_345, 23_456, 0, 65_536, 7]);
    set(&mut row, Resource::Swappages, [0, 10, 0, 131_072, 0]);
    set(&mut row, Resource::Privvmpages, [20_000, 30_000, 65_536, 69_632, 0]);
    set(&mut row, Resource::Vmguarpages, [0, 0, 33_792, UNLIMITED, 0]);
    row
}

/// The host of the tests.
fn node() -> Vec<Row> {
    let mut stopped = Row {
        private: some("/vz/private/102"),
        root: some("/vz/root/102"),
        hostname: some("a-host-name-that-is-longer-than-its-column.example.com"),
        ip: words("10.0.0.2/24 10.0.0.3/24"),
        nameserver: words("inherit"),
        ostemplate: some("centos-6-x86"),
        onboot: Some(false),
        layout: some("simfs"),
        disabled: true,
        cpuunits: Some(500),
        cpulimit: Some(0),
        diskspace: Some(Disk { usage: 0, soft: 1_048_576, hard: 1_153_434 }),
        ..Row::new(ctid(102))
    };
    set(&mut stopped, Resource::Numproc, [0, 0, 40, 40, 0]);
    set(&mut stopped, Resource::Privvmpages, [0, 0, 7680, 8448, 0]);
    let suspended = Row {
        status: Status::Suspended,
        private: some("/vz/private/103"),
        root: some("/vz/root/103"),
        name: some("db"),
        hostname: some("db.example.com"),
        description: some("the \"old\" C:\\ one\twith a tab"),
        layout: some("ploop"),
        bootorder: Some(0),
        ..Row::new(ctid(103))
    };
    let mounted = Row {
        status: Status::Mounted,
        private: some("/vz/private/104"),
        root: some("/vz/root/104"),
        layout: some("simfs"),
        bootorder: Some(10),
        ..Row::new(ctid(104))
    };
    let mut bare = Row { status: Status::Running, ..Row::new(ctid(2_147_483_644)) };
    set(&mut bare, Resource::Numproc, [0; 5]);
    vec![bare, mounted, suspended, stopped, rich()]
}

/// Runs one command line over the host of the tests.
fn vzlist(line: &str) -> list::Output {
    let args = line.split_whitespace().map(|word| word.trim_matches('\'').to_owned());
    let options = match list::parse(args) {
        Ok(Request::List(options)) => options,
        // These need no rows, so the real thing can be run.
        other => {
            assert!(other.is_err() || !matches!(other, Ok(Request::List(_))));
            let args = line.split_whitespace().map(str::to_owned);
            return list::run(args, list::Caller::User, &vzconf::Paths::under("/nowhere".as_ref()));
        }
    };
    let by_name =
        |name: &str| node().iter().find(|row| row.name.as_deref() == Some(name)).map(|row| row.ctid);
    match list::resolve(&options.named, by_name) {
        Ok(ids) => list::report(node(), &options, &ids),
        Err(refusal) => refusal,
    }
}

/// One command and what it gives, as a transcript.
fn transcript(line: &str) -> String {
    let output = vzlist(line);
    let mut text = format!("{}\n{}", format!("$ vzlist {line}").trim_end(), output.out);
    for error in output.err.lines() {
        text.push_str(&format!("stderr: {error}\n"));
    }
    if output.exit != 0 {
        text.push_str(&format!("exit: {}\n", output.exit));
    }
    text
}

fn golden(program: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/list/{program}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> =
        expected.lines().filter_map(|line| line.strip_prefix("$ vzlist")).map(str::trim).collect();
    assert!(!lines.is_empty(), "{} has no command", path.display());
    let actual: Vec<_> = lines.iter().map(|line| transcript(line)).collect();
    if std::env::var_os("VZLIST_BLESS").is_some() {
        std::fs::write(&path, actual.concat()).unwrap();
        return;
    }
    let mut rest = expected.as_str();
    for actual in actual {
        let length = rest[1..].find("\n$ vzlist").map_or(rest.len(), |at| at + 2);
        let (expected, later) = rest.split_at(length);
        assert!(actual == expected, "{}\nexpected:\n{expected}\nactual:\n{actual}", path.display());
        rest = later;
    }
}

macro_rules! golden {
    ($($program:ident)*) => { $( #[test] fn $program() { golden(stringify!($program)); } )* };
}

golden! {
    libvirt
    ansible_inventory
    pyinfra
    ansible_openvz_module
    vagrant_openvz
    ploy_openvz
    ruby_openvz
    collectd
    munin_openvz
    munin_load_avg
    zabbix
    zenoss
    cloudstats
    openvz_web_panel
    myadmin
    vpsadmind
    nova
    ifupdown
    bash_completion
    vz_service
    people
    errors
    every_field
}

/// What the C code of libvirt does with `vzlist -a -ovpsid,status -H`: strtol, one blank, and
/// the rest of the line compared with `stopped`.
#[test]
fn libvirt_tells_stopped_from_the_rest() {
    let output = vzlist("-a -ovpsid,status -H");
    let read = output.out.lines().map(|line| {
        let line = line.trim_start();
        let (id, rest) = line.split_at(line.find(|c: char| !c.is_ascii_digit()).unwrap());
        (id.parse::<i64>().unwrap(), rest.strip_prefix(' ').unwrap() == "stopped")
    });
    assert_eq!(
        read.collect::<Vec<_>>(),
        [(101, false), (102, true), (103, false), (104, false), (2_147_483_644, false)]
    );
}

/// The inventories all feed `vzlist -j` to a strict parser.
#[test]
fn json_is_valid_and_typed_whatever_the_values_are() {
    let output = vzlist("-a -j");
    let parsed: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    let all = parsed.as_array().unwrap();
    assert_eq!(all.len(), 5);
    let keys = all[0].as_object().unwrap().len();
    assert_eq!(keys, list::field_table().iter().filter(|field| !field.name.contains('.')).count());
    assert!(
        all.iter().all(|ve| ve["ctid"] == ve["veid"] && ve["ctid"] == ve["vpsid"] && ve["ctid"].is_u64())
    );
    assert_eq!(all[0]["ip"], serde_json::json!(["10.0.0.1", "2001:db8::101"]));
    assert_eq!(all[4]["ip"], serde_json::json!([]));
    assert_eq!(all[0]["physpages"]["limit"], 65_536);
    assert_eq!(all[0]["vmguarpages"]["limit"], i64::MAX);
    assert_eq!(all[1]["numproc"]["held"], 0);
    assert_eq!(all[2]["description"], "the \"old\" C:\\ one\twith a tab");
    assert_eq!(all[0]["features"], serde_json::json!({"nfs": true, "ipip": false}));
    assert_eq!(all[0]["laverage"], serde_json::json!([1.0, 0.5, 0.25]));
    assert_eq!(all[1]["laverage"], serde_json::Value::Null);
    assert_eq!((&all[0]["smart_name"], &all[1]["smart_name"]), (&"web-frontend-1".into(), &102.into()));
}

/// The watchdog of OpenVZ Web Panel wants `^\s+\d+`, collectd and the completion plain ids: only
/// ids of ten digits have no blank before them.
#[test]
fn ids_are_right_aligned_to_ten() {
    for line in vzlist("-a -1").out.lines() {
        assert_eq!(line.len(), 10, "{line:?}");
        assert_eq!(line.trim_start().parse::<u32>().unwrap().to_string(), line.trim_start());
    }
}

#[test]
fn no_line_ends_in_a_blank() {
    for field in list::field_table() {
        for form in ["-a -o", "-a -t -o", "-a -H -o"] {
            let output = vzlist(&format!("{form} {}", field.name));
            assert!(output.out.lines().all(|line| line == line.trim_end()), "{form} {}", field.name);
        }
    }
}

#[test]
fn inner_columns_stay_in_line_while_values_are_cut() {
    for field in list::field_table().iter().filter(|field| !["laverage", "layout"].contains(&field.name)) {
        let output = vzlist(&format!("-a -o {},status", field.name));
        let status: Vec<_> = output.out.lines().map(|line| line.chars().nth(field.width + 1)).collect();
        let expected = ["S", "r", "s", "s", "m", "r"].map(|word| word.chars().next());
        // Unpadded by the reference, or wider than its column: the reference shifts them too.
        if !["capability", "netfilter", "iolimit", "vmguarpages.l"].contains(&field.name)
            || status == expected
        {
            assert_eq!(status, expected, "{}:\n{}", field.name, output.out);
        }
    }
}
