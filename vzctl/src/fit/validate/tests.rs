use std::fs;

use proptest::prelude::*;
use vzconf::samples::SHIPPED;
use vzconf::units::UNLIMITED;
use vzconf::{ConfFile, Pair};

use super::super::testing::{Session, limits, node, sample, words};
use super::*;

/// With enough for every shipped sample.
const LARGE: Node = Node { ram: 1 << 21, swap: 1 << 22 };

/// A limit of RAM without one of swap is a fault of a configuration that has all the others.
fn facts_of(text: &str, node: Node) -> Facts {
    Facts { vswap: !text.contains("NUMTCPSOCK") && limits(text).is_vswap(), quota: true, node }
}

/// What is made of a configuration, and what is said.
fn judged(text: &str, mending: Mending, node: Node, typed: &str) -> (Limits, bool, Session) {
    let mut session = Session::typing(typed);
    let (limits, unfit) = session.run(|talk| {
        let mut validation = Validation::new(limits(text), mending, talk);
        validation.limits(&facts_of(text, node)).unwrap();
        (validation.limits, validation.unfit)
    });
    (limits, unfit, session)
}

/// The sample with other values for some of its keys.
fn basic(changes: &[(&str, &str)]) -> String {
    let mut file = ConfFile::parse(sample("basic"));
    for (key, value) in changes {
        file.set(key, value).unwrap();
    }
    file.to_string()
}

#[test]
fn every_shipped_sample_fits() {
    for (name, text) in SHIPPED {
        let (_, unfit, session) = judged(text, Mending::None, LARGE, "");
        assert!(!unfit, "{name}: {}", session.err());
        assert_eq!(session.err(), "", "{name}");
    }
}

#[test]
fn a_configuration_without_any_limit_fits() {
    let text: String = sample("basic")
        .lines()
        .map(|line| match line.split_once('=') {
            Some((key, _)) if key.ends_with("guarpages") || key == "PHYSPAGES" => {
                format!("{key}=0:unlimited\n")
            }
            Some((key, _)) if !key.starts_with("DISK") => format!("{key}=unlimited\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (_, unfit, session) = judged(&text, Mending::None, LARGE, "");
    assert!(!unfit, "{}", session.err());
}

const FAULTY: &[(&str, &str)] = &[
    ("NUMPROC", "240:250"),
    ("VMGUARPAGES", "70000:80000"),
    ("TCPSNDBUF", "60000:59000"),
    ("PHYSPAGES", "5:6"),
    ("NUMFILE", "700"),
    ("DCACHESIZE", "100:200"),
    ("DGRAMRCVBUF", "30000"),
    ("OTHERSOCKBUF", "100000:2097152"),
    ("TCPRCVBUF", "70000:80000"),
    ("KMEMSIZE", "1000:2000"),
    ("DISKSPACE", "3G:2G"),
];

#[test]
fn faults_are_told_in_openvzs_words_and_order() {
    let (_, unfit, session) = judged(&basic(FAULTY), Mending::None, LARGE, "");
    assert!(unfit);
    assert_eq!(session.out(), "");
    assert_eq!(
        session.err(),
        "Error: barrier should be equal to limit for numproc (currently, 240:250)\n\
         Error: limit should be = 9223372036854775807 for vmguarpages (currently, 80000)\n\
         Error: barrier should be <= limit for tcpsndbuf (currently, 60000:59000)\n\
         Error: barrier should be = 0 for physpages (currently, 5)\n\
         Error: limit should be = 9223372036854775807 for physpages (currently, 6)\n\
         Error: barrier should be <= limit for diskspace (currently, 3145728:2097152)\n\
         Warning: dcachesize.lim should be > 268800 (currently, 200)\n\
         Error: kmemsize.bar should be > 7373000 (currently, 1000)\n\
         Warning: privvmpages.bar should be > 70000 (currently, 65536)\n\
         Error: tcpsndbuf.lim-tcpsndbuf.bar should be > 921600 (currently, 59000-60000=-1000)\n\
         Warning: tcprcvbuf.lim-tcprcvbuf.bar should be > 921600 (currently, 80000-70000=10000)\n\
         Warning: tcpsndbuf.bar should be > 65536 (currently, 60000)\n\
         Warning: dgramrcvbuf.bar should be > 32768 (currently, 30000)\n\
         Recommendation: othersockbuf.bar should be > 132096 (currently, 100000)\n\
         Warning: numfile should be > 5760 (currently, 700)\n"
    );
}

#[test]
fn repairs_are_told_and_what_they_break_is_repaired_too() {
    let (mended, unfit, session) = judged(&basic(FAULTY), Mending::All, LARGE, "");
    assert!(!unfit, "{}", session.err());
    assert_eq!(
        session.out(),
        "set to 250:250\nset to 9223372036854775807\nset to 60000:60000\nset to 0\n\
         set to 9223372036854775807\nset to 3145728:3145728\nset to 268800\nset to 7641600:7642600\n\
         set to 70000\nset to 60000:981600\nset to 70000:991600\nset to 65536:987136\n\
         set to 32768:32768\nset to 132096:2129248\nset to 5760:5760\n\
         set to 2211840\nset to 9584640:9585640\nset to 132096:132096\n"
    );
    for (name, pair) in [
        ("numproc", Pair::both(250)),
        ("vmguarpages", Pair { barrier: 70_000, limit: UNLIMITED }),
        ("privvmpages", Pair { barrier: 70_000, limit: 70_000 }),
        ("physpages", Pair { barrier: 0, limit: UNLIMITED }),
        ("dcachesize", Pair { barrier: 100, limit: 2_211_840 }),
        ("kmemsize", Pair { barrier: 9_584_640, limit: 9_585_640 }),
        ("numfile", Pair::both(5760)),
        ("shmpages", Pair::both(21_504)),
    ] {
        assert_eq!(mended.get(name), Some(pair), "{name}");
    }
}

#[test]
fn ram_and_swap_are_checked_against_the_node() {
    let small = Node { ram: 1000, swap: 500 };
    let text = "PHYSPAGES=7:2000\nSWAPPAGES=8:unlimited\n";
    let (_, unfit, session) = judged(text, Mending::None, small, "");
    assert!(unfit);
    assert_eq!(
        session.err(),
        "Error: physpages.bar should be = 0 (currently, 7)\n\
         Warning: physpages.lim should be <= 1000 (currently, 2000)\n\
         Error: swappages.bar should be = 0 (currently, 8)\n\
         Warning: swappages.lim should be <= 500 (currently, 9223372036854775807)\n"
    );
    let (mended, unfit, _) = judged(text, Mending::All, small, "");
    assert!(!unfit);
    assert_eq!(mended.get("physpages"), Some(Pair { barrier: 0, limit: 1000 }));
    assert_eq!(mended.get("swappages"), Some(Pair { barrier: 0, limit: 500 }));
    let (_, unfit, session) = judged("PHYSPAGES=0:7\n", Mending::All, small, "");
    assert!(unfit);
    assert_eq!(session.err(), "Error: parameter swappages not found\n");
}

#[test]
fn a_limit_of_swap_is_no_fault_where_there_is_none() {
    let (_, unfit, session) =
        judged("PHYSPAGES=0:7\nSWAPPAGES=0:7\n", Mending::None, Node { ram: 1000, swap: 0 }, "");
    assert!(!unfit);
    assert_eq!(session.err(), "Recommendation: swappages.lim should be <= 0 (currently, 7)\n");
}

#[test]
fn what_formulas_need_is_missed_before_they_are_looked_at() {
    let (_, unfit, session) = judged("NUMPROC=5:6\nPHYSPAGES=0:unlimited\n", Mending::All, LARGE, "");
    assert!(unfit);
    let told = session.err();
    assert!(
        told.starts_with("Error: parameter numtcpsock not found\nError: parameter numothersock not found\n")
    );
    // 20 of beancounters, 2 of the disk; avnumproc can be left out.
    assert_eq!((told.lines().count(), session.out()), (20, String::new()));
    assert!(!told.contains("numproc ") && !told.contains("physpages"), "{told}");
}

#[test]
fn whoever_is_asked_decides_and_is_not_asked_twice() {
    let text = basic(&[("NUMPROC", "240:250"), ("DGRAMRCVBUF", "40000"), ("NUMFILE", "700")]);
    let (mended, unfit, session) = judged(&text, Mending::Asked, LARGE, "y\nn\n\n");
    assert!(!unfit, "{}", session.err());
    assert_eq!(
        session.err(),
        "Error: barrier should be equal to limit for numproc (currently, 240:250)\n (y/n) [y] \
         Recommendation: dgramrcvbuf.bar should be > 132096 (currently, 40000)\n (y/n) [y] \
         Warning: numfile should be > 5760 (currently, 700)\n (y/n) [y] "
    );
    assert_eq!(session.out(), "set to 250:250\nset to 132096:132096\nset to 5760:5760\n");
    assert_eq!(mended.get("dgramrcvbuf"), Some(Pair::both(40_000)));
    assert_eq!(mended.get("numfile"), Some(Pair::both(5760)));

    let (_, unfit, session) = judged(&text, Mending::Asked, LARGE, "n\n");
    assert!(unfit, "no answer is none");
    assert_eq!(session.err().matches(" (y/n) [y] ").count(), 3);
}

fn pairs() -> impl Strategy<Value = Pair> {
    let value = prop_oneof![Just(UNLIMITED), 0u64..1 << 20, 0u64..1 << 40, 0..=UNLIMITED];
    (value.clone(), value).prop_map(|(barrier, limit)| Pair { barrier, limit })
}

proptest! {
    #[test]
    fn whatever_is_complete_can_be_repaired(
        values in prop::collection::vec(pairs(), 22),
        vswap: bool,
        average: bool,
        ram in 0u64..1 << 30,
    ) {
        let facts = Facts { vswap, quota: true, node: Node { ram, swap: ram / 2 } };
        let mut limits = Limits::default();
        for (name, pair) in rules::needed(&facts).into_iter().zip(&values) {
            limits.set(name, *pair);
        }
        if average {
            limits.set("avnumproc", values[21]);
        }
        let mut session = Session::default();
        let (mended, unfit) = session.run(|talk| {
            let mut validation = Validation::new(limits, Mending::All, talk);
            validation.limits(&facts).unwrap();
            (validation.limits, validation.unfit)
        });
        prop_assert!(!unfit, "{}", session.err());
        let mut again = Session::default();
        let unfit = again.run(|talk| {
            let mut validation = Validation::new(mended, Mending::None, talk);
            validation.limits(&facts).unwrap();
            validation.unfit
        });
        prop_assert!(!unfit, "{}", again.err());
        prop_assert_eq!(again.err(), "");
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(lines in prop::collection::vec("(KMEMSIZE|PHYSPAGES|NUMFILE|CPUUNITS|RATE|X)?=?\"?[0-9a-zA-Z:.]{0,24}\"?", 0..6)) {
        let text = lines.join("\n");
        let (outcome, _, after) = program("-r", &text);
        prop_assert!(outcome.unwrap() == Outcome::Good || after == text);
        let (outcome, _, _) = program("-v no", &format!("{}\n{text}\n", sample("basic")));
        prop_assert!(outcome.is_ok());
    }
}

/// Runs the program on a file of this text; what it is then is returned too.
fn program(options: &str, text: &str) -> (Result<Outcome, Error>, Session, String) {
    let (dir, paths) = node();
    let path = dir.path().join("ve.conf");
    fs::write(&path, text).unwrap();
    let mut session = Session::default();
    let line = format!("{options} {}", path.display());
    let outcome = session.run(|talk| run(&words(&line), &paths, talk));
    (outcome, session, fs::read_to_string(&path).unwrap())
}

#[test]
fn a_file_is_repaired_in_place_and_keeps_what_is_no_limit() {
    let text =
        format!("# mine\nFOO=\"a b\"\n{}#UUID: 7\n", basic(&[("NUMPROC", "240:250"), ("SHMPAGES", "1:2")]));
    let (outcome, session, untouched) = program("", &text);
    assert_eq!(outcome.unwrap(), Outcome::Unfit);
    assert_eq!(untouched, text);
    assert!(!session.err().contains("success"));

    let (outcome, session, repaired) = program("-r", &text);
    assert_eq!(outcome.unwrap(), Outcome::Good);
    assert!(session.err().ends_with("\nValidation completed: success\n"), "{}", session.err());
    let want =
        text.replace("NUMPROC=\"240:250\"", "NUMPROC=\"250\"").replace("SHMPAGES=\"1:2\"", "SHMPAGES=\"2\"");
    assert_eq!(repaired, want);
    let (outcome, session, same) = program("-r", &repaired);
    assert_eq!(
        (outcome.unwrap(), session.err().as_str()),
        (Outcome::Good, "Validation completed: success\n")
    );
    assert_eq!(same, repaired);
}

#[test]
fn a_file_that_cannot_be_repaired_stays_as_it_is() {
    let text = basic(&[("NUMPROC", "240:250"), ("LOCKEDPAGES", "many"), ("ONBOOT", "maybe")]) + "junk\n";
    let (outcome, session, file) = program("-r", &text);
    assert_eq!(outcome.unwrap(), Outcome::Unfit);
    assert_eq!(file, text);
    let told = session.err();
    for line in [
        "ve.conf:39: not a KEY=value line, ignored\n",
        "Error: invalid value for LOCKEDPAGES: many (expected BARRIER[:LIMIT], pages from 0",
        "WARNING: invalid value for ONBOOT: maybe (expected yes or no)\n",
        "Error: parameter lockedpages not found\n",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }

    let text = "PHYSPAGES=5:unlimited\nSWAPPAGES=0:0\nNUMPROC=x\n";
    let (outcome, session, file) = program("-r -v yes", text);
    assert_eq!((outcome.unwrap(), file.as_str()), (Outcome::Unfit, text));
    assert!(
        session.err().ends_with("ve.conf is left as it was: not everything is mended\n"),
        "{}",
        session.err()
    );
}

#[test]
fn the_form_can_be_forced() {
    let (outcome, _, _) = program("-v no", sample("basic"));
    assert_eq!(outcome.unwrap(), Outcome::Good);
    for (options, text) in [("-v yes", sample("basic")), ("-v no", sample("vswap-256m"))] {
        let (outcome, session, _) = program(options, text);
        assert_eq!(outcome.unwrap(), Outcome::Unfit);
        assert!(session.err().contains(" not found\n"), "{}", session.err());
    }
}

#[test]
fn disk_limits_count_where_they_are_kept() {
    let text = basic(&[("DISKSPACE", "3G:2G")]);
    assert_eq!(program("", &text).0.unwrap(), Outcome::Unfit);
    assert_eq!(program("", &format!("{text}DISK_QUOTA=no\n")).0.unwrap(), Outcome::Good);
}

#[test]
fn command_lines_and_files_that_are_wrong() {
    let (_dir, paths) = node();
    for (line, named) in [
        ("", "no configuration file"),
        ("a b", "unexpected argument: b"),
        ("-v maybe a", "Invalid argument for -v: maybe"),
        ("-x a", "-x"),
        ("/nonexistent/101.conf", "Container configuration file /nonexistent/101.conf not found"),
        ("/dev/null", "/dev/null is not a file"),
    ] {
        let mut session = Session::default();
        let error = session.run(|talk| run(&words(line), &paths, talk)).unwrap_err();
        assert!(error.to_string().contains(named), "{line}: {error}");
    }
    let mut session = Session::default();
    session.run(|talk| run(&words("--help"), &paths, talk)).unwrap();
    assert!(session.out().starts_with("Usage: vzcfgvalidate "));
    fs::remove_file(paths.vz_conf()).unwrap();
    let sample = paths.sample("basic");
    session.run(|talk| run(&[sample.display().to_string()], &paths, talk)).unwrap();
    assert!(session.err().starts_with("WARNING: Global configuration file "), "{}", session.err());
}
