"""Medians, ratios and the Markdown that shows them."""

import dataclasses
import statistics
import time

MARK = "## Results\n"


@dataclasses.dataclass
class Table:
    """Nanoseconds by contender; `ours` is the one that the others are compared with."""

    title: str
    ours: str
    samples: dict
    note: str

    def lines(self):
        own = median(self.samples[self.ours])
        yield f"### {self.title[0].upper()}{self.title[1:]}"
        yield ""
        yield "| | median | min | max | n | ours : this |"
        yield "|---|---:|---:|---:|---:|---:|"
        for name, values in self.samples.items():
            if not values:
                continue
            ratio = "" if name == self.ours else f"{own / median(values):.3g}"
            yield f"| {name} | {text(median(values))} | {text(min(values))} | {text(max(values))} | {len(values)} | {ratio} |"
        if self.note:
            yield ""
            yield self.note
        yield ""


@dataclasses.dataclass
class Files:
    """Nanoseconds by file, and by contender."""

    title: str
    ours: str
    samples: dict
    note: str

    def lines(self):
        names = list(dict.fromkeys(name for of in self.samples.values() for name in of))
        heads = [head for name in names for head in (f"{name} median", f"{name} 99 %")]
        yield f"### {self.title[0].upper()}{self.title[1:]}"
        yield ""
        heads += ["n", *(f"ours : {name}" for name in names if name != self.ours)]
        yield f"| | {' | '.join(heads)} |"
        yield f"|---|{'---:|' * len(heads)}"
        for file, of in self.samples.items():
            cells = [text(value) for name in names for value in (median(of[name]), late(of[name]))]
            ratios = [f"{median(of[self.ours]) / median(of[name]):.3g}" for name in names if name != self.ours]
            yield f"| {' | '.join([file, *cells, str(min(map(len, of.values()))), *ratios])} |"
        if self.note:
            yield ""
            yield self.note
        yield ""


@dataclasses.dataclass
class Steps:
    """Nanoseconds by step, and by workload."""

    title: str
    samples: dict
    note: str

    def lines(self):
        names = list(next(iter(self.samples.values())))
        yield f"### {self.title}"
        yield ""
        yield f"| | {' | '.join(names)} |"
        yield f"|---|{'---:|' * len(names)}"
        for step, of in self.samples.items():
            yield f"| `{step}` | {' | '.join(text(median(of[name])) for name in names)} |"
        if self.note:
            yield ""
            yield self.note
        yield ""


def median(values):
    return statistics.median(values)


def late(values):
    """As long as 99 of 100 take at most."""
    return sorted(values)[(len(values) * 99 + 99) // 100 - 1]


def text(nanoseconds):
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 10_000 else f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


def render(tables, machine):
    load, versions = machine
    lines = [f"`make bench`, {time.strftime('%Y-%m-%d')}. {load}.", ""]
    found = [f"{name}: {version}" if version else f"{name}: not installed" for name, version in versions.items()]
    lines += [" · ".join(found), "", "A ratio below 1 means that ours is faster.", ""]
    for table in tables:
        lines += table.lines()
    return "\n".join(lines)


def write(path, text_of_results):
    """Replaces what stands below the heading of the results."""
    page = path.read_text()
    kept = page.split(MARK)[0]
    path.write_text(f"{kept}{MARK}\n{text_of_results}")
