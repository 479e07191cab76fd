use std::fs;

use proptest::prelude::*;
use vzconf::samples::SHIPPED;

use super::super::limits::Limits;
use super::super::testing::{Session, limits, node, sample, words};
use super::*;

fn view(text: &str) -> Config {
    let (_dir, paths) = node();
    Config::without_node(&paths).with_sample(Path::new("x"), ConfFile::parse(text))
}

fn scaled(text: &str, options: &str) -> Scaled {
    let (_dir, paths) = node();
    let words = GRAMMAR.read(&words(&format!("{options} file"))).unwrap().unwrap();
    let request = Request::read(&words, &paths).unwrap();
    plan::scale(&view(text), &request.factors).unwrap()
}

const TEXT: &str = "# kept\nKMEMSIZE=\"1001:2M\" # roomy\nPHYSPAGES=\"0:1G\"\nSWAPPAGES=0:unlimited\nNUMPROC=1\n\
                    DISKSPACE=\"1G:1.1G\"\nDISKINODES=7:9\nCPUUNITS=1000\nCPULIMIT=0\nCPUS=2\n\
                    RATE=\"eth0:1:100 eth1:2:7 odd\"\nIP_ADDRESS=10.0.0.1\nNAME=web\nFOO=\"$bar\"\nPRIVVMPAGES=5:2147483647\n";

#[test]
fn only_what_is_asked_for_is_scaled() {
    for (options, changes) in [
        (
            "-u 1.5",
            vec![
                ("KMEMSIZE=\"1001:2M\" # roomy", "KMEMSIZE=\"1501:3145728\""),
                ("PHYSPAGES=\"0:1G\"", "PHYSPAGES=\"0:393216\""),
                ("PRIVVMPAGES=5:2147483647", "PRIVVMPAGES=\"7:unlimited\""),
            ],
        ),
        ("-c 2", vec![("CPUUNITS=1000", "CPUUNITS=\"2000\"")]),
        ("-c 0.000001", vec![("CPUUNITS=1000", "CPUUNITS=\"8\"")]),
        ("-c 900000", vec![("CPUUNITS=1000", "CPUUNITS=\"500000\"")]),
        (
            "-d 0.5",
            vec![
                ("DISKSPACE=\"1G:1.1G\"", "DISKSPACE=\"524288:576716\""),
                ("DISKINODES=7:9", "DISKINODES=\"3:4\""),
            ],
        ),
        ("-n 3", vec![("RATE=\"eth0:1:100 eth1:2:7 odd\"", "RATE=\"eth0:1:300 eth1:2:21 odd\"")]),
        (
            "-a 2 -u 1 -c 3 --disk-only=1",
            vec![
                ("CPUUNITS=1000", "CPUUNITS=\"3000\""),
                ("RATE=\"eth0:1:100 eth1:2:7 odd\"", "RATE=\"eth0:1:200 eth1:2:14 odd\""),
            ],
        ),
        (
            "-u 0.001",
            vec![
                ("KMEMSIZE=\"1001:2M\" # roomy", "KMEMSIZE=\"1:2097\""),
                ("PHYSPAGES=\"0:1G\"", "PHYSPAGES=\"0:262\""),
                ("PRIVVMPAGES=5:2147483647", "PRIVVMPAGES=\"1:unlimited\""),
            ],
        ),
    ] {
        let want = changes.iter().fold(TEXT.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let scaled = scaled(TEXT, options);
        assert_eq!(scaled.file.to_string(), want, "{options}");
        let doubts = usize::from(options.starts_with("-n") || options.starts_with("-a"));
        assert_eq!(scaled.doubts.len(), doubts, "{options}: {:?}", scaled.doubts);
        // A running container is told the same.
        Changes::from_options(Verb::Set, &scaled.options).unwrap();
    }
    let options = scaled(TEXT, "-a 2").options;
    assert!(options.contains(&("kmemsize", "2002:4194304".to_owned())), "{options:?}");
    assert!(options.contains(&("cpuunits", "2000".to_owned())), "{options:?}");
    assert_eq!(options.len(), 7, "{options:?}");
}

#[test]
fn what_belongs_to_one_container_is_left_out() {
    let mut file = ConfFile::parse(TEXT);
    plan::strip(&mut file);
    assert_eq!(file.to_string(), TEXT.replace("IP_ADDRESS=10.0.0.1\nNAME=web\n", ""));
}

#[test]
fn a_value_that_is_none_is_refused() {
    for (text, named) in [
        ("KMEMSIZE=big\n", "--kmemsize: big (expected BARRIER[:LIMIT], bytes from 0"),
        ("CPUUNITS=5\n", "--cpuunits: 5 (expected a number from 8 to 500000)"),
        ("DISKSPACE=1:unlimited\n", "--diskspace: 1:unlimited"),
    ] {
        let error = plan::scale(&view(text), &Factors::default()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}

proptest! {
    #[test]
    fn there_and_back_is_where_it_was_but_for_the_rounding(
        number in 0..SHIPPED.len(),
        hundredths in 1u64..10_000,
    ) {
        let text = SHIPPED[number].1;
        let back = 100.0 / hundredths as f64;
        let there = scaled(text, &format!("-a {}.{:02}", hundredths / 100, hundredths % 100));
        let again = scaled(&there.file.to_string(), &format!("-a {back:.9}"));
        let (before, after) = (limits(text), limits(&again.file.to_string()));
        for (name, pair) in before.iter() {
            let came = after.get(name).unwrap();
            for (was, is) in [(pair.barrier, came.barrier), (pair.limit, came.limit)] {
                // Less than one of the smaller unit, and what 1/k lacks after nine digits.
                let lost = back + 1.0 + was as f64 * hundredths as f64 / 100.0 * 1e-9;
                prop_assert!(was.abs_diff(is) as f64 <= lost, "{} {} {} ({})", name, was, is, lost);
            }
        }
        let kept = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        prop_assert_eq!(kept(text), kept(&again.file.to_string()));
    }
}

proptest! {
    #[test]
    fn any_text_is_scaled_or_refused(
        lines in prop::collection::vec("(KMEMSIZE|DISKSPACE|CPULIMIT|CPUUNITS|RATE|X)?=?\"?[0-9a-zA-Z:.]{0,24}\"?", 0..6),
    ) {
        let factor = Factor::parse("1.5");
        let factors = Factors { ubc: factor, cpu: factor, disk: factor, net: factor };
        if let Ok(scaled) = plan::scale(&view(&lines.join("\n")), &factors) {
            let options = Changes::from_options(Verb::Set, &scaled.options);
            prop_assert!(options.is_ok(), "{:?}: {:?}", scaled.options, options);
        }
    }
}

fn program(paths: &Paths, line: &str) -> (Result<Outcome, String>, Session) {
    let mut session = Session::default();
    let result = session.run(|talk| run(&words(line), paths, talk));
    (result.map_err(|error| error.to_string()), session)
}

#[test]
fn output_goes_where_it_is_wanted_and_an_older_one_is_kept() {
    let (dir, paths) = node();
    let (input, output) = (paths.sample("basic"), dir.path().join("out"));
    let before = fs::read_to_string(&input).unwrap();
    let (done, session) = program(&paths, &format!("-u 2 {}", input.display()));
    assert_eq!((done, session.err().as_str()), (Ok(Outcome::Good), "Scale completed: success\n"));
    let text = session.out();
    assert_eq!(Limits::of(&view(&text)).barrier("numproc"), 480);
    assert_eq!(fs::read_to_string(&input).unwrap(), before);

    let line = format!("-u 2 -o {} {}", output.display(), input.display());
    let (done, session) = program(&paths, &line);
    assert_eq!((done, session.out().as_str()), (Ok(Outcome::Good), ""));
    assert_eq!(fs::read_to_string(&output).unwrap(), text);
    let backup = dir.path().join("out.bak");
    assert!(!backup.exists());
    fs::write(&backup, "older").unwrap();
    program(&paths, &line.replace("-u 2", "-u 3")).0.unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), text);
    assert_ne!(fs::read_to_string(&output).unwrap(), text);
    assert_eq!(
        fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("out") })
            .count(),
        2
    );
}

#[test]
fn a_stopped_containers_own_is_scaled_in_place_under_its_lock() {
    let (_dir, paths) = node();
    let own = paths.conf_dir().join("101.conf");
    fs::write(&own, sample("basic")).unwrap();
    let line = format!("-c 2 -o {} {}", own.display(), own.display());
    let global = Config::global(&paths).unwrap();
    let held = Lock::acquire_as(&global.lock_dir(), Ctid::new(101).unwrap(), "test").unwrap();
    let (refused, _) = program(&paths, &line);
    assert!(refused.unwrap_err().starts_with("Container already locked"));
    drop(held);
    let (done, session) = program(&paths, &line);
    assert_eq!((done, session.err().as_str()), (Ok(Outcome::Good), "Scale completed: success\n"));
    assert_eq!(fs::read_to_string(&own).unwrap(), sample("basic").replace("\"1000\"", "\"2000\""));
    assert_eq!(fs::read_dir(global.lock_dir()).unwrap().count(), 0);
    let (refused, _) = program(&paths, &line.replace("-c 2", "-r"));
    assert!(refused.unwrap_err().contains("-r makes a sample"));
}

#[test]
fn nothing_is_written_that_does_not_fit() {
    let (dir, paths) = node();
    let (input, output) = (paths.sample("light"), dir.path().join("out"));
    let line = format!("-v -u 0.1 -o {} {}", output.display(), input.display());
    let (refused, session) = program(&paths, &line);
    assert!(refused.unwrap_err().contains("not valid"));
    assert!(session.err().contains("Warning: tcprcvbuf.bar should be > 65536"), "{}", session.err());
    assert!(!output.exists());
    assert_eq!(program(&paths, &line.replace("0.1", "2")).0, Ok(Outcome::Good));
    assert!(output.exists());
}

#[test]
fn command_lines_that_are_wrong() {
    let (dir, paths) = node();
    let sample = paths.sample("basic").display().to_string();
    for (line, named) in [
        ("-a 2".to_owned(), "no configuration file"),
        (sample.clone(), "nothing to scale by"),
        (format!("-a two {sample}"), "Bad parameter two"),
        (format!("-u 0 {sample}"), "Bad parameter 0"),
        (format!("-d -2 {sample}"), "Bad parameter -2"),
        (format!("-a 2 -c x {sample}"), "Bad parameter x"),
        (format!("-a 2 -o {} {sample}", dir.path().display()), "is directory"),
        ("-a 2 /nonexistent".to_owned(), "/nonexistent not found"),
    ] {
        let (refused, session) = program(&paths, &line);
        let error = refused.unwrap_err();
        assert!(error.contains(named), "{line}: {error}");
        assert_eq!(session.out(), "");
    }
    let (_, session) = program(&paths, "--help");
    assert!(session.out().starts_with("Usage: vzcfgscale "));
}
