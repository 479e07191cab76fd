//! Clients of a container that moves while they talk to it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vztests::{Lan, Pair, Ve, compile, on_two_nodes, skip, until};

const SOON: Duration = Duration::from_secs(30);
const ADDRESS: &str = "10.5.0.1";
/// Sends back what it gets, on port 7.
const ECHO: &str = r#"
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
static int at(int kind) {
    int fd = socket(AF_INET, kind, 0), one = 1;
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(7) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) _exit(1);
    return fd;
}
int main(void) {
    static char bytes[65536];
    signal(SIGCHLD, SIG_IGN);
    if (fork() == 0) {
        int fd = at(SOCK_DGRAM);
        for (;;) {
            struct sockaddr_in from;
            socklen_t length = sizeof from;
            ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
            if (n >= 0) sendto(fd, bytes, n, 0, (struct sockaddr *)&from, length);
        }
    }
    int fd = at(SOCK_STREAM);
    listen(fd, 100);
    for (;;) {
        int client = accept(fd, 0, 0);
        if (client < 0) continue;
        if (fork() == 0) {
            ssize_t n;
            close(fd);
            while ((n = read(client, bytes, sizeof bytes)) > 0)
                if (write(client, bytes, n) != n) break;
            _exit(0);
        }
        close(client);
    }
}
"#;

/// A VE with the echo, on the first host; `None` where it cannot be made.
fn echoing<'n>(pair: &'n Pair<'_>) -> Option<Ve<'n>> {
    if let Err(error) = criu::Program::find() {
        skip(&format!("CRIU: {error}"));
        return None;
    }
    let Some(program) = compile(&pair.a.scratch(), "echo", ECHO) else {
        skip("a C compiler");
        return None;
    };
    let ve = pair.a.tiny(1);
    ve.ok("set", &["--ipadd", ADDRESS, "--save"]);
    ve.start();
    ve.begin("exec2", &["cat > /root/echo"], &fs::read(&program).unwrap()).finish().ok();
    ve.sh("chmod 755 /root/echo; (/root/echo </dev/null >/dev/null 2>&1 &)");
    Some(ve)
}

/// A connection of the client to it.
fn connected(lan: &Lan) -> TcpStream {
    let mut connection = None;
    until("it answers", SOON, || {
        connection = lan.client(|| TcpStream::connect((ADDRESS, 7)).ok());
        connection.is_some()
    });
    let connection = connection.unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    rustix::net::sockopt::set_socket_keepalive(&connection, true).unwrap();
    connection
}

/// Asks and waits for the answer, again and again; returns how often, and the longest that it waited.
fn ask(mut connection: &TcpStream, over: &AtomicBool) -> (u64, Duration) {
    let (mut asked, mut longest) = (0_u64, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let since = Instant::now();
        connection.write_all(&asked.to_le_bytes()).expect("the connection takes it");
        let mut answer = [0; 8];
        connection.read_exact(&mut answer).expect("an answer comes");
        assert_eq!(u64::from_le_bytes(answer), asked);
        longest = longest.max(since.elapsed());
        asked += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    (asked, longest)
}

#[test]
fn a_connection_is_not_lost_and_what_comes_meanwhile_follows() {
    on_two_nodes(|pair| {
        // Before it: the host answers for its address on the networks that are there when it starts.
        let lan = pair.lan();
        let Some(here) = echoing(pair) else { return };
        let there = pair.b.ve(1);
        let connection = connected(&lan);
        for (from, ve) in [(pair.a, &here), (&pair.b, &there)] {
            let over = AtomicBool::new(false);
            let run = std::thread::scope(|scope| {
                let client = scope.spawn(|| ask(&connection, &over));
                let run = pair.migrate(from, &["--online", "--json"], &ve.id);
                // A moment more on the other host.
                std::thread::sleep(Duration::from_millis(500));
                over.store(true, Ordering::Relaxed);
                let (asked, longest) = client.join().expect("the client has its answers");
                println!("{asked} answers, the longest after {longest:?}");
                run
            });
            let run = run.ok();
            println!("{}", run.out());
        }
        here.is("exist mounted running");
        drop(connection);
        let served = |ve: &Ve<'_>| ve.sh("ps | grep -c '/root/[e]cho'");
        until("the connection is over", SOON, || served(&here) == "2");
        drop(lan);
    });
}

/// Sends numbers at 1 kHz and counts what comes back: sent, lost, the longest time without an answer.
fn at_1_khz(socket: &UdpSocket, over: &AtomicBool) -> (u64, u64, Duration) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let sent = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                let _ = socket.send(&number.to_le_bytes());
                sent.store(number + 1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (mut came, mut last, mut gap) = (0_u64, Instant::now(), Duration::ZERO);
        let mut quiet = 0;
        // Until nothing comes any more.
        while quiet < 5 {
            match socket.recv(&mut [0; 8]) {
                Ok(_) => {
                    came += 1;
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                    quiet = 0;
                }
                Err(_) if over.load(Ordering::Relaxed) => quiet += 1,
                Err(_) => {}
            }
        }
        let sent = sent.load(Ordering::Relaxed);
        (sent, sent - came.min(sent), gap)
    })
}

#[test]
fn datagrams_at_1_khz_are_answered_again_after_a_gap() {
    on_two_nodes(|pair| {
        // Before it: the host answers for its address on the networks that are there when it starts.
        let lan = pair.lan();
        let Some(here) = echoing(pair) else { return };
        let there = pair.b.ve(1);
        let socket = lan.client(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        lan.client(|| socket.connect((ADDRESS, 7)).unwrap());
        drop(connected(&lan));
        for (from, ve) in [(pair.a, &here), (&pair.b, &there)] {
            let over = AtomicBool::new(false);
            let run = std::thread::scope(|scope| {
                let client = scope.spawn(|| at_1_khz(&socket, &over));
                std::thread::sleep(Duration::from_millis(200));
                let run = pair.migrate(from, &["--online", "--json"], &ve.id);
                std::thread::sleep(Duration::from_millis(500));
                over.store(true, Ordering::Relaxed);
                let (sent, lost, gap) = client.join().unwrap();
                println!("{sent} sent, {lost} lost, the longest gap {gap:?}");
                assert!(lost < sent, "it answers");
                run
            });
            println!("{}", run.ok().out());
        }
        drop(lan);
    });
}
