"""The throw-away host of the measurements, and what goes away after them."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

# Far from anybody's numbers; `venet` and this fit into a device's name.
FIRST_CTID = 990_000_000
# Peers' containers and cgroups begin with this.
NAME = "vzbench"
CGROUP = pathlib.Path("/sys/fs/cgroup")


def work_dir(top):
    """Where trees and containers lie: on the checkout's file system by default."""
    work = pathlib.Path(os.environ.get("VZBENCH_DIR", top / "target/vzbench"))
    work.mkdir(parents=True, exist_ok=True)
    return work.resolve()


def bin_dir():
    directory = os.environ.get("VZ_BIN_DIR")
    if not directory or not (pathlib.Path(directory) / "vzctl").exists():
        raise SystemExit("error: VZ_BIN_DIR does not name the directory of the programs; use: make bench")
    return pathlib.Path(directory).resolve()


def isolated(command):
    """The shell is the first process of the pid namespace: with it ends everything that was started."""
    unshare = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    return ["setpriv", "--pdeathsig", "KILL", "--", *unshare, "/bin/sh", "-c", '"$@"; exit $?', NAME, *command]


def furnish(work, conf, name="host"):
    """Inside: the product's directories fresh, and peers' state out of the host's sight."""
    own = work / name
    for path in ("/etc/vz", "/vz", "/var/lib/vzctl"):
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
        source = own / path.strip("/").replace("/", "_")
        source.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", source, path], check=True)
    for path in ("/run", "/var/log"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)
    for path in ("/etc/vz/conf", "/etc/vz/names", "/etc/vz/dists", "/vz/root", "/vz/private", "/vz/template/cache",
                 "/vz/lock", "/vz/dump", "/run/vz", "/run/lock"):
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    for file in conf.iterdir():
        shutil.copy(file, "/etc/vz" if file.name == "vz.conf" else "/etc/vz/conf")
    # Without limits of the disk, for layouts that may keep none here.
    usual = (conf / "ve-vswap-256m.conf-sample").read_text().splitlines()
    free = [line for line in usual if not line.startswith("DISK")]
    pathlib.Path("/etc/vz/conf/ve-free.conf-sample").write_text("\n".join(free) + "\n")
    # The work directory may lie where a container's root may not look.
    pathlib.Path("/run/bench").mkdir()
    subprocess.run(["mount", "--bind", work, "/run/bench"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextlib.contextmanager
def fresh(work, path):
    """A new ext4 on this directory for a while. On one without a journal where much was deleted lately, each new inode
    is looked for among those for minutes (`recently_deleted` in fs/ext4/ialloc.c): that would be measured instead."""
    image = work / "fresh.img"
    with open(image, "wb") as file:
        file.truncate(4 << 30)
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)],
                       check=True)
        subprocess.run(["mount", "-o", "loop", str(image), path], check=True)
        try:
            yield
        finally:
            # What was destroyed may still be on its way out.
            deadline = time.monotonic() + 30
            while subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode:
                if time.monotonic() > deadline:
                    raise SystemExit(f"error: {path} is still in use")
                time.sleep(0.05)
    finally:
        image.unlink()


def clear(work):
    """Removes what a run, finished or killed, has left: its cgroups and its containers."""
    deadline = time.monotonic() + 20
    while cgroups() and time.monotonic() < deadline:
        for directory in cgroups():
            try:
                directory.rmdir()
            except OSError:
                time.sleep(0.01)
    (work / "fresh.img").unlink(missing_ok=True)
    for part in ("host", "second", "node"):
        shutil.rmtree(work / part, ignore_errors=True)


def cgroups():
    """Our cgroups in every hierarchy, children first."""
    found = []
    for path, directories, _ in os.walk(CGROUP):
        here = pathlib.Path(path)
        for name in directories:
            number = name.isdecimal() and int(name) >= FIRST_CTID and here.name == "vz"
            if number or NAME in name:
                found += [pathlib.Path(below) for below, _, _ in os.walk(here / name)]
    return sorted(set(found), key=lambda path: -len(path.parts))


def machine(work):
    """One line about this machine."""
    def lines(path):
        try:
            return pathlib.Path(path).read_text().splitlines()
        except OSError:
            return []

    model = next((line.split(":")[1].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = int(lines("/proc/meminfo")[0].split()[1]) // 1024 // 1024
    file_system = output(["stat", "-f", "-c", "%T", str(work)])
    kind = output(["stat", "-f", "-c", "%T", str(CGROUP)])
    cgroup = "v2" if kind == "cgroup2fs" else "hybrid" if (CGROUP / "unified").is_dir() else "v1"
    return (f"{model}, {os.cpu_count()} CPUs, {memory} GiB, kernel {os.uname().release}, {file_system}, "
            f"cgroup {cgroup}, load {os.getloadavg()[0]:.1f} at the start")


def output(command):
    """What a program prints, or nothing when it is not there."""
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (run.stdout or run.stderr).strip()
