"""The contenders: how each of them starts, enters and ends a container of the same trees.

All containers have namespaces of their own for users, mounts, processes, IPC, host name, network (only
its loopback device) and cgroups, and cgroups of their own. Ours have a time namespace besides, seccomp and
limits; LXC's have seccomp. systemd-nspawn runs without registration, in its caller's cgroup.
"""

import concurrent.futures
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import host
import trees

PACKAGES = ("lxc", "lxcfs", "crun", "systemd-container", "fio")
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A command failed: the contender is left out of the measurement."""


def install():
    """Installs the peers that are missing, and what measures disks, where that is possible."""
    if not shutil.which("apt-get"):
        return
    programs = {"lxc": "lxc-start", "lxcfs": "lxcfs", "crun": "crun", "systemd-container": "systemd-nspawn",
                "fio": "fio"}
    missing = [package for package in PACKAGES if not shutil.which(programs[package])]
    if not missing:
        return
    trees.step(f"Installing {' '.join(missing)}, to compare with or to measure by")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for package in missing:
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            print(f"    {package} cannot be installed and is left out")


def timed(command):
    """Runs a command; nanoseconds from before it is started until it has ended."""
    # Not a pipe: a daemon that keeps it open would hold us.
    with open("/run/bench-errors", "w+b") as errors:
        begin = time.time_ns()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        status = process.wait()
        end = time.time_ns()
        if status:
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()
            raise Failed(f"{' '.join(map(str, command))}: status {status}: {text[-400:]}")
    return begin, end - begin


def wait_for(path, seconds, after=0):
    """Nanoseconds that a file in a container says; what it said before `after` is of an earlier start."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            text = path.read_text()
            if text and int(text) > after:
                return int(text)
        except (FileNotFoundError, ValueError):
            pass
        if time.monotonic() > deadline:
            raise Failed(f"{path} did not appear in {seconds} s")
        time.sleep(0.001)


class Contender:
    """One way to run a container. `tree` is where its root is on disk, for what its init writes."""

    name = ""
    program = ""
    boots = True
    execs = True

    def __init__(self, work):
        self.work = work
        self.prepared = set()

    def version(self):
        return host.output([self.program, "--version"]).splitlines()[0] if shutil.which(self.program) else None

    def call(self, command):
        return timed([str(word) for word in command])

    def prepare(self, kind):
        """Makes the container of a tree; before the measurement."""

    def start(self, kind):
        raise NotImplementedError

    def started(self, kind, mark, seconds):
        """Starts it; nanoseconds until the mark was written in it, and until the command returned."""
        path = self.tree(kind) / mark
        begin, returned = self.start(kind)
        return wait_for(path, seconds, begin) - begin, returned

    def tree(self, kind):
        return self.work / "trees" / kind

    def execute(self, kind):
        """Runs `true` in the running container; nanoseconds."""
        raise NotImplementedError

    def stop(self, kind):
        """Kills it; nanoseconds."""
        raise NotImplementedError


class Ours(Contender):
    name = "vzctl"

    def __init__(self, work, programs, layout):
        super().__init__(work)
        self.vzctl = programs / "vzctl"
        self.layout = layout
        self.numbers = {}
        if layout != "auto":
            self.name = f"vzctl ({layout})"

    def version(self):
        return host.output([str(self.vzctl), "--version"])

    def number(self, kind):
        if kind not in self.numbers:
            offset = {"auto": 0, "overlay": 5_000, "simfs": 10_000}[self.layout]
            self.numbers[kind] = host.FIRST_CTID + offset + 1 + len(self.numbers)
        return self.numbers[kind]

    def verb(self, verb, number, *more):
        return self.call([self.vzctl, "--quiet", verb, number, *more])

    def create(self, number, kind):
        limits = [] if self.layout == "auto" else ["--config", "free"]
        return self.verb("create", number, "--ostemplate", kind, "--layout", self.layout, *limits)

    def prepare(self, kind):
        self.create(self.number(kind), kind)

    def start(self, kind):
        return self.verb("start", self.number(kind))

    def tree(self, kind):
        return self.area(self.number(kind))

    @staticmethod
    def area(number):
        """What it holds is seen where it is mounted, whatever its layout."""
        return pathlib.Path("/vz/root") / str(number)

    def execute(self, kind):
        return self.verb("exec", self.number(kind), "true")[1]

    def stop(self, kind):
        return self.stop_number(self.number(kind))

    def stop_number(self, number):
        return self.verb("stop", number, "--fast")[1]

    def destroy(self, number):
        return self.verb("destroy", number)[1]

    @staticmethod
    def state(number):
        return json.loads(pathlib.Path(f"/run/vz/{number}/state.json").read_text())


class Lxc(Contender):
    name = "lxc"
    program = "lxc-start"
    SHARE = "/usr/share/lxc/config"

    def __init__(self, work):
        super().__init__(work)
        self.path = work / "node/lxc"

    @staticmethod
    def container(kind):
        return f"{host.NAME}-{kind}"

    def lxc(self, program, kind, *more):
        return self.call([program, "-P", self.path, "-n", self.container(kind), *more])

    def prepare(self, kind):
        self.configure(self.container(kind), kind, [
            "lxc.rootfs.options = idmap=container",
            f"lxc.idmap = u 0 {trees.SHIFT} 65536",
            f"lxc.idmap = g 0 {trees.SHIFT} 65536",
            f"lxc.include = {self.SHARE}/userns.conf",
        ])

    def configure(self, name, kind, more):
        directory = self.path / name
        directory.mkdir(parents=True, exist_ok=True)
        # lxc-copy wants the container's name in the path.
        root = pathlib.Path("/run/bench-roots") / name
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", f"/run/bench/trees/{kind}", root], check=True)
        lines = [
            f"lxc.uts.name = {kind}",
            f"lxc.rootfs.path = dir:{root}",
            "lxc.net.0.type = empty",
            f"lxc.include = {self.SHARE}/common.conf",
            "lxc.init.cmd = /sbin/init",
            *more,
        ]
        (directory / "config").write_text("\n".join(lines) + "\n")

    def start(self, kind):
        return self.lxc("lxc-start", kind)

    def execute(self, kind):
        return self.lxc("lxc-attach", kind, "--", "/bin/true")[1]

    def stop(self, kind):
        return self.lxc("lxc-stop", kind, "-k")[1]

    def prepare_copies(self, kind):
        """A container to copy, without mapped ids: lxc-copy cannot make an overlay over one with them."""
        self.configure(self.source(kind), kind, [])

    def source(self, kind):
        return f"{self.container(kind)}-source"

    def copy(self, kind, name):
        """A snapshot clone: an overlay over the container."""
        return self.call(["lxc-copy", "-P", self.path, "-n", self.source(kind), "-N", name, "-s", "-B", "overlay"])

    def destroy(self, name):
        return self.call(["lxc-destroy", "-P", self.path, "-n", name])[1]


class Crun(Contender):
    name = "crun"
    program = "crun"
    boots = False

    def __init__(self, work):
        super().__init__(work)
        # It refuses hybrid cgroups. Its commands start from a thread that does not see the v2 hierarchy.
        self.thread = concurrent.futures.ThreadPoolExecutor(1, initializer=self.hide_unified)

    @staticmethod
    def hide_unified():
        unified = host.CGROUP / "unified"
        if not unified.is_dir():
            return
        new_mount_namespace = 0x00020000
        if LIBC.unshare(new_mount_namespace) or LIBC.umount2(bytes(unified), 0):
            raise OSError(ctypes.get_errno(), "cannot hide the v2 hierarchy from crun")

    def call(self, command):
        return self.thread.submit(timed, [str(word) for word in command]).result()

    def tree(self, kind):
        # It cannot map the ids of a root file system.
        return self.work / "trees" / f"{kind}-shifted"

    def bundle(self, kind):
        return self.work / "node/crun" / kind

    def crun(self, *words):
        return self.call(["crun", "--cgroup-manager=cgroupfs", *words])

    def prepare(self, kind):
        bundle = self.bundle(kind)
        bundle.mkdir(parents=True, exist_ok=True)
        subprocess.run(["crun", "spec"], cwd=bundle, check=True)
        file = bundle / "config.json"
        config = json.loads(file.read_text())
        config["process"].update(terminal=False, args=["/sbin/init"])
        config["root"] = {"path": f"/run/bench/trees/{kind}-shifted", "readonly": False}
        kinds = ("user", "mount", "pid", "ipc", "uts", "network", "cgroup")
        mapping = [{"containerID": 0, "hostID": trees.SHIFT, "size": 65536}]
        config["linux"].update(
            namespaces=[{"type": kind} for kind in kinds],
            uidMappings=mapping,
            gidMappings=mapping,
            cgroupsPath=f"/{host.NAME}-crun-{kind}",
        )
        file.write_text(json.dumps(config))

    def name_of(self, kind):
        return f"{host.NAME}-{kind}"

    def start(self, kind):
        return self.crun("run", "--detach", "--bundle", self.bundle(kind), self.name_of(kind))

    def execute(self, kind):
        return self.crun("exec", self.name_of(kind), "/bin/true")[1]

    def stop(self, kind):
        return self.crun("delete", "--force", self.name_of(kind))[1]


class Nspawn(Contender):
    name = "systemd-nspawn"
    program = "systemd-nspawn"
    execs = False

    def __init__(self, work):
        super().__init__(work)
        self.running = {}

    def start(self, kind):
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--private-network",
            f"--private-users={trees.SHIFT}", "--private-users-ownership=map",
            f"--machine={host.NAME}-{kind}", f"--directory={self.tree(kind)}", "/sbin/init",
        ]
        begin = time.time_ns()
        null = subprocess.DEVNULL
        self.running[kind] = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)
        # It stays in the foreground.
        return begin, 0

    def stop(self, kind):
        process = self.running.pop(kind)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        begin = time.time_ns()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        process.wait()
        return time.time_ns() - begin


def all_of(work, programs):
    return [Ours(work, programs, "auto"), Lxc(work), Crun(work), Nspawn(work)]
