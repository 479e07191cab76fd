"""One virtual machine: its qemu, its disks, and the agent in it."""

import glob
import json
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time

MEMORY = 4096  # MiB
QEMU = "qemu-system-x86_64"
# A kernel that does not say so within this time does not run under hardware virtualisation.
PROBE = 20


class Hung(Exception):
    """The machine did not do in time what it had to."""


class Ended(Exception):
    """The machine went down by itself: its kernel, or qemu."""


def accelerator(kernel, cache):
    """kvm when this kernel really runs with it, else tcg. Asked once per boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        name = os.path.join(cache, f"accelerator-{os.path.basename(kernel)}-{file.read().strip()}")
    if os.path.exists(name):
        with open(name, encoding="ascii") as file:
            return file.read().strip()
    for old in glob.glob(os.path.join(cache, f"accelerator-{os.path.basename(kernel)}-*")):
        os.unlink(old)
    answer = "kvm" if os.access("/dev/kvm", os.W_OK) and _kvm_runs(kernel) else "tcg"
    with open(name + ".new", "w", encoding="ascii") as file:
        file.write(answer)
    os.rename(name + ".new", name)
    return answer


def _kvm_runs(kernel):
    line = [QEMU, "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-serial", "stdio", *_boot(kernel, "console=ttyS0 panic=-1 vm.probe")]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"vm: the kernel runs" in done.stdout


def _boot(kernel, arguments):
    return ["-kernel", os.path.join(kernel, "vmlinuz"), "-initrd", os.path.join(kernel, "initrd"), "-append", arguments]


class Machine:
    """A machine from its start to its end; used by `with`."""

    def __init__(self, cache, root, kernel, payload, *, number=1, link=None, console=None, shell=False):
        self.work = tempfile.mkdtemp(prefix="vm-")
        self.console = console or os.path.join(self.work, "console")
        self.release = None
        self._next = 0
        self._answers = {}
        self._lock = threading.Lock()
        self.dead = threading.Event()
        self.accelerator = accelerator(kernel, cache)
        line = self._line(root, kernel, payload, number, link, shell)
        try:
            self._listen = socket.socket(socket.AF_UNIX)
            self._listen.bind(self._agent)
            self._listen.listen(1)
            self._qemu = subprocess.Popen(line, stdin=None if shell else subprocess.DEVNULL)
        except BaseException:
            shutil.rmtree(self.work, ignore_errors=True)
            raise

    def _line(self, root, kernel, payload, number, link, shell):
        self._agent = os.path.join(self.work, "agent")
        # Emulated on a busy host, the timer may come too late for the check of it, and the kernel panics.
        words = "console=ttyS0 root=/dev/vda panic=-1 mitigations=off no_timer_check quiet"
        if link:
            # A name that the device has from the start.
            words += f" net.ifnames=0 vm.number={number}"
        cpu = "host" if self.accelerator == "kvm" else "max"
        # Before 8.1, qemu's emulated processors may go on executing code that another one has changed when each has a
        # thread of its own: a kernel that patches its busy paths (jump labels) dies of a breakpoint that is long gone.
        accelerator = "tcg,thread=single" if self.accelerator == "tcg" else self.accelerator
        line = [QEMU, "-accel", accelerator, "-cpu", cpu, "-smp", "2", "-m", str(MEMORY), "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot", *_boot(kernel, words),
                "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self._agent}",
                "-device", "virtserialport,chardev=agent,name=agent",
                "-serial", "mon:stdio" if shell else f"file:{self.console}"]
        disks = [("root", f"{root}/root.img"), ("modules", f"{kernel}/modules.img"), ("payload", payload)]
        disks += [(kind, f"{root}/disk-{kind}.img") for kind in ("ext4", "xfs", "btrfs")]
        for name, image in disks:
            # Writes go to a file of this run's own, which has no name.
            line += ["-drive", f"id={name},file={image},format=raw,if=none,snapshot=on,cache=unsafe",
                     "-device", f"virtio-blk-pci,drive={name},serial={name}"]
        if link:
            # Datagrams: neither machine waits for the other, and none is lost to a connection that came too early.
            line += ["-netdev", f"dgram,id=link,local.type=unix,local.path={link}/{number},"
                                f"remote.type=unix,remote.path={link}/{3 - number}",
                     "-device", f"virtio-net-pci,netdev=link,mac=52:54:00:00:00:0{number},romfile="]
        return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        """Nothing of it is left."""
        if self._qemu.poll() is None:
            self._qemu.kill()
        self._qemu.wait()
        self._listen.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def boot(self, deadline):
        """Waits for the agent's first word."""
        until = time.monotonic() + deadline
        self._listen.settimeout(0.5)
        stream = None
        while stream is None:
            self._must_live(until)
            try:
                stream, _ = self._listen.accept()
            except TimeoutError:
                pass
        self._stream = stream
        hello = queue.Queue()
        self._answers["hello"] = hello
        threading.Thread(target=self._read, daemon=True).start()
        while self.release is None:
            self._must_live(until)
            try:
                self.release = hello.get(timeout=0.5)["hello"]
            except queue.Empty:
                pass

    def _must_live(self, until):
        if self._qemu.poll() is not None:
            raise Ended(f"qemu ended with {self._qemu.returncode}\n{self.last_words()}")
        if time.monotonic() > until:
            raise Hung(f"the machine is not up in time\n{self.last_words()}")

    def ended(self):
        """What to raise when it is found dead."""
        code = self._qemu.poll()
        how = f"qemu ended with {code}" if code is not None else "its agent ended, qemu runs"
        return Ended(f"the machine went down: {how}\n{self.last_words()}")

    def last_words(self):
        """The end of what came on the machine's console."""
        try:
            with open(self.console, "rb") as file:
                return "\n".join(file.read().decode(errors="replace").splitlines()[-30:])
        except OSError:
            return ""

    def _read(self):
        with self._stream.makefile("rb") as lines:
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue
                answers = self._answers.get("hello" if "hello" in message else message.get("id"))
                if answers:
                    answers.put(message)
        self.dead.set()

    def run(self, argv, env=None, deadline=60, cwd="/", line=None):
        """Runs a command; its exit code, None when its deadline came, and its output. `line` gets each line."""
        answers = queue.Queue()
        with self._lock:
            self._next += 1
            number = self._next
            self._answers[number] = answers
            request = {"id": number, "argv": argv, "env": env or {}, "deadline": deadline, "cwd": cwd}
            self._stream.sendall(json.dumps(request).encode() + b"\n")
        # The agent keeps the deadline; a machine in which it does not has hung.
        until, output = time.monotonic() + deadline + 60, []
        while True:
            try:
                message = answers.get(timeout=0.5)
            except queue.Empty:
                if self.dead.is_set():
                    raise self.ended() from None
                self._must_live(until)
                continue
            if "line" in message:
                output.append(message["line"])
                if line:
                    line(message["line"])
            else:
                del self._answers[number]
                return message["code"], "\n".join(output)

    def wait(self):
        """Until somebody ends it, from inside or at its console."""
        return self._qemu.wait()
