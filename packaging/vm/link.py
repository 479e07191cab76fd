"""Two machines on a private link, each with sshd: what crosses hosts is tested on them."""

import tempfile
import time

import groups
import machine
import report

GROUP = "two machines"
TESTS = ["both boot, and see one another", "each logs in to the other by ssh", "a container's files cross by ssh"]
DEADLINE = 240
LINK_STATE = "ip -s link; ip address; ip neigh"


def tests(filters):
    """As rows of the table."""
    every = [groups.Test(GROUP, "", name) for name in TESTS]
    return [test for test in every if not filters or any(word in test.title for word in filters)]


def run(kernel, cache, root, of_kernel, disk, wanted, results):
    """Boots both and goes through the tests; the first failure ends it."""
    done = []
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="vm-link-") as wire, \
                machine.Machine(cache, root, of_kernel, disk, number=1, link=wire) as one, \
                machine.Machine(cache, root, of_kernel, disk, number=2, link=wire) as two:
            one.boot(DEADLINE)
            two.boot(DEADLINE)
            for test, steps in zip(tests([]), (_see, _log_in, _copy)):
                started = time.monotonic()
                for vm, script in steps(one, two):
                    code, output = vm.run(["sh", "-euc", script], deadline=DEADLINE)
                    if code != 0:
                        _, other = (two if vm is one else one).run(["sh", "-c", LINK_STATE], deadline=60)
                        raise machine.Hung(f"exit {code} of\n{script}\n{output}\nthe other machine:\n{other}")
                done.append(test.name)
                if test in wanted:
                    results.add(kernel, test, report.PASS, "", time.monotonic() - started)
    except (machine.Hung, machine.Ended) as hung:
        test = next(test for test in tests([]) if test.name not in done)
        results.add(kernel, test, report.FAIL, "", time.monotonic() - started, str(hung))
        for left in wanted:
            if left.name not in done and left != test:
                results.add(kernel, left, report.NOT_RUN, "an earlier step failed")


def _see(one, two):
    ping = "for i in $(seq 60); do if ping -q -c 1 -W 2 192.0.2.{} >/dev/null; then exit 0; fi; sleep 0.5; done; " + \
        f"{LINK_STATE}; exit 1"
    return [(one, ping.format(2)), (two, ping.format(1))]


def _log_in(one, two):
    # sshd may come up after the agent.
    log_in = "for i in $(seq 60); do if ssh -o ConnectTimeout=20 192.0.2.{0} hostname | grep -x vm{0}; then exit 0; fi; " \
             "sleep 1; done; exit 1"
    return [(one, log_in.format(2)), (two, log_in.format(1))]


def _copy(one, two):
    install = ("mkdir -p /etc/vz/conf /vz/template/cache /var/lib/vzctl; cp $(cat /payload/path)/packaging/conf/vz.conf /etc/vz/; "
               "cp $(cat /payload/path)/packaging/conf/ve-* /etc/vz/conf/; /payload/bin/vztmpl build tiny")
    make = ("/payload/bin/vzctl create 101 --ostemplate tiny --layout simfs; echo crossed >/vz/private/101/root/mark; "
            "tar -C /vz/private -c 101 | ssh 192.0.2.2 'mkdir -p /vz/private && tar -C /vz/private -x'; "
            "scp -q /etc/vz/conf/101.conf 192.0.2.2:/etc/vz/conf/")
    start = ("/payload/bin/vzctl start 101 --wait; test \"$(/payload/bin/vzctl exec2 101 cat /root/mark)\" = crossed; "
             "/payload/bin/vzctl stop 101 --fast")
    return [(one, install), (two, install), (one, make), (two, start)]
