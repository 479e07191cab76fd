//! Values of resources that are no good: each is refused with 21 and with what is allowed, and nothing changes.
#![allow(clippy::unwrap_used)]

use vzconf::params::{Kind, PARAMS, Verb};
use vzconf::units::UNLIMITED;
use vztests::{Ve, on_node};

const TOO_LARGE: &str = "99999999999999999999999";

/// What an option that takes such values must refuse, and a word of the range that it then tells.
fn bad(kind: Kind) -> Option<(Vec<String>, String)> {
    let most = UNLIMITED.to_string();
    let (values, range): (&[&str], String) = match kind {
        Kind::Ubc(vzconf::Unit::Items) => (&["10:5", "1K", "1:2:3", TOO_LARGE, "unlimited:5"], most),
        Kind::Ubc(_) => (&["10:5", "1Q", "5.5", "1:2:3", "1M:1K", TOO_LARGE], most),
        Kind::Disk(_) => (&["10:5", "1Q", "1:2:3", "unlimited", TOO_LARGE], (UNLIMITED - 1).to_string()),
        Kind::Ram => (&["1Q", "1:2", TOO_LARGE], most),
        Kind::Float { max } => (&["nan", "inf", "1e400", "1000.5", TOO_LARGE], max.to_string()),
        Kind::Uint { min, max } => {
            let mut values = vec![TOO_LARGE.to_owned(), "1.5".to_owned()];
            values.extend(min.checked_sub(1).map(|less| less.to_string()));
            values.extend(max.checked_add(1).map(|more| more.to_string()));
            return Some((usual(values), format!("from {min} to {max}")));
        }
        Kind::CpuLimit => (&["101%", "6553601", "0.5", TOO_LARGE], "6553600".to_owned()),
        Kind::CpuMask => (&["5-2", "0-4096", "4096", "0,"], "4095".to_owned()),
        Kind::NodeMask => (&["5-2", "0-4096", "auto"], "4095".to_owned()),
        Kind::MemInfo => (&["pages", "pages:0", "privvmpages:0", "pages:-1", "none:1"], most),
        Kind::IoLimit => (&["1Q", "1T"], "2147483647B".to_owned()),
        Kind::IopsLimit => (&["1K", "1.5", "4294967296"], "4294967295".to_owned()),
        _ => return None,
    };
    Some((usual(values.iter().map(|value| (*value).to_owned()).collect()), range))
}

/// And what none of them takes.
fn usual(mut values: Vec<String>) -> Vec<String> {
    values.extend(["", "-1", "abc", "1 2"].map(str::to_owned));
    values
}

fn refuse_all(ve: &Ve<'_>) {
    let mut options = 0;
    for param in PARAMS.iter().filter(|param| param.is_for(Verb::Set)) {
        let Some((values, range)) = bad(param.kind) else { continue };
        // A number without an end has no range to tell.
        if matches!(param.kind, Kind::Uint { max: u64::MAX, .. }) {
            continue;
        }
        options += 1;
        let option = format!("--{}", param.option);
        let company: &[&str] = if param.option == "nodemask" { &["--cpumask", "all"] } else { &[] };
        for value in values {
            let words = [&[option.as_str(), &value, "--onboot", "yes", "--save"], company].concat();
            let run = ve.run("set", &words).exits(21);
            assert!(run.stderr.contains(&format!("Bad parameter for {option}: {value}")), "{run}");
            assert!(run.stderr.contains(&range), "the range, {range}, in {run}");
        }
    }
    assert!(options > 30, "{options} options of resources");
}

#[test]
fn each_is_refused_with_its_range_and_nothing_changes() {
    on_node(|node| {
        let ve = node.tiny(1);
        let before = ve.conf();
        refuse_all(&ve);
        assert_eq!(ve.conf(), before);
    });
}

/// What the host does not have is known when the VE runs; before, it is told at the next start.
#[test]
fn cpus_and_nodes_that_are_not_there() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let before = ve.conf();
        let have = |kind: &str| {
            let text = std::fs::read_to_string(format!("/sys/devices/system/{kind}/online")).unwrap();
            text.trim().to_owned()
        };
        ve.run("set", &["--cpumask", "4000", "--onboot", "yes", "--save"])
            .exits(21)
            .says("bad CPUMASK \"4000\"")
            .says("this host has");
        ve.run("set", &["--cpumask", "all", "--nodemask", "4000", "--save"])
            .exits(21)
            .says(&format!("bad NODEMASK \"4000\": this host has {}", have("node")));
        assert_eq!(ve.conf(), before);
        ve.ok("set", &["--cpumask", "all", "--nodemask", "0", "--save"]).says("Setting NUMA node mask: 0");
        ve.ok("set", &["--cpumask", "auto", "--nodemask", "0", "--save"]).says("Setting CPU mask: auto");
        ve.ok("set", &["--cpumask", "0", "--save"]).says("Setting CPU mask: 0");
        assert_eq!(ve.sh("nproc"), "1");
        ve.ok("stop", &["--fast"]);
        ve.ok("set", &["--cpumask", "4000", "--save"]);
        ve.run("start", &[]).exits(21).says("bad CPUMASK \"4000\"");
        ve.is("exist unmounted down");
        ve.ok("set", &["--cpumask", "all", "--nodemask", "all", "--save"]);
        ve.start();
    });
}
