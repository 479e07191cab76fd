"""What a container's own /proc costs to read: ours beside lxcfs, in an LXC container with the same limits."""

import contextlib
import pathlib
import shutil
import subprocess
import time

import host
import report
from peers import Failed

FILES = ("meminfo", "stat", "uptime", "cpuinfo", "loadavg")
RAM = 64 << 20
CPU = "0"
# Between two reads, in ms, and how many there are in a round. Ours shows the same text for 50 ms: after a longer pause
# it is made anew each time, as by lxcfs.
PACES = {60: 15, 0: 1000}
MOUNT = pathlib.Path("/run/bench-lxcfs")
ERRORS = pathlib.Path("/run/bench-lxcfs-errors")
NAME = f"{host.NAME}-views"


def views(bench):
    with contextlib.ExitStack() as stack:
        readers = {bench.ours: stack.enter_context(ours(bench))}
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
        sizes = {name(contender): reader.sizes() for contender, reader in readers.items()}

        def measure(contender):
            return {(pace, file, name(contender)): readers[contender].read(file, times, pace)
                    for pace, times in PACES.items() for file in FILES}

        samples = bench.rounds(readers, measure, rounds=max(3, bench.options.rounds // 3))
    return [table(pace, file, samples, sizes, missing) for pace in PACES for file in FILES]


def table(pace, file, samples, sizes, missing):
    of = {name: [nanoseconds for times in samples.get((pace, file, name), ()) for nanoseconds in times] for name in sizes}
    how = f"once every {pace} ms" if pace else "again and again"
    late = ", ".join(f"{name} {report.text(report.late(values))}" for name, values in of.items() if values)
    size = ", ".join(f"{name} {bytes_of[file]}" for name, bytes_of in sizes.items())
    note = f"99 of 100 take at most: {late}. Bytes: {size}."
    if missing:
        note += " lxcfs was not there to compare with."
    return report.Table(f"reading /proc/{file} in a container with 64 MiB of RAM and one CPU, {how}", "vzctl", of, note)


def name(contender):
    return "lxcfs" if contender.name == "lxc" else contender.name


class Reader:
    """Runs the reader in a container."""

    def __init__(self, enter):
        self.enter = enter

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

    def read(self, file, times, pause):
        return [int(line) for line in self.output("/bin/reader", f"/proc/{file}", str(times), str(pause)).split()]


@contextlib.contextmanager
def ours(bench):
    [number] = bench.numbers(1)
    bench.ours.create(number, "tiny")
    try:
        bench.ours.verb("set", number, "--ram", str(RAM), "--swap", "0", "--cpumask", CPU, "--save")
        bench.ours.verb("start", number)
        try:
            reader = Reader([bench.ours.vzctl, "--quiet", "exec3", number])
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
        *(f"lxc.mount.entry = {MOUNT}/proc/{file} proc/{file} none bind 0 0" for file in FILES),
    ])
    words = ["-P", bench.lxc.path, "-n", NAME]
    bench.lxc.call(["lxc-start", *words])
    try:
        reader = Reader(["lxc-attach", *words, "--"])
        reader.check()
        yield reader
    finally:
        bench.lxc.call(["lxc-stop", *words, "-k"])
