"""Moves of running containers between two hosts: what a client sees, and where the time goes."""

import contextlib
import json
import pathlib
import subprocess
import time

import peers
import report
import second
import trees

HERE = pathlib.Path(__file__).resolve().parent
ADDRESS, PORT = "10.5.0.1", "7"
BOOT = 120
# By their names in the table: the template, MiB of memory, pages that each datagram changes, and the aim in ms.
WORKLOADS = {
    "game server, 16 MiB dirty (tiny)": ("tiny", 16, 16, 100),
    "Debian 12 (systemd), idle": ("debian", 0, 0, 400),
    "Debian 12, 512 MiB slowly changing": ("debian", 512, 1, 600),
}
# The steps of `vzmigrate -t` in which it stands still, in their order.
STEPS = ("freeze", "state", "dump", "complete", "sync", "memory", "prepare", "commit", "start")


class Moving:
    """A container that goes to and fro, and its client."""

    def __init__(self, bench, pair, kind, memory, pages):
        self.bench, self.pair = bench, pair
        self.number, self.at = bench.numbers(1)[0], 0
        ours = bench.ours
        words = ["--layout", "overlay", "--config", "free"]
        ours.verb("create", self.number, "--ostemplate", kind, *words)
        ours.verb("set", self.number, "--ipadd", ADDRESS, "--ram", "1G", "--save")
        begin, _ = ours.verb("start", self.number)
        if kind == "debian":
            peers.wait_for(ours.area(self.number) / "up", BOOT, begin)
        with open(bench.work / "trees/game", "rb") as program:
            line = "cat > /root/game && chmod 755 /root/game"
            subprocess.run([ours.vzctl, "exec2", str(self.number), line], stdin=program, check=True)
        line = f"/root/game {memory} {pages}"
        line = f"systemd-run --quiet {line}" if kind == "debian" else f"({line} </dev/null >/dev/null 2>&1 &)"
        ours.verb("exec2", self.number, line)

    def move(self):
        """To the other host. Returns nanoseconds by name, the object of `--json`, and what the client says."""
        command = [*self.pair.client, "python3", str(HERE / "asker.py"), ADDRESS, PORT]
        asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if asker.stdout.readline() != "answers\n":
                raise peers.Failed("the container answers nothing")
            time.sleep(0.3)
            vzmigrate = str(self.bench.programs / "vzmigrate")
            command = [*self.pair.enter[self.at], vzmigrate, "--online", "--json", *self.pair.way(self.at), str(self.number)]
            run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if run.returncode:
                raise peers.Failed(f"vzmigrate: status {run.returncode}: {run.stderr[-400:]}")
            time.sleep(0.3)
            said, _ = asker.communicate("", timeout=20)
        finally:
            asker.kill()
            asker.wait()
        self.at = 1 - self.at
        return json.loads(run.stdout), json.loads(said)

    def end(self):
        words = [*self.pair.enter[self.at], str(self.bench.ours.vzctl), "--quiet"]
        for verb in (["stop", str(self.number), "--fast"], ["destroy", str(self.number)]):
            subprocess.run([*words, *verb], stdin=subprocess.DEVNULL, check=False)


def prepare(work):
    """On the host: what runs in the containers."""
    trees.run("cc", "-Os", "-static", "-o", work / "trees/game", HERE / "game.c")


@contextlib.contextmanager
def two_hosts(bench, conf):
    pair = second.Pair(bench.work, bench.programs, conf)
    try:
        yield pair
    finally:
        pair.end()


def moves(bench, conf):
    if not pathlib.Path(second.SSHD).exists():
        print("    left out: openssh-server is not installed")
        return []
    rounds = max(2, bench.options.rounds // 3)
    gaps, steps, notes = {}, {}, []
    with two_hosts(bench, conf) as pair:
        for name, (kind, memory, pages, aim) in WORKLOADS.items():
            moving = Moving(bench, pair, kind, memory, pages)
            try:
                lost, bytes_of = [], []
                for turn in range(-2, 2 * rounds):
                    told, seen = moving.move()
                    if turn < 0:
                        continue
                    gaps.setdefault(f"{name}: the client", []).append(seen["gap_ns"])
                    gaps.setdefault(f"{name}: vzmigrate", []).append(told["frozen_ms"] * 1_000_000)
                    for step in STEPS:
                        taken = told["phases_ms"].get(step, 0) * 1_000_000
                        steps.setdefault(step, {}).setdefault(name, []).append(taken)
                    lost.append(seen["lost"])
                    bytes_of.append(told["memory_bytes"])
                notes.append(f"{name}: aim {aim} ms, {report.median(bytes_of) / 1e6:.0f} MB of memory, "
                             f"{report.median(lost):.0f} datagrams lost")
            finally:
                moving.end()
    title = "online moves: the longest time without an answer, at a thousand datagrams a second"
    return [report.Table(title, next(iter(gaps)), gaps, "; ".join(notes) + "."),
            report.Steps("Online moves: where the time goes, medians", steps, "")]
