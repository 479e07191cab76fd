//! Processors, their time, and the clock.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vzsys::process;

/// What a VE's processors have done since its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) cpus: usize,
    pub(super) user: Duration,
    pub(super) system: Duration,
    pub(super) uptime: Duration,
}

/// What they have to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tasks {
    pub(super) threads: u64,
    /// Of them, those that ran when they were counted last.
    pub(super) running: usize,
}

/// The VE's own clock of the time since its start: that of its time namespace, which goes on when it is moved.
#[derive(Debug)]
pub(super) struct Clock {
    init: i32,
    /// Never changes once there are processes in the namespace.
    begun: Option<Duration>,
}

impl Clock {
    pub(super) fn new(init: i32) -> Self {
        Self { init, begun: None }
    }

    pub(super) fn now(&mut self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
        self.begun = self.begun.or_else(|| begun(self.init));
        now.saturating_sub(self.begun.unwrap_or_default())
    }
}

fn begun(init: i32) -> Option<Duration> {
    let offsets = std::fs::read_to_string(format!("/proc/{init}/timens_offsets")).unwrap_or_default();
    offset(&offsets).or_else(|| {
        let ticks = rustix::param::clock_ticks_per_second();
        process::start_time(init).map(|start| Duration::from_millis(start * 1000 / ticks))
    })
}

/// When the clock of the namespace was zero; `None` for the host's own.
fn offset(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("boottime"))?;
    let mut words = line.split_whitespace().skip(1);
    let (seconds, nanoseconds): (i64, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // Seconds are negative for a VE that is younger than the host, and the rest always counts forward.
    (seconds < 0).then(|| {
        Duration::from_secs(seconds.unsigned_abs()).saturating_sub(Duration::from_nanos(nanoseconds.into()))
    })
}

/// The host's processors with these numbers, counted from zero.
pub(super) fn cpuinfo(host: &str, numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut count = 0;
    for block in host.split_inclusive("\n\n") {
        let Some((first, rest)) = block.split_once('\n') else { continue };
        let number =
            first.strip_prefix("processor").and_then(|rest| rest.split(':').nth(1)?.trim().parse().ok());
        if number.is_some_and(|number: u32| numbers.contains(&number)) {
            let _ = write!(text, "processor\t: {count}\n{rest}");
            count += 1;
        }
    }
    text
}

/// A list of processors, as sysfs has it.
pub(super) fn online(count: usize) -> String {
    match count {
        0 | 1 => "0\n".to_owned(),
        many => format!("0-{}\n", many - 1),
    }
}

fn hundredths(time: Duration) -> u128 {
    time.as_millis() / 10
}

/// Time that its processors had nothing to do.
fn idle(work: &Work) -> Duration {
    let whole = work.uptime * u32::try_from(work.cpus.max(1)).unwrap_or(u32::MAX);
    whole.saturating_sub(work.user + work.system)
}

/// In 1/100 s, as the kernel has it for everybody (proc_stat(5)). What each processor did alone is not counted for a
/// VE: all have an equal part.
pub(super) fn stat(work: &Work, tasks: &Tasks) -> String {
    let cpus = u32::try_from(work.cpus.max(1)).unwrap_or(u32::MAX);
    let line = |name: &str, part: u32| {
        let [user, system, idle] = [work.user, work.system, idle(work)].map(|time| hundredths(time / part));
        format!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n")
    };
    let mut text = line("cpu ", 1);
    (0..cpus).for_each(|number| text += &line(&format!("cpu{number}"), cpus));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let _ = write!(
        text,
        "intr 0\nctxt 0\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        now.saturating_sub(work.uptime).as_secs(),
        tasks.threads,
        tasks.running.max(1),
    );
    text
}

/// Since the start, and idle, in seconds (proc_uptime(5)).
pub(super) fn uptime(work: &Work) -> String {
    let text = |time: Duration| {
        let time = hundredths(time);
        format!("{}.{:02}", time / 100, time % 100)
    };
    format!("{} {}\n", text(work.uptime), text(idle(work)))
}

/// Load averages in 65536ths, as text (proc_loadavg(5)).
pub(super) fn loadavg(tasks: &Tasks, loads: [u64; 3]) -> String {
    let mut text = String::new();
    for load in loads {
        // Rounded as the kernel does.
        let load = load + 65536 / 200;
        let _ = write!(text, "{}.{:02} ", load / 65536, load % 65536 * 100 / 65536);
    }
    let Tasks { running, threads } = tasks;
    let _ = writeln!(text, "{running}/{threads} {threads}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        let seconds = Duration::from_secs;
        Work { cpus: 2, user: seconds(3), system: seconds(1), uptime: Duration::from_millis(10_128) }
    }

    const TASKS: Tasks = Tasks { threads: 12, running: 1 };

    #[test]
    fn only_its_own_processors_are_shown_and_counted_from_zero() {
        let host = "processor\t: 0\nmodel name\t: A\n\nprocessor\t: 1\nmodel name\t: B\n\nprocessor\t: 2\nmodel name\t: C\n\n";
        assert_eq!(
            cpuinfo(host, &[1, 2]),
            "processor\t: 0\nmodel name\t: B\n\nprocessor\t: 1\nmodel name\t: C\n\n"
        );
        assert_eq!(cpuinfo(host, &[]), "");
        assert_eq!((online(1), online(4)), ("0\n".to_owned(), "0-3\n".to_owned()));
    }

    #[test]
    fn time_is_shared_out_and_adds_up() {
        let text = stat(&work(), &TASKS);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "cpu  300 0 100 1625 0 0 0 0 0 0");
        assert_eq!(lines[1..3], ["cpu0 150 0 50 812 0 0 0 0 0 0", "cpu1 150 0 50 812 0 0 0 0 0 0"]);
        assert_eq!(uptime(&work()), "10.12 16.25\n");
    }

    #[test]
    fn load_is_rounded_as_the_kernel_does() {
        assert_eq!(loadavg(&TASKS, [65536 * 3 / 2, 655, 0]), "1.50 0.01 0.00 1/12 12\n");
    }

    #[test]
    fn the_clock_of_a_namespace_began_when_its_offset_says() {
        let text = "monotonic          -1000         0\nboottime           -1000         0\n";
        assert_eq!(offset(text), Some(Duration::from_secs(1000)));
        assert_eq!(offset("monotonic 0 0\nboottime 0 0\n"), None);
        assert_eq!(offset(""), None);
    }
}
