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
# Reads of one file in one go, one after the other.
READS = 1000
# Reads with a pause before each, longer than ours shows the same text for: it is made anew each time.
LONE, PAUSE = 20, 60
MOUNT = pathlib.Path("/run/bench-lxcfs")
NAME = f"{host.NAME}-views"


def views(bench):
    readers = {"vzctl": ours(bench)}
    with contextlib.ExitStack() as stack:
        number = readers["vzctl"].number
        stack.callback(bench.ours.destroy, number)
        stack.callback(bench.ours.stop_number, number)
        if bench.lxc and shutil.which("lxcfs"):
            try:
                stack.enter_context(lxcfs())
                readers["lxcfs"] = stack.enter_context(lxc(bench))
            except (Failed, OSError, subprocess.CalledProcessError) as failure:
                print(f"    lxcfs is left out: {failure}")
        else:
            print("    lxcfs is left out: it, or LXC, is not installed")
        for reader in readers.values():
            reader.check()
        samples = {file: {name: [] for name in readers} for file in FILES}
        lone = {name: [] for name in readers}
        for _ in range(max(3, bench.options.rounds // 3)):
            for file in FILES:
                for name, reader in readers.items():
                    samples[file][name] += reader.read(file, READS, 0)
            for name, reader in readers.items():
                lone[name] += reader.read("meminfo", LONE, PAUSE)
    note = "" if "lxcfs" in readers else "lxcfs was not there to compare with."
    of = "inside, of a container with 64 MiB of RAM and one CPU"
    tables = [report.Table(f"reading /proc/{file} {of}", "vzctl", of_file, note) for file, of_file in samples.items()]
    return [*tables, report.Table(f"reading /proc/meminfo {of}, once every {PAUSE} ms", "vzctl", lone, note)]


class Reader:
    """Runs the reader in a container."""

    def __init__(self, enter, number=None):
        self.enter = enter
        self.number = number

    def output(self, *command):
        done = subprocess.run([*map(str, self.enter), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise Failed(f"{command}: status {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def check(self):
        """That it is the container's own, or the comparison would be of something else."""
        meminfo, cpuinfo = self.output("/bin/cat", "/proc/meminfo"), self.output("/bin/cat", "/proc/cpuinfo")
        total = int(meminfo.split("MemTotal:")[1].split()[0]) * 1024
        cpus = cpuinfo.count("processor\t")
        if total != RAM or cpus != 1:
            raise SystemExit(f"error: {self.enter[0]} shows {total} bytes of RAM and {cpus} CPUs")

    def read(self, file, times, pause):
        return [int(line) for line in self.output("/bin/reader", f"/proc/{file}", str(times), str(pause)).split()]


def ours(bench):
    [number] = bench.numbers(1)
    bench.ours.create(number, "tiny")
    bench.ours.verb("set", number, "--ram", str(RAM), "--swap", "0", "--cpulimit", "100", "--save")
    bench.ours.verb("start", number)
    return Reader([bench.ours.vzctl, "--quiet", "exec3", number], number)


@contextlib.contextmanager
def lxcfs():
    MOUNT.mkdir(exist_ok=True)
    process = subprocess.Popen(["lxcfs", "-f", str(MOUNT)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not (MOUNT / "proc/meminfo").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed("it does not come up")
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
        f"lxc.{cgroup}.cpuset.cpus = 0",
        *(f"lxc.mount.entry = {MOUNT}/proc/{file} proc/{file} none bind 0 0" for file in FILES),
    ])
    words = ["-P", bench.lxc.path, "-n", NAME]
    bench.lxc.call(["lxc-start", *words])
    try:
        yield Reader(["lxc-attach", *words, "--"])
    finally:
        bench.lxc.call(["lxc-stop", *words, "-k"])
