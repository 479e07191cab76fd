"""The table in docs/kernel-features.md: what is used of the kernel, and which of Debian's has it."""

import json

BEGIN, END = "<!-- made by `make kernel-features`; do not edit -->", "<!-- end -->"


def ask(vm):
    """Features as the machine's kernel has them, in the probe's order."""
    code, output = vm.run(["/payload/probe", "/mnt/ext4"], deadline=120)
    if code != 0:
        raise SystemExit(f"error: the probe failed on {vm.release}\n{output}")
    return [json.loads(line) for line in output.splitlines()]


def write(path, found):
    """Replaces the table of the page. `found`: {release: features}."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    heads = ["Feature", "Since", "Used for", "Without it", *found]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for features in zip(*found.values()):
        first = features[0]
        has = ["yes" if feature["found"] else "–" for feature in features]
        rows.append("| " + " | ".join([first["name"], first["since"], first["used_for"], first["without"], *has]) + " |")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n" + "\n".join(rows) + "\n" + END + after)
    return 0
