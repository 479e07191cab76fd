//! The tools that a distribution has agree with the container's limits.
#![allow(clippy::unwrap_used)]

mod boot {
    use std::path::Path;

    use vztests::{Node, PROGRAMS, Ve, on_node, skip};

    fn debian<'n>(node: &'n Node) -> Option<Ve<'n>> {
        if !Path::new("/dev/fuse").exists() {
            skip("FUSE");
            return None;
        }
        if !node.has_template_of(PROGRAMS.0, &PROGRAMS.1) {
            return None;
        }
        let ve = node.ve(1);
        ve.ok("create", &["--ostemplate", PROGRAMS.0, "--config", "free", "--diskspace", "3G"]);
        let limits = ["--ram", "640M", "--swap", "0", "--cpus", "1", "--features", "sysinfo:on"];
        ve.ok("set", &[&limits[..], &["--save"]].concat());
        ve.ok("start", &["--wait"]);
        Some(ve)
    }

    /// The word after this one, in the line that begins so.
    fn word(text: &str, line: &str, at: usize) -> String {
        let line = text.lines().find(|it| it.trim_start().starts_with(line));
        line.unwrap_or_else(|| panic!("no {line:?} in\n{text}"))
            .split_whitespace()
            .nth(at)
            .unwrap()
            .to_owned()
    }

    #[test]
    fn free_top_uptime_nproc_vmstat_and_df_say_what_the_limits_are() {
        on_node(|node| {
            let Some(ve) = debian(node) else { return };
            let free = ve.sh("free -m");
            assert_eq!(
                (word(&free, "Mem:", 1), word(&free, "Swap:", 1)),
                ("640".into(), "0".into()),
                "{free}"
            );
            let top = ve.sh("top -b -n 1");
            assert_eq!(word(&top, "MiB Mem", 3), "640.0", "{top}");
            assert_eq!(word(&top, "MiB Swap", 2), "0.0", "{top}");
            let tasks: u32 = word(&top, "Tasks:", 1).parse().unwrap();
            assert_eq!(tasks, u32::try_from(top.lines().skip(7).count()).unwrap(), "{top}");
            assert_eq!(ve.sh("nproc"), "1");
            assert_eq!(ve.sh("nproc --all"), "1");
            assert_eq!(ve.sh("getconf _NPROCESSORS_ONLN"), "1");
            assert_eq!(word(&ve.sh("lscpu"), "CPU(s):", 1), "1");
            let seconds: f64 = ve.sh("cut -d' ' -f1 /proc/uptime").parse().unwrap();
            assert!(seconds < 3600.0, "as long as the host?");
            assert!(!ve.sh("uptime -p").contains("hour"));
            assert_eq!(word(&ve.sh("vmstat -s"), "655360 K total memory", 0), "655360");
            let df = ve.sh("df -k --output=size / | tail -n 1");
            assert_eq!(df.trim().parse::<u64>().unwrap(), 3 << 20, "{df}");
        });
    }

    #[test]
    fn htop_shows_one_processor_and_its_own_memory() {
        on_node(|node| {
            let Some(ve) = debian(node) else { return };
            let mut terminal = ve.at_terminal("enter", &[]);
            terminal.send("TERM=vt100 htop\n");
            let screen = terminal
                .until("htop shows its meters", |text| text.contains("640M") && text.contains("Tasks:"));
            println!("{screen}");
            // With more than one they have numbers.
            let first = screen.lines().find(|line| line.contains('[')).unwrap().trim_start();
            assert!(first.starts_with("CPU[") && screen.contains("Mem["), "{screen}");
            assert!(screen.contains("0K/0K"), "no swap space: {screen}");
            terminal.send("q");
            terminal.send("exit\n");
            assert_eq!(terminal.finish().0, 0);
        });
    }
}
