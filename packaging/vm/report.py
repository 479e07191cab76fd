"""What ran, what was skipped, and the table of groups and kernels."""

import collections
import threading

# Lines of the output of a failure at the end of all.
SHOWN = 12
PASS, FAIL, SKIP, NOT_RUN = "passed", "failed", "skipped", "not run"


class Report:
    """Results as they come in, from any thread."""

    def __init__(self, quiet=False):
        self._lock = threading.Lock()
        self._quiet = quiet
        self.kernels = []
        self.results = []  # (kernel, group, test, outcome, why, seconds)
        self._failures = []
        self._downs = []
        self._unsteady = []

    def add(self, kernel, test, outcome, why="", seconds=0.0, output=""):
        """One test's end. The output of what failed is shown at once."""
        with self._lock:
            self.results.append((kernel, test.group, test.name, outcome, why, seconds))
            if outcome == NOT_RUN or (self._quiet and outcome == PASS):
                return
            note = f" ({why})" if why else ""
            print(f"    {kernel:5} {outcome:7} {seconds:6.1f} s  {test.title}{note}", flush=True)
            if outcome == FAIL:
                self._failures += [f"    failed: kernel {kernel}: {test.title}{note}"]
                self._failures += ["      | " + line for line in output.splitlines()[-SHOWN:]]
                print("\n".join("      | " + line for line in output.splitlines()), flush=True)

    def tries_again(self, kernel, test, why, output):
        """A first failure. It is shown as any; what decides is the second try, and the end names both."""
        with self._lock:
            print(f"    {kernel:5} failed, and is tried once more  {test.title} ({why})", flush=True)
            print("\n".join("      | " + line for line in output.splitlines()), flush=True)
            self._unsteady.append(f"kernel {kernel}: unsteady: {test.title} failed the first time ({why})")

    def note(self, kernel, text):
        """A line about the run itself."""
        with self._lock:
            print(f"    {kernel:5} {text}", flush=True)

    def went_down(self, kernel, words):
        """A machine that is booted once more."""
        self.note(kernel, f"went down, and is booted once more: {words}")
        self._downs.append(f"kernel {kernel}: its machine went down once, and was booted again: {words.splitlines()[0]}")

    @property
    def failed(self):
        """Whether anything did, or nothing passed."""
        outcomes = [result[3] for result in self.results]
        return FAIL in outcomes or PASS not in outcomes

    def table(self):
        """Groups down, kernels across: passed, and what did not."""
        groups = list(dict.fromkeys(result[1] for result in self.results))
        width = max(len(group) for group in groups + ["all"])
        lines = ["    " + " " * width + "".join(f"  {kernel:>28}" for kernel in self.kernels)]
        for group in groups + ["all"]:
            cells = []
            for kernel in self.kernels:
                of = [r[3] for r in self.results if r[0] == kernel and group in (r[1], "all")]
                count = collections.Counter(of)
                words = [f"{count[PASS]} passed"] if count[PASS] else []
                words += [f"{count[what]} {what}" for what in (FAIL, SKIP, NOT_RUN) if count[what]]
                cells.append(", ".join(words) or "-")
            lines.append(f"    {group:{width}}" + "".join(f"  {cell:>28}" for cell in cells))
        return "\n".join(lines)

    def failures(self):
        """What failed once more, with the end of its output: the last lines are those that are read."""
        return self._failures

    def skipped(self):
        """One line for each reason, and for each machine that was not to be relied on."""
        reasons = collections.defaultdict(set)
        for kernel, group, name, outcome, why, _ in self.results:
            if outcome in (SKIP, NOT_RUN):
                reasons[f"kernel {kernel}: {outcome}: {why}"].add(f"{group}: {name}")
        return self._downs + self._unsteady + [f"{why} ({len(tests)}: {', '.join(sorted(tests)[:3])}{', …' if len(tests) > 3 else ''})"
                              for why, tests in sorted(reasons.items())]
