"""CPU time as it is dealt out, and what a VE that does harm costs its neighbour."""

import dataclasses
import pathlib
import subprocess
import time

import peers
import report

SPIN = "while :; do :; done"
WORK = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"
# What the harmful VE runs; it has limits as a provider would set them.
HARM = {
    "fork bomb": "bomb() { while :; do bomb & done 2>/dev/null; }; bomb",
    "memory hog": "while :; do x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' x); done",
    "open files": "for i in $(seq 1 60); do (for n in 3 4 5 6 7 8 9; do eval \"exec $n</dev/null\"; done; "
                  "while :; do : < /dev/null; done) & done; wait",
    "fsync storm": "for i in 1 2 3 4; do (while :; do dd if=/dev/zero of=/s$i bs=4k count=50 conv=fsync 2>/dev/null; "
                   "done) & done; wait",
    # Nothing but CPU time: what the others are beside.
    "busy loops": "for i in 1 2 3 4; do (while :; do :; done) & done; wait",
    "signal flood": "trap '' USR1; for i in 1 2 3 4; do (while :; do kill -USR1 0; done) & done; trap : USR1; "
                    "while :; do wait; done",
}


@dataclasses.dataclass
class Shares:
    """Parts of what was dealt out, beside what was asked for."""

    title: str
    rows: list

    def lines(self):
        yield f"### {self.title}"
        yield ""
        yield "| | asked for | got | off by |"
        yield "|---|---:|---:|---:|"
        for name, asked, got in self.rows:
            yield f"| {name} | {asked:.2f} % | {got:.2f} % | {got - asked:+.2f} |"
        yield ""


def used(number):
    """Nanoseconds of CPU time of a VE."""
    v1 = pathlib.Path(f"/sys/fs/cgroup/cpuacct/vz/{number}/cpuacct.usage")
    if v1.exists():
        return int(v1.read_text())
    lines = pathlib.Path(f"/sys/fs/cgroup/vz/{number}/cpu.stat").read_text().splitlines()
    return 1000 * next(int(line.split()[1]) for line in lines if line.startswith("usage_usec"))


class Running:
    """VEs with settings; gone at the end, and what was run in them."""

    def __init__(self, bench, settings):
        self.ours, self.busy = bench.ours, []
        self.numbers = bench.numbers(len(settings))
        for number, words in zip(self.numbers, settings):
            self.ours.create(number, "tiny")
            self.ours.verb("set", number, *words, "--save")
            self.ours.verb("start", number)

    def __enter__(self):
        return self

    def run(self, number, line):
        command = [self.ours.vzctl, "--quiet", "exec2", str(number), line]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.busy.append(subprocess.Popen([str(word) for word in command], **quiet))

    def spin(self, numbers, cpus):
        for number in numbers:
            for _ in range(cpus):
                self.run(number, SPIN)

    def dealt(self, seconds):
        """CPU time of each in a while, and the while; what begins is not counted."""
        time.sleep(2)
        begin, before = time.monotonic_ns(), [used(number) for number in self.numbers]
        time.sleep(seconds)
        return [used(number) - was for number, was in zip(self.numbers, before)], time.monotonic_ns() - begin

    def __exit__(self, *_):
        for number in self.numbers:
            self.ours.stop_number(number)
            self.ours.destroy(number)
        for process in self.busy:
            process.wait()


def shares(bench, cpus):
    seconds = 10 if bench.options.quick else 30
    units, rows = [1000, 2000, 3000], []
    settings = [["--cpuunits", str(n)] for n in units]
    # The scheduler is exact on one CPU; across CPUs it also depends on what was moved where.
    with Running(bench, [[*words, "--cpumask", "0"] for words in settings]) as ves:
        ves.spin(ves.numbers, 1)
        got, _ = ves.dealt(seconds)
        rows += [(f"{n} units, all busy on one CPU", 100 * n / sum(units), 100 * g / sum(got)) for n, g in zip(units, got)]
    with Running(bench, settings) as ves:
        ves.spin(ves.numbers, cpus)
        got, _ = ves.dealt(seconds)
        rows += [(f"{n} units, all busy", 100 * n / sum(units), 100 * g / sum(got)) for n, g in zip(units, got)]
    with Running(bench, settings) as ves:
        ves.spin(ves.numbers[:2], cpus)
        got, _ = ves.dealt(seconds)
        rows += [(f"{n} units, that of 3000 idle", 100 * n / 3000, 100 * g / sum(got)) for n, g in zip(units[:2], got)]
    with Running(bench, [["--cpulimit", "25"]]) as ves:
        ves.spin(ves.numbers, cpus)
        got, whole = ves.dealt(seconds)
        rows.append(("cap of 25, of one CPU", 25, 100 * got[0] / whole))
    return [Shares(f"CPU time under full load, over {seconds} s", rows)]


def harm(bench):
    execs, bare, works = {}, {}, {}
    limits = ["--ram", "128M", "--swap", "0", "--numproc", "200", "--cpuunits", "1000"]
    for name, line in {"quiet": None, **HARM}.items():
        with Running(bench, [limits, limits]) as ves:
            bad, good = ves.numbers
            if line:
                ves.run(bad, line)
                time.sleep(1)
            init = str(bench.ours.state(good)["init"]["pid"])
            for _ in range(max(5, 4 * bench.options.rounds)):
                execs.setdefault(name, []).append(bench.ours.verb("exec", good, "true")[1])
                bare.setdefault(name, []).append(peers.timed(["nsenter", "-a", "-t", init, "true"])[1])
            for _ in range(max(5, bench.options.rounds)):
                works.setdefault(name, []).append(peers.timed(
                    [str(bench.ours.vzctl), "exec", str(good), WORK])[1])
    return [report.Table("`exec` of `true` in the neighbour of a VE that does harm", "quiet", execs, ""),
            report.Table("the same by `nsenter -a`, which does nothing of ours", "quiet", bare,
                         "Both start processes on the host: this is what the kernel's scheduler and disk make of it."),
            report.Table("a fixed computation in the neighbour of a VE that does harm", "quiet", works,
                         "On a machine that is otherwise idle a neighbour's share is half of it: 0.5 is fair.")]
