"""A second host beside the throw-away one, an sshd on each, and a client on a network that both are on.

    first                                     second
    10.98.0.1 cable ───────── veth ────────── cable 10.98.0.2      the move's connection
    10.5.0.101 lan ──── br0 10.5.0.100 ────── lan 10.5.0.102       the client's network
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import host

ADDRESSES = ("10.98.0.1", "10.98.0.2")
GROUP = f"{host.NAME}-second"
SSHD = "/usr/sbin/sshd"
# Cgroups of its own, which are a whole tree to who is in them: as the tests' second host.
ENTER = (pathlib.Path(__file__).resolve().parents[1] / "src/enter.sh").read_text()
UNSHARE = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--"]
# The same files below each hierarchy's place for it.
ITS_CGROUPS = r"""
set -e
mkdir /tmp/cgroups.$$ && mount --rbind /sys/fs/cgroup /tmp/cgroups.$$
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mount --bind "/tmp/cgroups.$$/vz/$1" /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for dir in /tmp/cgroups.$$/*/; do
        name=$(basename "$dir")
        [ -d "$dir/vz/$1" ] || continue
        mkdir "/sys/fs/cgroup/$name" && mount --bind "$dir/vz/$1" "/sys/fs/cgroup/$name"
    done
    for link in /tmp/cgroups.$$/*; do
        if [ -L "$link" ]; then cp -P "$link" /sys/fs/cgroup/; fi
    done
fi
umount -l /tmp/cgroups.$$ && rmdir /tmp/cgroups.$$
"""


def sh(*words, **more):
    subprocess.run([str(word) for word in words], check=True, stdin=subprocess.DEVNULL, **more)


class Pair:
    """Both hosts. `enter` of each is what a command line begins with that is for it."""

    def __init__(self, work, programs, conf):
        self.work, self.programs = work, programs
        self.ssh = work / "node/ssh"
        shutil.rmtree(self.ssh, ignore_errors=True)
        self.ssh.mkdir(parents=True)
        self.children = []
        init = self.first_process(["/bin/sh", "-c", ENTER, "enter", GROUP, *UNSHARE, "sleep", "1000000"])
        self.second = ["nsenter", f"--target={init}", "--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--"]
        sh(*self.second, "mount", "-t", "proc", "proc", "/proc")
        sh(*self.second, "/bin/sh", "-c", ITS_CGROUPS, "cgroups", GROUP)
        sh(*self.second, "python3", "-B", pathlib.Path(__file__), work, conf)
        self.enter = ([], self.second)
        self.client = self.lan(init)
        self.cable(init)
        self.keys()
        for number in (0, 1):
            self.sshd(number)
        for number in (0, 1):
            self.wait_for_sshd(number)

    def first_process(self, command):
        """The first process of namespaces that a command makes: it sleeps."""
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.children.append(child)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            if found and pathlib.Path(f"/proc/{found[0]}/comm").read_text() == "sleep\n":
                return int(found[0])
            time.sleep(0.01)
        raise SystemExit("error: the second host does not begin")

    def cable(self, init):
        sh("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", init)
        for enter, address in zip(self.enter, ADDRESSES):
            sh(*enter, "ip", "address", "add", f"{address}/24", "dev", "cable")
            sh(*enter, "ip", "link", "set", "cable", "up")

    def lan(self, init):
        """The client's network, and a way into it."""
        client = self.first_process(["unshare", "--net", "--fork", "--kill-child=KILL", "--", "sleep", "1000000"])
        inside = ["nsenter", f"--target={client}", "--net", "--"]
        sh(*inside, "ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        sh(*inside, "ip", "address", "add", "10.5.0.100/24", "dev", "br0")
        sh(*inside, "ip", "link", "set", "br0", "up")
        for enter, port, address in zip(self.enter, "ab", ("10.5.0.101/24", "10.5.0.102/24")):
            sh("ip", "link", "add", f"lan{port}", "type", "veth", "peer", "name", port, "netns", client)
            sh(*inside, "ip", "link", "set", "dev", port, "master", "br0", "up")
            if enter:
                sh("ip", "link", "set", "dev", f"lan{port}", "netns", init)
            sh(*enter, "ip", "link", "set", "dev", f"lan{port}", "name", "lan")
            sh(*enter, "ip", "address", "add", address, "dev", "lan")
            sh(*enter, "ip", "link", "set", "dev", "lan", "up")
            sh(*enter, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        return inside

    def keys(self):
        for name in ("host", "user"):
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh / name)
        key = (self.ssh / "host.pub").read_text()
        (self.ssh / "known").write_text("".join(f"{address} {key}" for address in ADDRESSES))
        (self.ssh / "config").write_text(
            f"Host *\nUser root\nIdentityFile {self.ssh}/user\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {self.ssh}/known\nStrictHostKeyChecking yes\n")

    def sshd(self, number):
        enter = self.enter[number]
        # A user of its own, and root not locked; only these two hosts see it.
        for name, change in (("passwd", lambda text: text if "\nsshd:" in text else
                              text + "sshd:x:114:65534::/run/sshd:/usr/sbin/nologin\n"),
                             ("shadow", lambda text: text.replace("root:!", "root:*"))):
            copy = self.ssh / f"{name}-{number}"
            copy.write_text(change(pathlib.Path(f"/etc/{name}").read_text()))
            sh(*enter, "mount", "--bind", copy, f"/etc/{name}")
        config = self.ssh / f"sshd-{number}"
        config.write_text(
            f"ListenAddress {ADDRESSES[number]}\nHostKey {self.ssh}/host\nAuthorizedKeysFile {self.ssh}/user.pub\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
            f"SetEnv PATH={self.programs}:/usr/sbin:/usr/bin:/sbin:/bin\n")
        line = f"mkdir -p /run/sshd && exec {SSHD} -D -f {config} -E {self.ssh}/log-{number}"
        self.children.append(subprocess.Popen([*enter, "/bin/sh", "-c", line], stdin=subprocess.DEVNULL,
                                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def way(self, number):
        """The options of vzmigrate on this host towards the other one, and that one's address."""
        return [f"--ssh=-F {self.ssh}/config", ADDRESSES[1 - number]]

    def shell(self, number, line):
        """A command line for the other host of this one, by ssh."""
        return [*self.enter[number], "ssh", "-F", str(self.ssh / "config"), ADDRESSES[1 - number], line]

    def wait_for_sshd(self, number):
        deadline = time.monotonic() + 20
        while subprocess.run(self.shell(number, "true"), stdin=subprocess.DEVNULL, capture_output=True,
                             check=False).returncode:
            if time.monotonic() > deadline:
                raise SystemExit(f"error: no sshd answers; see {self.ssh}/log-{1 - number}")
            time.sleep(0.05)

    def end(self):
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            child.wait()


def furnish():
    """On the second host, once: as the first is."""
    import sys

    work, conf = map(pathlib.Path, sys.argv[1:])
    for path in ("/etc/vz", "/vz", "/var/lib/vzctl", "/run/bench", "/run", "/var/log"):
        while os.path.ismount(path):
            sh("umount", "-l", path)
    host.furnish(work, conf, "second")


if __name__ == "__main__":
    furnish()
