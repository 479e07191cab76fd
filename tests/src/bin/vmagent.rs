//! Runs, in a virtual machine, what its host asks for.
//!
//! The host speaks through a virtio-serial port, in lines of JSON:
//!
//! ```text
//!  ◀ {"hello":"6.1.0-56-amd64"}
//!  ▶ {"id":7,"argv":["/bin/true"],"env":{"A":"b"},"deadline":60}
//!  ◀ {"id":7,"line":"a line of its output"}
//!  ◀ {"id":7,"code":0,"seconds":0.12}          code: minus a signal's number; null after the deadline
//! ```
//! Any number of commands may be at work at once.
#![allow(clippy::unwrap_used)] // a machine that cannot go on is ended by its host's deadline

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

/// How often an ended command is looked for.
const STEP: Duration = Duration::from_millis(20);
/// How long the output of an ended command may stay open in other hands.
const REST: Duration = Duration::from_secs(20);

type Host = Arc<Mutex<File>>;

fn main() {
    let port = port().expect("the host gave no port of the name `agent`");
    let port = File::options().read(true).write(true).open(port).unwrap();
    let requests = BufReader::new(port.try_clone().unwrap());
    let host: Host = Arc::new(Mutex::new(port));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say(&host, &json!({ "hello": release.trim() }));
    for line in requests.lines() {
        let line = line.unwrap();
        match serde_json::from_str(&line) {
            Ok(request) => {
                let host = host.clone();
                std::thread::spawn(move || serve(&host, &request));
            }
            Err(error) => say(&host, &json!({ "error": format!("{error}: {line}") })),
        }
    }
}

fn port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let named = |dir: &Path| fs::read_to_string(dir.join("name")).is_ok_and(|name| name.trim() == "agent");
    let ours = ports.into_iter().find(|entry| named(&entry.path()))?;
    Some(Path::new("/dev").join(ours.file_name()))
}

fn say(host: &Host, message: &Value) {
    let mut port = host.lock().unwrap();
    port.write_all(format!("{message}\n").as_bytes()).unwrap();
}

fn serve(host: &Host, request: &Value) {
    let id = &request["id"];
    let started = Instant::now();
    let deadline = started + Duration::from_secs(request["deadline"].as_u64().unwrap_or(60));
    let (mut child, output) = match start(request, host) {
        Ok(started) => started,
        Err(error) => {
            say(host, &json!({ "id": id, "line": format!("cannot run {}: {error}", request["argv"]) }));
            return say(host, &json!({ "id": id, "code": 127, "seconds": 0.0 }));
        }
    };
    let status = wait(&mut child, deadline);
    // What it has started goes with it: tests leave nothing at work.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    if status.is_none() {
        let _ = child.wait();
    }
    let _ = output.recv_timeout(REST);
    let code = status.map(|status| status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)));
    say(host, &json!({ "id": id, "code": code, "seconds": started.elapsed().as_secs_f64() }));
}

/// The command, and a channel that says when its output is closed.
fn start(request: &Value, host: &Host) -> io::Result<(Child, Receiver<()>)> {
    let words: Vec<&str> =
        request["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (output, input) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).process_group(0);
    command.current_dir(request["cwd"].as_str().unwrap_or("/"));
    for (key, value) in request["env"].as_object().into_iter().flatten() {
        command.env(key, value.as_str().unwrap_or_default());
    }
    let child = command.spawn()?;
    // Holds the write end otherwise, and the output would never be closed.
    drop(command);
    let (closed, at_end) = channel();
    let (host, id) = (host.clone(), request["id"].clone());
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            say(&host, &json!({ "id": id, "line": String::from_utf8_lossy(&line) }));
        }
        let _ = closed.send(());
    });
    Ok((child, at_end))
}

/// `None` when it is still at work at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}
