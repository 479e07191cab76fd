"""What is measured. Contenders take turns in each round, so that whatever else the machine does meets all."""

import os
import pathlib
import shutil
import subprocess
import time

import disk
import host
import moves
import peers
import report
import resources
import trees
import views
from peers import Failed

ALL = ("create", "start", "boot", "exec", "end", "many", "views", "shares", "harm", "disk", "moves")
TINY_UP = 20
DEBIAN_UP = 120


class Bench:
    """One run."""

    def __init__(self, work, programs, options):
        self.work = work
        self.options = options
        self.programs = programs
        self.load = host.machine(work)
        self.contenders = peers.all_of(work, programs)
        self.ours = self.contenders[0]
        self.versions = {contender.name: contender.version() for contender in self.contenders}
        self.there = [contender for contender in self.contenders if self.versions[contender.name]]
        self.lxc = next((contender for contender in self.there if contender.name == "lxc"), None)
        self.next_number = host.FIRST_CTID + 1000
        for kind in ("tiny", "debian"):
            archive = work / f"cache/{kind}.tar.zst"
            if archive.exists():
                shutil.copy(archive, "/vz/template/cache")

    def machine(self):
        return self.load, self.versions

    def run(self):
        """All tables, in order."""
        tables = []
        for name in self.options.only:
            trees.step(f"Measuring: {name}")
            tables += getattr(self, name)()
        return tables

    def numbers(self, count):
        first = self.next_number
        self.next_number += count
        return list(range(first, first + count))

    def rounds(self, contenders, measure, rounds=None, warm_up=1):
        """`measure(contender)` returns name → nanoseconds; one that fails is left out from then on."""
        samples, alive = {}, list(contenders)
        for turn in range(-warm_up, rounds or self.options.rounds):
            for contender in list(alive):
                try:
                    measured = measure(contender)
                except Failed as failure:
                    print(f"    {contender.name} is left out: {failure}")
                    alive.remove(contender)
                    if contender is self.ours:
                        raise SystemExit(f"error: {failure}") from failure
                    continue
                if turn >= 0:
                    for name, value in measured.items():
                        samples.setdefault(name, []).append(value)
        return samples

    def prepared(self, contenders, kind):
        """Those whose container could be made."""
        ready = []
        for contender in contenders:
            try:
                if kind not in contender.prepared:
                    contender.prepare(kind)
                    contender.prepared.add(kind)
                ready.append(contender)
            except (Failed, OSError, subprocess.CalledProcessError) as failure:
                print(f"    {contender.name} is left out: {failure}")
        return ready

    # --- create -----------------------------------------------------------------------------------

    def create(self):
        rounds = self.options.rounds
        if self.lxc:
            self.lxc.prepare_copies("debian")
        unpacked = self.work / "node/unpacked"
        archive = self.work / "cache/debian.tar.zst"

        def vz(kind):
            number = self.numbers(1)[0]
            took = self.ours.create(number, kind)[1]
            return number, took

        samples = {"vzctl create (debian)": [], "vzctl create (tiny)": []}
        # The first one unpacks the template; every later one finds it.
        first = {}
        for kind in ("debian", "tiny"):
            number, first[kind] = vz(kind)
            self.ours.destroy(number)
        for turn in range(rounds):
            for kind in ("debian", "tiny"):
                number, took = vz(kind)
                samples[f"vzctl create ({kind})"].append(took)
                self.ours.destroy(number)
            if self.lxc:
                self.lxc_copy(samples, f"{host.NAME}-copy-{turn}")
            if turn < max(5, rounds // 6):
                unpacked.parent.mkdir(parents=True, exist_ok=True)
                begin = time.time_ns()
                trees.unpack(archive, unpacked)
                samples.setdefault("tar -x (GNU tar, zstd)", []).append(time.time_ns() - begin)
                shutil.rmtree(unpacked)
        size = trees.size(self.work / "trees/debian") // 1_000_000
        ratio = report.median(samples["vzctl create (debian)"]) / report.median(samples["vzctl create (tiny)"])
        title = f"create from the Debian template ({size} MB unpacked)"
        note = (f"Tiny and Debian alike: {ratio:.2f} times. The first VE of a template unpacks it: "
                f"{first['debian'] / 1e9:.1f} s here, once.")
        return [report.Table(title, "vzctl create (debian)", samples, note)]

    def lxc_copy(self, samples, name):
        try:
            took = self.lxc.copy("debian", name)[1]
            self.lxc.destroy(name)
        except Failed as failure:
            print(f"    lxc-copy is left out: {failure}")
            self.lxc = None
            return
        samples.setdefault("lxc-copy (overlay snapshot)", []).append(took)

    # --- start, boot ------------------------------------------------------------------------------

    def start(self):
        others = [peers.Ours(self.work, self.programs, layout) for layout in ("overlay", "simfs")]
        contenders = self.prepared([*self.there, *others], "tiny")
        ends = {}

        def measure(contender):
            took, returned = contender.started("tiny", "stamp", TINY_UP)
            contender.stop("tiny")
            if contender.name != "systemd-nspawn":
                ends.setdefault(contender.name, []).append(returned)
            return {contender.name: took}

        samples = self.rounds(contenders, measure)
        title = "start of a tiny container: from the command to init's first instruction"
        note = "Until the command returns: " + ", ".join(
            f"{name} {report.text(report.median(values))}" for name, values in ends.items()) + "."
        return [report.Table(title, "vzctl", samples, note)]

    def boot(self):
        wanted = [contender for contender in self.there if contender.boots]
        contenders = self.prepared(wanted, "debian")
        states = {}

        def measure(contender):
            took, _ = contender.started("debian", "up", DEBIAN_UP)
            states[contender.name] = (contender.tree("debian") / "up.state").read_text().strip()
            contender.stop("debian")
            return {contender.name: took}

        samples = self.rounds(contenders, measure, rounds=max(5, self.options.rounds // 2))
        note = "State then: " + ", ".join(f"{name} {state}" for name, state in states.items()) + "."
        title = "boot of Debian 12 (systemd): from the command until `systemctl is-system-running --wait` returns inside"
        return [report.Table(title, "vzctl", samples, note)]

    # --- exec -------------------------------------------------------------------------------------

    def exec(self):
        contenders = self.prepared([contender for contender in self.there if contender.execs], "tiny")
        running = []
        for contender in contenders:
            contender.started("tiny", "stamp", TINY_UP)
            running.append(contender)
        pid = self.ours.state(self.ours.number("tiny"))["init"]["pid"]
        samples = {"nsenter -a": []}

        def measure(contender):
            if contender is self.ours:
                samples["nsenter -a"].append(peers.timed(["nsenter", "-a", "-t", str(pid), "/bin/true"])[1])
            return {contender.name: contender.execute("tiny")}

        samples.update(self.rounds(running, measure, rounds=4 * self.options.rounds))
        for contender in running:
            contender.stop("tiny")
        names = {"vzctl": "vzctl exec", "lxc": "lxc-attach", "crun": "crun exec"}
        samples = {names.get(name, name): values for name, values in samples.items()}
        note = ("`vzctl exec` runs the container's shell (`sh -c true`) in its cgroups, with seccomp, and carries its "
                "output; `nsenter -a` joins the namespaces alone and runs the program itself.")
        return [report.Table("exec of `true` in a tiny container", "vzctl exec", samples, note)]

    # --- stop, destroy ----------------------------------------------------------------------------

    def end(self):
        contenders = self.prepared([c for c in self.there if c.name != "systemd-nspawn"], "tiny")

        def stop(contender):
            contender.started("tiny", "stamp", TINY_UP)
            return {contender.name: contender.stop("tiny")}

        names = {"vzctl": "vzctl stop --fast", "lxc": "lxc-stop -k", "crun": "crun delete -f"}
        stops = {names[name]: values for name, values in self.rounds(contenders, stop).items()}
        simfs = peers.Ours(self.work, self.programs, "simfs")
        unpacked = self.work / "node/unpacked"
        destroys = {"vzctl destroy (overlay)": [], "vzctl destroy (plain directory)": [], "rm -rf of the same tree": []}
        for turn in range(max(5, self.options.rounds // 3)):
            for contender, name in ((self.ours, "vzctl destroy (overlay)"), (simfs, "vzctl destroy (plain directory)")):
                number = self.numbers(1)[0]
                contender.create(number, "debian")
                destroys[name].append(contender.destroy(number))
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            trees.unpack(self.work / "cache/debian.tar.zst", unpacked)
            destroys["rm -rf of the same tree"].append(peers.timed(["rm", "-rf", str(unpacked)])[1])
        return [
            report.Table("stop of a tiny container by force", "vzctl stop --fast", stops, ""),
            report.Table("destroy of a Debian container", "vzctl destroy (overlay)", destroys,
                         "Deletion goes on in the background after destroy has returned."),
        ]

    # --- many -------------------------------------------------------------------------------------

    def many(self):
        numbers = self.numbers(self.options.ves)
        with host.fresh(self.work, "/vz/private"):
            times, memory, ends, readings = self.crowd(numbers)
        group = max(2, min(10, len(times) // 4))
        samples = {f"the first {group}": times[:group], f"the last {group}": times[-group:]}
        ratio = report.median(times[-group:]) / report.median(times[:group])
        note = (f"The last are started {ratio:.2f} times as long as the first. Private memory of a VE's monitor: median "
                f"{report.median(memory) // 1024} KiB, largest {max(memory) // 1024} KiB. "
                f"stop --fast of each: median {report.text(report.median(ends))}, largest {report.text(max(ends))}.")
        title = f"{len(numbers)} tiny VEs running at once: start, from the command to init's first instruction"
        table = "cat /run/vz/proc/user_beancounters"
        return [report.Table(title, f"the last {group}", samples, note),
                report.Table(f"{len(numbers)} tiny VEs running at once: to read about all of them", table, readings, "")]

    def crowd(self, numbers):
        """Nanoseconds of each start, bytes of each monitor, nanoseconds of each stop, and of reading about
        all."""
        for number in numbers:
            self.ours.create(number, "tiny")
        # As in the other measurements, the first start of all is not counted.
        self.ours.verb("start", numbers[0])
        peers.wait_for(self.ours.area(numbers[0]) / "stamp", TINY_UP)
        self.ours.stop_number(numbers[0])
        times = []
        for number in numbers:
            begin, _ = self.ours.verb("start", number)
            times.append(peers.wait_for(self.ours.area(number) / "stamp", TINY_UP, begin) - begin)
        memory = [private(self.ours.state(number)["monitor"]["pid"]) for number in numbers]
        readings = self.readings()
        ends = []
        for number in numbers:
            ends.append(self.ours.stop_number(number))
            self.ours.destroy(number)
        return times, memory, ends, readings

    def readings(self):
        """Nanoseconds, by command."""
        lines = [["cat", "/run/vz/proc/user_beancounters"], ["vzubc"], ["vzlist"], ["vzmetrics"]]
        samples = {}
        for _ in range(max(5, self.options.rounds // 3)):
            for line in lines:
                program = line[0] if line[0] == "cat" else str(self.ours.vzctl.with_name(line[0]))
                _, nanoseconds = peers.timed([program, *line[1:]])
                samples.setdefault(" ".join(line), []).append(nanoseconds)
        return samples

    # --- reading the container's own /proc ----------------------------------------------------------

    def views(self):
        return views.views(self)

    # --- shares of CPU time, harm -------------------------------------------------------------------

    def shares(self):
        return resources.shares(self, len(os.sched_getaffinity(0)))

    def harm(self):
        return resources.harm(self)

    # --- files, backups, archives -------------------------------------------------------------------

    def disk(self):
        return disk.disk(self)

    # --- online moves -------------------------------------------------------------------------------

    def moves(self):
        return moves.moves(self, pathlib.Path(__file__).resolve().parents[2] / "packaging/conf")


def private(pid):
    """Bytes of a process that no other shares."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))
