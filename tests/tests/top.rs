//! vztop on a terminal and off it, and vzmetrics, with VEs that really use something.
#![allow(clippy::unwrap_used)]

use std::fs;

use vztests::{Node, Pty, Run, Ve, command, on_node, run};

fn vztop(node: &Node, words: &[&str]) -> Pty {
    Pty::spawn(&command(node.program("vztop"), words))
}

/// A VE whose limit of processes refuses when it is asked to, and that keeps a CPU busy.
fn busy<'n>(node: &'n Node, number: u32, name: &str) -> Ve<'n> {
    let ve = node.tiny(number);
    ve.ok("set", &["--numproc", "40", "--ram", "64M", "--name", name, "--save"]);
    ve.start();
    ve.sh("while :; do :; done >/dev/null 2>&1 </dev/null &");
    ve
}

/// More processes than it may have.
fn exceed(ve: &Ve<'_>) {
    ve.run("exec2", &["for i in $(seq 60); do sleep 5 </dev/null >/dev/null 2>&1 & done"]);
}

fn row<'s>(screen: &'s str, ve: &Ve<'_>) -> Option<&'s str> {
    screen.lines().find(|line| line.split_whitespace().next() == Some(&ve.id))
}

/// The process that draws, which `setsid` waits for.
fn program_of(pty: &Pty) -> i32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pty.pid())).unwrap();
    children.split_whitespace().next().map_or(pty.pid().cast_signed(), |pid| pid.parse().unwrap())
}

#[test]
fn a_terminal_shows_what_goes_on() {
    on_node(|node| {
        let web = busy(node, 1, "web-one");
        let mail = node.tiny(2);
        mail.ok("set", &["--name", "mail", "--save"]);
        mail.start();
        let mut terminal = vztop(node, &["-d", "0.3"]);
        terminal.resize(30, 120);
        let wide = |screen: &str| {
            let cpu = |ve| row(screen, ve).and_then(|row| row.split_whitespace().nth(2)?.parse::<f64>().ok());
            cpu(&web).is_some_and(|cpu| cpu > 5.0) && cpu(&mail).is_some_and(|cpu| cpu < 50.0)
        };
        let screen = terminal.until("both are there, and one is busy", wide);
        let lines: Vec<&str> = screen.lines().collect();
        assert!(lines[0].contains("running 2  cpu") && lines[0].contains("load"), "{screen}");
        assert!(
            lines[1].contains("CTID NAME") && lines[2].contains("web-one"),
            "the busy one is first\n{screen}"
        );
        assert!(lines[2].contains("64M"), "{screen}");

        exceed(&web);
        let alarm = format!("container {}: numproc refused", web.id);
        terminal.until("the alarm is told", |screen| screen.contains(&alarm));
        terminal.send("/MAIL\r");
        terminal
            .until("the filter works", |screen| row(screen, &web).is_none() && row(screen, &mail).is_some());
        terminal.send("\x1b");
        terminal.until("all are back", |screen| row(screen, &web).is_some());
        terminal.send("Nr");
        terminal.until("the order is turned", |screen| {
            let at = |ve: &Ve<'_>| screen.lines().position(|line| line.contains(&format!("{} ", ve.id)));
            at(&mail) < at(&web)
        });
        terminal.send("r\r");
        let title = format!("Container {} (web-one)", web.id);
        let limit_shows = |screen: &str| {
            let numproc = screen.lines().find(|line| line.starts_with("numproc"));
            numproc.and_then(|line| line.split_whitespace().nth(4)) == Some("40")
        };
        let screen = terminal.until("one is looked at", |screen| {
            screen.contains(&title) && screen.contains('█') && limit_shows(screen)
        });
        assert!(
            screen.contains("procs ") && screen.contains(" of 40") && screen.contains("kmemsize"),
            "{screen}"
        );
        terminal.send("\x1b[C");
        terminal.until("the next one", |screen| screen.contains(&format!("Container {} (mail)", mail.id)));
        mail.ok("stop", &["--fast"]);
        terminal.until("it has ended", |screen| screen.contains("is not running"));
        terminal.send("q?");
        terminal.until("the help", |screen| screen.contains("quit"));
        terminal.send("q");
        terminal.until("the list", |screen| row(screen, &web).is_some());
        assert!(!terminal.is_cooked());
        terminal.send("q");
        let (code, last) = terminal.finish();
        assert_eq!(code, 0, "{last:?}");
        assert!(last.contains("\u{1b}[?1049l"), "the screen before is back: {last:?}");
    });
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let mut terminal = vztop(node, &["-d", "0.2"]);
        terminal.until("it is there", |screen| row(screen, &ve).is_some());
        terminal.resize(10, 40);
        terminal.until("a small window will do", |screen| row(screen, &ve).is_some());
        run("kill", &["-TERM", &program_of(&terminal).to_string()]).ok();
        terminal.expect("\u{1b}[?1049l");
        let (code, _) = terminal.finish();
        assert_eq!(code, 0);

        let mut terminal = vztop(node, &["-n", "2", "-d", "0.2"]);
        terminal.expect("\u{1b}[?1049l");
        assert_eq!(terminal.finish().0, 0, "it ends by itself");
        let mut terminal = vztop(node, &["-d", "0.2"]);
        terminal.until("it is there", |screen| row(screen, &ve).is_some());
        terminal.send("\u{3}");
        terminal.expect("\u{1b}[?1049l");
        assert_eq!(terminal.finish().0, 0);
    });
}

#[test]
fn text_and_json_need_no_terminal() {
    on_node(|node| {
        let ve = busy(node, 1, "web");
        let other = node.tiny(2);
        other.start();
        let program = node.program("vztop");
        run(&program, &[]).exits(1).says("vztop -b");
        run(&program, &["-b", "nosuch"]).exits(1);
        run(&program, &["-d", "0"]).exits(1).says("0.1");
        let text = run(&program, &["-b", "-n", "2", "-d", "0.3", "-f", "web"]).ok().out();
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("web")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(!text.contains(&format!("{} ", other.id)), "{text}");

        exceed(&ve);
        let look = run(&program, &["-j", "-n", "1", "-d", "0.5", &ve.id]).ok().out();
        let look: serde_json::Value = serde_json::from_str(&look).unwrap();
        let [own] = look["containers"].as_array().unwrap().as_slice() else { panic!("{look}") };
        assert_eq!((&own["name"], &own["ram_limit"]), (&"web".into(), &(64 << 20).into()));
        assert!(own["cpu_percent"].as_f64().unwrap() > 0.0, "{own}");
        assert!(own["fails"].as_u64().unwrap() > 0, "{own}");
        assert_eq!(own["beancounters"]["numproc"]["limit"], 40);
    });
}

#[test]
fn metrics_are_text_for_a_collector() {
    on_node(|node| {
        let ve = busy(node, 1, "web");
        let stopped = node.tiny(2);
        exceed(&ve);
        let program = node.program("vzmetrics");
        let text = run(&program, &[]).ok().out();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().parse().unwrap()
        };
        let of = |name: &str, labels: &str| value(&format!("{name}{{ctid=\"{}\"{labels}}}", ve.id));
        assert_eq!(value("vz_containers{status=\"stopped\"}"), 1.0, "{stopped:?}");
        assert_eq!(of("vz_container_info", ",name=\"web\""), 1.0);
        assert_eq!(of("vz_container_ram_limit_bytes", ""), f64::from(64 << 20));
        assert!(of("vz_container_processes", "") > 1.0);
        assert!(of("vz_beancounter_failcnt_total", ",resource=\"numproc\"") > 0.0);
        assert!(text.ends_with("# EOF\n"));

        let file = "/run/scratch/vz.prom";
        assert_eq!(run(&program, &["-o", file]).ok().out(), "");
        assert!(fs::read_to_string(file).unwrap().ends_with("# EOF\n"));
        run(&program, &["-o", "/run/scratch/nosuch/vz.prom"]).exits(1).says("/run/scratch/nosuch/vz.prom");
        let user = |program: &str| -> Run {
            run("setpriv", &["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", program])
        };
        user(program.to_str().unwrap()).exits(1).says("only be run under root");
    });
}
