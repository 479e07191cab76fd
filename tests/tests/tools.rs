//! The tools that read the table of beancounters, on VEs that run.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use vztests::{Background, Node, Pty, Run, Ve, command, on_node, run, skip, until};

const SOON: Duration = Duration::from_secs(10);
/// As many processes as a VE of the tiny template never has.
const MANY: &str = "200";

fn tool(node: &Node, name: &str, arguments: &[&str]) -> Run {
    run(node.program(name), arguments)
}

/// The number of a column of a row of vzubc, as it is shown.
fn cell(table: &str, row: &str, column: usize) -> String {
    let line = table.lines().find(|line| line.trim_start().starts_with(row));
    let line = line.unwrap_or_else(|| panic!("no {row} in\n{table}"));
    let part = line.split('|').nth(column).unwrap();
    part.split_whitespace().next().unwrap_or_default().to_owned()
}

fn heading(ve: &Ve<'_>) -> String {
    format!("\nCT {:<10}| HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL\n", ve.id)
}

#[test]
fn vzubc_shows_what_runs_by_number_and_by_name() {
    on_node(|node| {
        let (ve, other) = (node.tiny(1), node.tiny(2));
        ve.ok("set", &["--name", "web", "--numproc", MANY, "--save"]);
        ve.start();
        let table = tool(node, "vzubc", &[&ve.id]).ok().out();
        assert!(table.contains(&heading(&ve)), "{table}");
        assert_eq!([cell(&table, "numproc", 3), cell(&table, "numproc", 4)], [MANY, MANY]);
        assert_ne!(cell(&table, "numproc", 1), "-", "{table}");
        assert_ne!(cell(&table, "numproc", 2), "-", "{table}");
        assert!(!table.contains("numsiginfo"), "what has no barrier is hidden:\n{table}");
        let named = tool(node, "vzubc", &["-v", "web"]).ok().out();
        assert!(named.contains(&heading(&ve)) && named.contains("numsiginfo"), "{named}");
        for (row, standing) in
            [("numproc", "enforced"), ("kmemsize", "accounted: "), ("vmguarpages", "stored: ")]
        {
            let line = named.lines().find(|line| line.trim_start().starts_with(row)).unwrap();
            assert!(line.rsplit("  ").next().unwrap().starts_with(standing), "{line}");
        }
        let all = tool(node, "vzubc", &[]).ok().out();
        assert!(all.contains(&heading(&ve)) && !all.contains(&heading(&other)), "{all}");
        tool(node, "vzubc", &["0", "-v"]).ok().says("\nCT 0  ");

        let stopped = tool(node, "vzubc", &[&other.id, "nosuch"]).ok();
        assert_eq!(stopped.out(), "");
        assert!(stopped.stderr.contains(&format!("container {} is not running", other.id)), "{stopped}");
        assert!(stopped.stderr.contains("nosuch"), "{stopped}");

        other.ok("set", &["--numproc", MANY, "--save"]);
        other.start();
        let both = tool(node, "vzubc", &["0", "web", &other.id]).ok().out();
        let place = |ve: &Ve<'_>| both.find(&heading(ve)).unwrap();
        assert!(place(&other) < place(&ve), "the youngest comes first:\n{both}");
        assert!(both.find("\nCT 0  ").is_some_and(|host| place(&ve) < host), "the host comes last:\n{both}");
        tool(node, "vzubc", &["--nonsense"]).exits(1).says("--nonsense");
    });
}

#[test]
fn vzubc_tells_what_has_changed_since_the_last_run() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let show = |options: &[&str]| tool(node, "vzubc", &[options, &[&ve.id]].concat()).ok().out();
        let held = |table: &str| {
            let line = table.lines().find(|line| line.trim_start().starts_with("numproc")).unwrap();
            line.split('|').nth(1).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        ve.ok("set", &["--numproc", MANY]);
        assert!(!held(&show(&["-i", "-r"]))[1].starts_with('+'), "nothing to compare with");
        ve.sh("for i in 1 2 3 4 5 6 7; do sleep 1000 >/dev/null 2>&1 </dev/null & done");
        let table = show(&["-i", "-r"]);
        assert_eq!(held(&table)[1], "+7", "{table}");
        assert!(table.contains("|+FAIL\n"), "{table}");

        ve.ok("set", &["--numproc", "16"]);
        ve.run("exec2", &["for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 >/dev/null 2>&1 </dev/null & done"]);
        let refused = show(&["-r", "-q", "-qh", "9900", "-qm", "9900"]);
        assert_ne!(cell(&refused, "numproc", 5), "-", "{refused}");
        assert_eq!(cell(&show(&["-r"]), "numproc", 5), "-");
        assert_ne!(cell(&show(&["-rc"]), "numproc", 5), "-");
        assert_ne!(cell(&show(&["-r"]), "numproc", 5), "-", "forgotten, so all of them are new");

        let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("/var/lib/vzctl/vzubc"), 0o700);
        assert_eq!(mode("/var/lib/vzctl/vzubc/held"), 0o600);
        ve.destroy();
        tool(node, "vzubc", &["-i"]).ok();
        let kept = fs::read_to_string("/var/lib/vzctl/vzubc/held").unwrap();
        assert!(!kept.contains(&format!("{}:", ve.id)), "{kept}");
    });
}

#[test]
fn watching_goes_on_until_a_signal_ends_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--numproc", MANY, "--save"]);
        ve.start();
        let mut terminal = Pty::spawn(&command(node.program("vzubc"), &["-wd", "-wn", "0.1", &ve.id]));
        let title = format!("Every 0.1s: vzubc -wd -wn 0.1 {}", ve.id);
        for _ in 0..3 {
            terminal.expect(&title);
            terminal.expect("numproc");
        }
        terminal.send("\u{3}");
        let (code, _) = terminal.finish();
        assert_eq!(code, -1, "ended by a signal");

        let mut child = Command::new(node.program("vzubc"))
            .args(["-w", "-wt", "-wn", "0.1", &ve.id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = child.stdout.take().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(pipe));
        let headings = lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("CT ")).take(2);
        assert_eq!(headings.count(), 2);
        drop(lines);
        until("watching ends when nobody reads", SOON, || child.try_wait().unwrap().is_some());
    });
}

#[test]
fn a_node_without_a_ve_has_room() {
    on_node(|node| {
        let said = |name: &str, arguments: &[&str]| tool(node, name, arguments).ok().out();
        assert!(!said("vzubc", &["-v"]).contains(&format!("CT {}", node.first_ctid())));
        assert_eq!(
            said("vzmemcheck", &[]).lines().last(),
            Some("   0.00    0.00    0.00    0.00    0.00    0.00    0.00    0.00")
        );
        assert!(said("vzcpucheck", &[]).starts_with("Current CPU utilization: 1000\nPower of the node: "));
        assert!(
            said("vzoversell", &[])
                .contains("\n TOTAL        -     -     -     -      -     -     -     - \n")
        );
        assert_eq!(said("vzpid", &["2147483647"]), "Pid\tCTID\tName\n");
    });
}

#[test]
fn whoever_is_not_root_may_read_files_only() {
    on_node(|node| {
        let copies = node.scratch().join("programs");
        fs::create_dir_all(&copies).unwrap();
        let as_nobody = |name: &str, arguments: &[&str]| {
            let copy = copies.join(name);
            fs::copy(node.program(name), &copy).unwrap();
            let words = ["--reuid=65534", "--regid=65534", "--clear-groups", copy.to_str().unwrap()];
            run("setpriv", &[&words[..], arguments].concat())
        };
        for mode in [&copies, &node.scratch()] {
            fs::set_permissions(mode, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, arguments) in [
            ("vzubc", &[][..]),
            ("vzcalc", &["101"]),
            ("vzmemcheck", &[]),
            ("vzcpucheck", &[]),
            ("vzoversell", &[]),
        ] {
            let refused = as_nobody(name, arguments).exits(1);
            assert_eq!(refused.stderr, "This program can only be run under root.\n", "{name}");
            as_nobody(name, &["--help"]).ok().says("Examples:");
        }
        let table = copies.join("table");
        let row = format!("Version: 2.5\ntitles\n       101: numproc {0} {0} {0} {0} {0}\n", 2048);
        fs::write(&table, row).unwrap();
        let table = table.to_str().unwrap();
        let shown = as_nobody("vzubc", &["-f", table]).ok().out();
        assert!(
            shown.contains("      numproc|   2K 100% 100%|   2K 100% 100%|   2K|   2K|    2K\n"),
            "{shown}"
        );
        as_nobody("vzoversell", &[table]).ok();
        as_nobody("vzpid", &["1"]).ok().says("1\t0\t");
    });
}

#[test]
fn checks_set_a_ve_against_the_node() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "64M", "--swap", "0", "--cpuunits", "2500", "--save"]);
        let calc = |options: &[&str]| tool(node, "vzcalc", &[options, &[&ve.id]].concat());
        let header = "Resource     Current(%)  Promised(%)  Max(%)\n";
        let resting = calc(&[]).ok().out();
        assert!(resting.starts_with(&format!("{header}Memory            n/a ")), "{resting}");
        ve.start();
        ve.sh("dd if=/dev/zero of=/dev/shm/file bs=1M count=32 2>/dev/null");
        let details = calc(&["-v"]).ok().out();
        assert_eq!(details.lines().count(), 8, "{details}");
        let ram = details.lines().find(|line| line.starts_with("Total RAM")).unwrap();
        let share: f64 = ram.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert!(share > 0.0 && share < 50.0, "{details}");

        let memory = tool(node, "vzmemcheck", &["-v", "-A"]).ok().out();
        let row = memory.lines().find(|line| line.starts_with(&format!("{:<10} ", ve.id)));
        let numbers: Vec<f64> =
            row.unwrap().split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 8, "{memory}");
        assert_eq!([numbers[4], numbers[6], numbers[7]], [64.0; 3], "{memory}");

        let oversell = tool(node, "vzoversell", &[]).ok().out();
        let row = oversell.lines().find(|line| line.trim_start().starts_with(&ve.id)).unwrap();
        assert_eq!(row.split_whitespace().nth(3), Some("64M"), "{oversell}");
        let units = tool(node, "vzcpucheck", &["-v"]).ok().out();
        assert!(units.contains(&format!("\n{}\t\t2500\n0\t\t1000\n", ve.id)), "{units}");
        assert!(units.contains("\nCurrent CPU utilization: 3500\n"), "{units}");

        for (name, arguments, code) in [
            ("vzcalc", &[][..], 1),
            ("vzcalc", &["web"], 1),
            ("vzcalc", &["4711"], 1),
            ("vzmemcheck", &["-x"], 1),
            ("vzcpucheck", &["-x"], 2),
            ("vzoversell", &["/nonexistent"], 1),
            ("vzpid", &[], 1),
        ] {
            let refused = tool(node, name, arguments).exits(code);
            assert!(refused.out().is_empty() && !refused.stderr.is_empty(), "{refused}");
        }
    });
}

#[test]
fn vzcalc_names_what_a_classic_configuration_lacks() {
    on_node(|node| {
        let ve = node.tiny(1);
        let path = format!("/etc/vz/conf/{}.conf", ve.id);
        let text = fs::read_to_string(&path).unwrap();
        let classic =
            text.lines().filter(|line| !line.starts_with("PHYSPAGES") && !line.starts_with("NUMPROC"));
        fs::write(&path, classic.collect::<Vec<_>>().join("\n")).unwrap();
        let refused = tool(node, "vzcalc", &[&ve.id]).exits(1);
        assert!(refused.stderr.starts_with("Error: parameter NUMPROC not found\n"), "{refused}");
    });
}

#[test]
fn vzpid_finds_the_ve_of_a_process() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let state = fs::read_to_string(format!("/run/vz/{}/state.json", ve.id)).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let init = state["init"]["pid"].as_i64().unwrap().to_string();
        let own = std::process::id().to_string();
        let said = tool(node, "vzpid", &["-p", &init, "2147483647", &own]).ok().out();
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines[0], ["Pid", "CT/Pid", "CTID", "Name"]);
        assert_eq!(lines[1][..3], [&init, "1", &ve.id]);
        assert_eq!(lines[2][..3], [&own, &own, "0"]);
        assert_eq!(lines.len(), 3, "{said}");

        ve.sh("cp /bin/busybox '/tmp/odd name' && (exec -a sleep '/tmp/odd name' 1000 >/dev/null 2>&1 </dev/null &)");
        let odd = run("pgrep", &["-f", "^sleep 1000$"]).ok().out();
        let mut vzpid = command(node.program("vzpid"), &["-"]);
        let output =
            vztests::Background::spawn(std::mem::replace(&mut vzpid, Command::new("true")), odd.as_bytes());
        let output = output.finish().ok().out();
        assert!(output.ends_with(&format!("{}\t{}\todd name\n", odd.trim(), ve.id)), "{output}");
    });
}

#[test]
fn vzlist_shows_every_counter_and_the_limits_in_force() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--ram", "64M", "--numproc", MANY, "--save"]);
        ve.start();
        let list = |fields: &str, who: &[&str]| {
            let out = node.vzlist(&[&["-H", "-o", fields], who].concat()).ok().out();
            out.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let fields = "ctid,numproc,numproc.m,numproc.b,numproc.f,physpages,physpages.m,physpages.l,physpages.f,\
                      oomguarpages,vmguarpages.m,swappages.f";
        for who in [&[ve.id.as_str()][..], &[]] {
            let row = list(fields, who);
            assert_eq!((row.len(), &row[0]), (12, &ve.id), "{row:?}");
            let numbers: Vec<u64> = row.iter().map(|number| number.parse().unwrap()).collect();
            assert!(numbers[1] >= 1 && numbers[2] >= numbers[1], "{row:?}");
            assert_eq!((numbers[3], numbers[4], numbers[7], numbers[10]), (200, 0, 16384, 0), "{row:?}");
            assert!(numbers[5] > 0 && numbers[6] >= numbers[5] && numbers[9] > 0, "{row:?}");
        }
        ve.ok("set", &["--numproc", "77"]);
        assert_eq!(list("numproc.l", &[]), ["77"], "what is in force, saved or not");
        assert_eq!(list("numproc,numproc.l", &[&ve.id])[1], "77");
        ve.ok("stop", &["--fast"]);
        assert_eq!(list("numproc,numproc.l", &["-a"]), ["-", MANY]);
    });
}

#[test]
fn vznnc_puts_programs_on_a_connection() {
    on_node(|node| {
        let start = |arguments: &[&str]| {
            let mut command = command(node.program("vznnc"), arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let listening =
            |port: &str| run("ss", &["-Hltn", &format!("sport = :{port}")]).ok().out().contains("LISTEN");
        let mut echo = start(&["-l", "-p", "7001", "cat"]);
        until("it listens", SOON, || listening("7001"));
        let talk = "echo hello; read answer; test \"$answer\" = hello && exit 42";
        let client = tool(node, "vznnc", &["-c", "-p", "7001", "--", "sh", "-c", talk]);
        assert_eq!(client.code, 42, "{client}");
        until("the other ends too", SOON, || echo.try_wait().unwrap().is_some_and(|status| status.success()));

        let mut other =
            start(&["-l", "-p", "7002", "-f", "9", "sh", "-c", "read word <&9; test $word = given"]);
        until("it listens", SOON, || listening("7002"));
        tool(node, "vznnc", &["-c", "-p", "7002", "echo", "given"]).ok();
        until("it has read", SOON, || other.try_wait().unwrap().is_some_and(|status| status.success()));

        tool(node, "vznnc", &["-c", "-p", "7003", "true"]).exits(220).says("port 7003");
        let mut again = start(&["-l", "-p", "7004", "true"]);
        until("it listens", SOON, || listening("7004"));
        tool(node, "vznnc", &["-c", "-p", "7004", "/nonexistent"]).exits(127).says("/nonexistent");
        until("it is done", SOON, || again.try_wait().unwrap().is_some());
        tool(node, "vznnc", &["-l", "true"]).exits(1).says("-p");
        // Who started it is gone: its input is closed.
        tool(node, "vznnc", &["-l", "-p", "7005", "true"]).exits(220).says("closed");
    });
}

/// Of the distribution, whose package has the parser.
const PYTHON: &str = "/usr/bin/python3";
/// The reference parser of that format, which refuses what it does not allow.
const PARSER: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        print(sample.name, dict(sample.labels).get('ctid', '-'), float(sample.value))
";

#[test]
fn metrics_are_what_a_strict_parser_reads() {
    on_node(|node| {
        if run(PYTHON, &["-c", "import prometheus_client"]).code != 0 {
            skip("a parser of OpenMetrics (python3-prometheus-client)");
            return;
        }
        let ve = node.tiny(1);
        ve.ok("set", &["--name", "web", "--ram", "64M", "--numproc", "50", "--cpulimit", "50", "--save"]);
        ve.start();
        let text = run(node.program("vzmetrics"), &[]).ok().out();
        let mut parser = command(PYTHON, &["-c", PARSER]);
        parser.env("PYTHONDONTWRITEBYTECODE", "1");
        let read = Background::spawn(parser, text.as_bytes()).finish().ok();
        for line in [
            format!("vz_container_info {} 1.0", ve.id),
            format!("vz_container_cpu_limit {} 0.5", ve.id),
            format!("vz_container_ram_limit_bytes {} {}.0", ve.id, 64 << 20),
            format!("vz_beancounter_limit {} 50.0", ve.id),
        ] {
            assert!(read.out().lines().any(|read| read == line), "{line} in {read}");
        }
    });
}
