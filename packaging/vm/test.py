#!/usr/bin/env python3
"""Runs tests in virtual machines with Debian's kernels. `packaging/vm/test.py --help`.

Exit status: 0 all that ran passed; 1 something failed, or a machine hung; 3 an archive that is needed to build the
machines cannot be reached.
"""

import argparse
import glob
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import groups
import link
import machine
import payload
import probe
import report

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = ["6.1", "6.12"]
BOOT = 180
# Tests at work at once in a machine, which has two processors but, emulated, one thread.
WORKERS = 2
# A second machine helps with what is left of a kernel's tests when they are at least so many.
HELPED = 10


class Unreachable(Exception):
    """An archive."""


def main():
    wish = arguments()
    os.chdir(CHECKOUT)
    for program in (machine.QEMU, "mke2fs", "strip"):
        if not shutil.which(program):
            sys.exit(f"error: {program} is missing; packaging/setup vm installs what the machines need")
    os.makedirs(wish.cache, exist_ok=True)
    results = report.Report()
    try:
        ran = [kernel for kernel in wish.kernels if image(wish, kernel)]
    except Unreachable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)
    with tempfile.TemporaryDirectory(prefix="payload.", dir=wish.cache) as work:
        tests = wanted(groups.collect(payload.tests()), wish)
        disk = os.path.join(work, "payload.img")
        modules = os.path.join(work, "modules")
        for kernel in ran:
            build_module(parts(wish, kernel)[2], modules)
        payload.build(disk, CHECKOUT, wish.programs, {test.program for test in tests}, templates(wish), modules)
        if wish.shell:
            sys.exit(shell(wish, disk))
        if wish.probe:
            found = {}
            for kernel in ran:
                with machine.Machine(*parts(wish, kernel), disk) as vm:
                    vm.boot(BOOT)
                    found[vm.release] = probe.ask(vm)
            sys.exit(probe.write("docs/kernel-features.md", found))
        until = time.monotonic() + wish.budget
        every_kernel(wish, ran, disk, tests, results, until)
        crossing = link.tests(wish.filter)
        if crossing and time.monotonic() < until:
            link.run(ran[0], *parts(wish, ran[0]), disk, crossing, results)
        else:
            for test in crossing:
                results.add(ran[0], test, report.NOT_RUN, "the time was used up")
    finish(wish, results)


def arguments():
    parser = argparse.ArgumentParser(description="Tests in virtual machines with Debian's kernels.")
    parser.add_argument("--kernel", dest="kernels", action="append", choices=KERNELS, help="6.1, 6.12; default both")
    parser.add_argument("--cache", default=os.path.join(CHECKOUT, "target/vm"), help="where images are kept")
    parser.add_argument("--programs", default=os.path.join(CHECKOUT, "target/x86_64-unknown-linux-gnu/release"))
    parser.add_argument("--templates", default=os.path.join(CHECKOUT, "target/vztests/templates"))
    parser.add_argument("--short", action="store_true", help="on the first kernel what asks it, on the others what is essential")
    parser.add_argument("--budget", type=int, default=3600, help="seconds for all machines; what is left is not run")
    parser.add_argument("--skipped", help="file that gets a line for what was skipped")
    parser.add_argument("--shell", action="store_true", help="a console instead of tests; root has no password")
    parser.add_argument("--probe", action="store_true", help="write what each kernel has into docs/kernel-features.md")
    parser.add_argument("--list", action="store_true", help="only name the tests")
    parser.add_argument("filter", nargs="*", help="only tests whose `group: name` has one of these in it")
    wish = parser.parse_args()
    wish.kernels = wish.kernels or KERNELS
    return wish


def wanted(tests, wish):
    tests = [test for test in tests if not wish.filter or any(word in test.title for word in wish.filter)]
    if wish.list:
        print("\n".join(test.title for test in tests + link.tests(wish.filter)))
        sys.exit(0)
    if not tests and not link.tests(wish.filter):
        sys.exit(f"error: no test has any of {wish.filter} in its name")
    return tests


def image(wish, kernel):
    """Whether the machine's parts are there. Without the newer kernel the rest is still worth running."""
    done = subprocess.run(["packaging/vm/build", wish.cache, kernel], check=False)
    if done.returncode == 3 and kernel != KERNELS[0]:
        skip_line(wish, f"virtual machine with kernel {kernel}: its archive cannot be reached")
        return False
    if done.returncode == 3:
        raise Unreachable(f"the machine with kernel {kernel} cannot be built")
    if done.returncode != 0:
        sys.exit(1)
    return True


def parts(wish, kernel):
    [root], [of_kernel] = glob.glob(f"{wish.cache}/root-*"), glob.glob(f"{wish.cache}/kernel-{kernel}-*")
    return wish.cache, root, of_kernel


def templates(wish):
    return [path for path in glob.glob(f"{wish.templates}/debian-12-x86_64-minimal/*")
            if re.search(r"\.(tar\.\w+|json)$", path)]


def shell(wish, disk):
    with machine.Machine(*parts(wish, wish.kernels[0]), disk, shell=True) as vm:
        return vm.wait()


def build_module(kernel, modules):
    with open(os.path.join(kernel, "version"), encoding="ascii") as file:
        version = file.read().strip()
    subprocess.run(["packaging/vm/module", kernel, os.path.join(modules, version)], check=True)


def every_kernel(wish, kernels, disk, tests, results, until):
    """A machine for each kernel, two at once. Who has nothing left helps the first kernel, which is asked most."""
    results.kernels += kernels
    queues = {}
    for kernel in kernels:
        chosen = [test for test in tests if not wish.short or test.in_short_run(kernel == KERNELS[0])]
        queues[kernel] = alone, todo = queue.Queue(), queue.Queue()
        for test in chosen:
            if test.ignored:
                results.add(kernel, test, report.SKIP, "known failure")
            else:
                (alone if test.alone else todo).put(test)

    def rest():
        for kernel in kernels[1:]:
            one_machine(wish, kernel, disk, queues[kernel], results, until)
        if queues[kernels[0]][1].qsize() >= HELPED:
            one_machine(wish, kernels[0], disk, (queue.Queue(), queues[kernels[0]][1]), results, until, "-2")

    helper = threading.Thread(target=rest)
    helper.start()
    one_machine(wish, kernels[0], disk, queues[kernels[0]], results, until)
    helper.join()
    for kernel in kernels:
        for left in queues[kernel]:
            while not left.empty():
                results.add(kernel, left.get(), report.NOT_RUN, "the machine hung or the time was used up")


def one_machine(wish, kernel, disk, queues, results, until, suffix=""):
    """Boots one kernel and runs what is in the queues. A machine that goes down by itself is told, and booted once more
    for what is left. The second time it fails the run, and so does one that hangs."""
    if all(of.empty() for of in queues):
        return
    console = os.path.join(wish.cache, f"console-{kernel}{suffix}")
    started = time.monotonic()
    try:
        try:
            one_boot(wish, kernel, disk, queues, results, until, console)
        except machine.Ended as ended:
            results.went_down(kernel, str(ended))
            one_boot(wish, kernel, disk, queues, results, until, console)
    except (machine.Hung, machine.Ended) as failure:
        whole = groups.Test("machine", "", "boots, and answers to the end")
        results.add(kernel, whole, report.FAIL, f"see {console}", time.monotonic() - started, str(failure))


def one_boot(wish, kernel, disk, queues, results, until, console):
    """One life of a machine, whose last words are kept. What was at work when it went down is left in the queues."""
    started = time.monotonic()
    with machine.Machine(*parts(wish, kernel), disk, console=console) as vm:
        vm.boot(BOOT)
        results.note(kernel, f"{vm.release}, {vm.accelerator}, up after {time.monotonic() - started:.0f} s")
        alone, todo = queues
        failed = queue.Queue()
        work(vm, kernel, alone, results, until, failed)
        workers = [threading.Thread(target=work, args=(vm, kernel, todo, results, until, failed)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        # Emulated, a machine is ten times as slow as the deadlines in tests assume. What failed has another try with
        # nobody beside it, budget or not; failing again is a failure.
        work(vm, kernel, failed, results, float("inf"))
        for left in failed.queue:
            todo.put(left)
        if vm.dead.is_set():
            raise vm.ended()


def work(vm, kernel, todo, results, until, failed=None):
    """Takes tests until there are none, or no time. A first failure goes to `failed`; without it, it counts."""
    while time.monotonic() < until and not vm.dead.is_set():
        try:
            test = todo.get_nowait()
        except queue.Empty:
            return
        started = time.monotonic()
        try:
            code, output = vm.run(command(test), environment(test), test.deadline, cwd=os.path.join(CHECKOUT, "tests"))
        except machine.Ended:
            vm.dead.set()
            todo.put(test)
            return
        except machine.Hung as hung:
            code, output = None, str(hung)
        outcome, why = verdict(code, output)
        if outcome == report.FAIL and failed is not None and code is not None:
            results.tries_again(kernel, test, why, output)
            failed.put(test)
            continue
        results.add(kernel, test, outcome, why, time.monotonic() - started, output)


def command(test):
    program = "/payload/tests/" + os.path.basename(test.program)
    return [program, test.name, "--exact", "--nocapture", "--test-threads=1"]


def environment(test):
    return {"VZ_BIN_DIR": "/payload/bin", "VZTESTS_DIR": f"/mnt/{test.disk}/tests", "VZTESTS_MACHINE": "1",
            "VZTESTS_MODULES": "/payload/modules", "HOME": "/root", "TMPDIR": "/tmp", "RUST_BACKTRACE": "0"}


def verdict(code, output):
    """Passed is only what says that it ran and passed."""
    if code is None:
        return report.FAIL, "still at work at its deadline"
    if code != 0:
        return report.FAIL, f"exit {code}"
    skipped = re.search(r"^SKIP: (.*)$", output, re.MULTILINE)
    if skipped:
        return report.SKIP, skipped.group(1)
    if not re.search(r"^test result: ok\. 1 passed;", output, re.MULTILINE):
        return report.FAIL, "the program ran no test"
    return report.PASS, ""


def skip_line(wish, text):
    print(f"    skipped: {text}")
    if wish.skipped:
        with open(wish.skipped, "a", encoding="utf-8") as file:
            file.write(text + "\n")


def finish(wish, results):
    print("==> Tests in virtual machines")
    print(results.table())
    for line in results.failures():
        print(line)
    for line in results.skipped():
        skip_line(wish, line)
    sys.exit(1 if results.failed else 0)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {os.path.basename(error.cmd[0])} failed ({error.returncode}); see above")
