//! Programs as Debian has them, in a container that moves while their clients are at work.
#![allow(clippy::unwrap_used)]

mod boot {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use vztests::{Background, Lan, Node, PROGRAMS, Pair, Run, Ve, holds, on_two_nodes, skip, until};

    const SOON: Duration = Duration::from_secs(60);
    const ADDRESS: &str = "10.5.0.1";
    /// What they need to serve the network.
    const SET_UP: &str = "set -e
        cd /etc/postgresql/15/main
        echo \"listen_addresses = '*'\" >conf.d/all.conf
        echo 'host all all 10.5.0.0/24 trust' >>pg_hba.conf
        sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/' /etc/redis/redis.conf
        systemctl restart postgresql redis-server
        systemctl is-active --quiet nginx ssh redis-server postgresql@15-main
        su postgres -c 'createdb bench && /usr/lib/postgresql/15/bin/pgbench -q -i bench' 2>&1";

    /// The container with the programs, and the files of another one, of which the client runs its own.
    struct Scene<'n> {
        pair: &'n Pair<'n>,
        lan: Lan,
        hosts: [Ve<'n>; 2],
        programs: PathBuf,
        /// Which of the hosts has it.
        at: usize,
    }

    impl<'n> Scene<'n> {
        fn make(pair: &'n Pair<'n>) -> Option<Self> {
            if let Err(error) = criu::Program::find() {
                skip(&format!("CRIU: {error}"));
                return None;
            }
            if !pair.a.has_template_of(PROGRAMS.0, &PROGRAMS.1) {
                return None;
            }
            let lan = pair.lan();
            let (ve, other) = (pair.a.ve(1), pair.a.ve(2));
            for made in [&ve, &other] {
                made.ok("create", &["--ostemplate", PROGRAMS.0, "--layout", "overlay", "--config", "free"]);
            }
            other.ok("mount", &[]);
            ve.ok("set", &["--ipadd", ADDRESS, "--save"]);
            ve.ok("start", &["--wait"]);
            let up = || ve.run("exec2", &["systemctl is-system-running"]).out().trim() == "running";
            until("everything is up", SOON, up);
            println!("{}", ve.sh(SET_UP));
            let programs = other.root();
            Some(Self { pair, lan, hosts: [ve, pair.b.ve(1)], programs, at: 0 })
        }

        fn node(&self) -> &'n Node {
            if self.at == 0 { self.pair.a } else { &self.pair.b }
        }

        fn ve(&self) -> &Ve<'n> {
            &self.hosts[self.at]
        }

        fn moves(&mut self) {
            let run = self.pair.migrate(self.node(), &["--online", "--json"], &self.ve().id).ok();
            println!("{}", run.out().trim());
            self.at = 1 - self.at;
        }

        /// A program of the client's.
        fn client(&self, words: &[&str]) -> Command {
            let root = self.programs.to_str().unwrap();
            self.lan.command(&[&["chroot", root], words].concat())
        }

        /// A program of the client's again and again, until it fails or is told to end, and what was done meanwhile.
        fn again_and_again(&mut self, line: &str) -> Run {
            let stop = self.programs.join("stop");
            let each = self.programs.join("rounds");
            fs::write(&each, "").unwrap();
            let script = format!("until [ -e /stop ]; do {line} || exit; echo >>/rounds; done");
            let mut client = Background::spawn(self.client(&["sh", "-c", &script]), &[]);
            let rounds = || fs::metadata(&each).map_or(0, |meta| meta.len());
            for _ in 0..2 {
                let before = rounds();
                until("the client is at work", SOON, || rounds() > before || !client.running());
                if client.running() {
                    self.moves();
                }
            }
            let before = rounds();
            until("the client goes on", SOON, || rounds() > before || !client.running());
            fs::write(&stop, "").unwrap();
            let run = client.finish().ok();
            fs::remove_file(&stop).unwrap();
            println!("{} rounds", rounds());
            run
        }
    }

    /// New connections, each with one request, until it is over: how many were answered, and how many reset.
    fn connect_anew(over: &AtomicBool, done: &AtomicUsize, reset: &AtomicUsize) {
        while !over.load(Ordering::Relaxed) {
            match ask_once() {
                Ok(answer) => {
                    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("</html>\n"), "{answer}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    reset.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("no answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask_once() -> std::io::Result<String> {
        let mut connection = TcpStream::connect((ADDRESS, 80))?;
        connection.set_read_timeout(Some(SOON))?;
        connection.write_all(
            format!("GET / HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Sets it when it goes, whatever the reason.
    struct AtEnd<'o>(&'o AtomicBool);

    impl Drop for AtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// wrk says nothing of failures when there were none.
    fn nginx(scene: &mut Scene<'_>) {
        let url = format!("http://{ADDRESS}/");
        let words = ["wrk", "-t", "1", "-c", "8", "-d", "1000s", "--timeout", "60s", "--latency", &url];
        let mut wrk = Background::spawn(scene.client(&words), &[]);
        let netns = scene.lan.netns();
        let (over, done, reset) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let answers = |more: usize| {
            let wanted = done.load(Ordering::Relaxed) + more;
            until("new connections are answered", SOON, || done.load(Ordering::Relaxed) >= wanted);
        };
        std::thread::scope(|scope| {
            let _end = AtEnd(&over);
            scope.spawn(|| vztests::in_netns(&netns, || connect_anew(&over, &done, &reset)));
            for _ in 0..2 {
                answers(20);
                scene.moves();
            }
            answers(20);
        });
        assert!(wrk.running());
        wrk.signal(rustix::process::Signal::INT);
        let run = wrk.finish().ok();
        let (done, reset) = (done.into_inner(), reset.into_inner());
        println!("{done} new connections, {reset} reset\n{}", run.out());
        assert_eq!(reset, 0, "connections were reset");
        assert!(run.out().contains("Requests/sec"), "{run}");
        assert!(!run.out().contains("Socket errors") && !run.out().contains("Non-2xx"), "{run}");
    }

    fn number_after(text: &str, words: &str) -> u64 {
        let found = text.lines().filter_map(|line| line.split_once(words)).map(|(_, rest)| {
            let digits: String = rest.trim().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or_else(|_| panic!("{words}{rest}"))
        });
        found.sum()
    }

    fn postgresql(scene: &mut Scene<'_>) {
        let line =
            format!("/usr/lib/postgresql/15/bin/pgbench -h {ADDRESS} -U postgres -n -c 4 -t 50 bench 2>&1");
        let run = scene.again_and_again(&line);
        let mut text = run.out();
        // The same with a connection for each transaction.
        text += &scene.again_and_again(&line.replace("-n -c 4", "-n -C -c 4")).out();
        assert!(!text.contains("aborted"), "{text}");
        assert_eq!(number_after(&text, "number of failed transactions:"), 0, "{text}");
        let committed = number_after(&text, "number of transactions actually processed:");
        let kept =
            scene.ve().sh("su postgres -c \"psql -tA bench -c 'select count(*) from pgbench_history'\"");
        println!("{committed} transactions");
        assert_eq!(kept.parse::<u64>().unwrap(), committed, "a commit is lost");
    }

    fn redis(scene: &mut Scene<'_>) {
        const ROUND: u64 = 3000;
        let line = format!("redis-benchmark -h {ADDRESS} -q -t incr -n {ROUND} -c 8 2>&1");
        let run = scene.again_and_again(&line);
        assert!(!run.out().contains("rror"), "{run}");
        let rounds = fs::metadata(scene.programs.join("rounds")).unwrap().len();
        let counted = scene.ve().sh("redis-cli get counter:__rand_int__");
        assert_eq!(counted.trim_matches('"').parse::<u64>().unwrap(), rounds * ROUND, "an increment is lost");
    }

    fn ssh(scene: &mut Scene<'_>) {
        let dir = scene.pair.a.scratch();
        let key = dir.join("key");
        vztests::run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]).ok();
        let public = fs::read_to_string(dir.join("key.pub")).unwrap();
        scene
            .ve()
            .sh(&format!("mkdir -p -m 700 /root/.ssh; echo '{}' >/root/.ssh/authorized_keys", public.trim()));
        let target = format!("root@{ADDRESS}");
        let words = [
            "ssh",
            "-tt",
            "-F",
            "none",
            "-i",
            key.to_str().unwrap(),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            &target,
            "TERM=vt100 top -d 0.5; echo ended: $?",
        ];
        let screens = dir.join("screens");
        let mut client = scene.lan.command(&words);
        client.stdin(std::process::Stdio::piped()).stdout(fs::File::create(&screens).unwrap());
        let mut client = client.spawn().unwrap();
        let shown = || fs::read_to_string(&screens).unwrap_or_default().matches("load average").count();
        for _ in 0..2 {
            let before = shown();
            until("top shows what it sees", SOON, || shown() > before + 1);
            scene.moves();
        }
        let before = shown();
        until("top goes on", SOON, || shown() > before + 1);
        client.stdin.take().unwrap().write_all(b"q").unwrap();
        assert!(holds(SOON, || client.try_wait().unwrap().is_some()), "the session ends");
        let text = fs::read_to_string(&screens).unwrap();
        assert!(text.contains("ended: 0"), "{text}");
    }

    #[test]
    fn clients_of_debians_programs_notice_nothing() {
        on_two_nodes(|pair| {
            let Some(mut scene) = Scene::make(pair) else { return };
            for serve in [nginx, postgresql, redis, ssh] {
                serve(&mut scene);
            }
            assert_eq!(scene.at, 0);
            let Scene { lan, .. } = scene;
            drop(lan);
        });
    }
}
