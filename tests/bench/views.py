"""What a container's own /proc costs to read: ours beside lxcfs, in an LXC container with the same limits."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import host
import report
from peers import Failed

FILES = ("meminfo", "stat", "uptime", "cpuinfo", "loadavg")
RAM = 64 << 20
CPU = min(os.sched_getaffinity(0))
# Longer than ours shows the same text for, in ms: after it, the text is made anew, as lxcfs always does.
PAUSE = "60"
# How many reads there are in a round, and what is done before each, as the reader is told.
RARE = (6, [PAUSE])
ANEW = (6, [PAUSE, "/proc/swaps"])
OFTEN = (1000, ["0"])
# Where those who answer run. On whose CPU they are woken decides more than what they do, and it stays as it came about
# by chance: so both are measured.
ANYWHERE, HERE, ELSEWHERE = "", ", answered on the reader's CPU", ", answered on another CPU"
PACES = {
    "once every 60 ms": (RARE, ANYWHERE),
    **{f"once every 60 ms, awake by another file meanwhile{where}": (ANEW, where) for where in (HERE, ELSEWHERE)},
    **{f"again and again{where}": (OFTEN, where) for where in (HERE, ELSEWHERE)},
}
MOUNT = pathlib.Path("/run/bench-lxcfs")
ERRORS = pathlib.Path("/run/bench-lxcfs-errors")
NAME = f"{host.NAME}-views"


def views(bench):
    paces = [pace for pace, (_, where) in PACES.items() if where != ELSEWHERE or len(os.sched_getaffinity(0)) > 1]
    with contextlib.ExitStack() as stack:
        try:
            readers = {bench.ours: stack.enter_context(ours(bench))}
        except Failed as failure:
            raise SystemExit(f"error: {failure}") from failure
        missing = "it, or LXC, is not installed"
        if bench.lxc and shutil.which("lxcfs"):
            try:
                stack.enter_context(lxcfs())
                readers[bench.lxc] = stack.enter_context(lxc(bench))
                missing = ""
            except (Failed, OSError, subprocess.CalledProcessError) as failure:
                missing = str(failure)
        if missing:
            print(f"    lxcfs is left out: {missing}")

        def measure(contender):
            reader = readers[contender]
            return {(pace, file, name(contender)): reader.read(file, pace) for pace in paces for file in FILES}

        sizes = {name(contender): reader.sizes() for contender, reader in readers.items()}
        samples = bench.rounds(readers, measure, rounds=max(3, bench.options.rounds // 3))
    tables = []
    for pace in paces:
        by_file = {file: of(pace, file, samples) for file in FILES}
        tables.append(report.Files(f"reading a container's own /proc {pace}", "vzctl", by_file, ""))
    tables[-1].note = note(sizes, missing)
    return tables


def of(pace, file, samples):
    """Nanoseconds, by who was read from."""
    return {name: [nanoseconds for times in rounds for nanoseconds in times]
            for (paced, of_file, name), rounds in samples.items() if (paced, of_file) == (pace, file)}


def note(sizes, missing):
    if missing:
        return "lxcfs was not there to compare with."
    version = host.output(["lxcfs", "--version"]).strip('"')
    sizes = "; ".join(f"{file} {', '.join(f'{name} {of[file]}' for name, of in sizes.items())}" for file in FILES)
    return f"lxcfs {version} with `-l`. Each container has 64 MiB of RAM and one CPU. Bytes of a text: {sizes}."


def name(contender):
    return "lxcfs" if contender.name == "lxc" else contender.name


class Reader:
    """Runs the reader in a container."""

    def __init__(self, enter, server):
        self.enter = enter
        # What the processes that answer are called, as far as the kernel keeps it.
        self.server = server[:15]

    def output(self, *command):
        done = subprocess.run([*map(str, self.enter), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise Failed(f"{command}: status {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def check(self):
        """That all are the container's own: a file that is only handed on costs less to make."""
        text = {file: self.output("/bin/cat", f"/proc/{file}") for file in FILES}
        total = int(text["meminfo"].split("MemTotal:")[1].split()[0]) * 1024
        cpus = text["cpuinfo"].count("processor\t")
        lines = sum(line.startswith("cpu") for line in text["stat"].splitlines()) - 1
        if (total, cpus, lines) != (RAM, 1, 1):
            raise Failed(f"it shows {total} bytes of RAM, {cpus} CPUs, and {lines} in stat")
        for file, word in ("uptime", 0), ("loadavg", 3):
            inside, outside = (of.split()[word] for of in (text[file], pathlib.Path("/proc", file).read_text()))
            # Of the load, how many threads there are.
            if float(inside.split("/")[-1]) >= float(outside.split("/")[-1]) / 2:
                raise Failed(f"its {file} is the host's: {inside}, {outside} there")

    def sizes(self):
        return {file: len(self.output("/bin/cat", f"/proc/{file}")) for file in FILES}

    def read(self, file, pace):
        (times, how), where = PACES[pace]
        self.place(where)
        return [int(line) for line in self.output("/bin/reader", f"/proc/{file}", str(times), *how).split()]

    def place(self, where):
        cpus = os.sched_getaffinity(0)
        if where:
            cpus = {cpu for cpu in cpus if (cpu == CPU) == (where == HERE)}
        threads = [thread for process in pathlib.Path("/proc").glob("[0-9]*") if called(process) == self.server
                   for thread in (process / "task").iterdir()]
        if not threads:
            raise Failed(f"there is no {self.server}")
        for thread in threads:
            os.sched_setaffinity(int(thread.name), cpus)


def called(process):
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return None


@contextlib.contextmanager
def ours(bench):
    [number] = bench.numbers(1)
    bench.ours.create(number, "tiny")
    try:
        bench.ours.verb("set", number, "--ram", str(RAM), "--swap", "0", "--cpumask", str(CPU), "--save")
        bench.ours.verb("start", number)
        try:
            reader = Reader([bench.ours.vzctl, "--quiet", "exec3", number], f"vzviews {number}")
            reader.check()
            yield reader
        finally:
            bench.ours.stop_number(number)
    finally:
        bench.ours.destroy(number)


@contextlib.contextmanager
def lxcfs():
    MOUNT.mkdir(exist_ok=True)
    # Without -l it hands on the host's load.
    with open(ERRORS, "wb") as errors:
        process = subprocess.Popen(["lxcfs", "-f", "-l", str(MOUNT)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=errors)
    try:
        deadline = time.monotonic() + 10
        while not (MOUNT / "proc/meminfo").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"it does not come up: {ERRORS.read_text(errors='replace').strip()[-400:]}")
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", "-l", str(MOUNT)], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def lxc(bench):
    cgroup = "cgroup2" if (host.CGROUP / "cgroup.controllers").exists() else "cgroup"
    memory = "memory.max" if cgroup == "cgroup2" else "memory.limit_in_bytes"
    bench.lxc.configure(NAME, "tiny", [
        f"lxc.{cgroup}.{memory} = {RAM}",
        f"lxc.{cgroup}.cpuset.cpus = {CPU}",
        *(f"lxc.mount.entry = {MOUNT}/proc/{file} proc/{file} none bind 0 0" for file in (*FILES, "swaps")),
    ])
    words = ["-P", bench.lxc.path, "-n", NAME]
    bench.lxc.call(["lxc-start", *words])
    try:
        reader = Reader(["lxc-attach", *words, "--"], "lxcfs")
        reader.check()
        yield reader
    finally:
        bench.lxc.call(["lxc-stop", *words, "-k"])
