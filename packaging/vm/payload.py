"""What a machine gets of this checkout, as a disk: programs, tests, and the files that tests read."""

import json
import os
import shutil
import subprocess

# Read by tests; the sources for the names of fault points.
FILES = ["Cargo.toml", "packaging/conf", "packaging/etc", "packaging/man"]
TOOLS = ("vzubc", "vzcalc", "vzmemcheck", "vzcpucheck", "vzoversell", "vzpid", "vznnc") + (
    "vzcfgvalidate", "vzsplit", "vzcfgscale", "vztop", "vzmetrics", "vzbackup", "vzrestore", "vzquota", "vzmigrate", "vzimport", "vzdump")
# Where packaging/criu puts it with all its libraries; the machines' root has a link from there to the disk.
CRIU = "/usr/lib/vz/criu"
ROOMS = ["ve", "migrate", "templates", "netns", "beancounters", "vzctl", "vzd", "vzconf", "vzsys", "tests"]


def tests():
    """The test programs: {(package, name): path}."""
    line = ["cargo", "test", "--no-run", "--locked", "--workspace", "--message-format=json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    found = {}
    for text in done.stdout.splitlines():
        message = json.loads(text) if text.startswith("{") else {}
        if message.get("executable") and message.get("profile", {}).get("test"):
            package = message["package_id"].rsplit("/", 1)[-1].split("#")
            name = package[1].split("@")[0] if "@" in package[1] else package[0]
            found[name, message["target"]["name"]] = message["executable"]
    return found


def build(image, checkout, programs, binaries, templates, modules):
    """Writes the disk."""
    tree = image + ".tree"
    shutil.rmtree(tree, ignore_errors=True)
    top = os.path.join(tree, "checkout")
    os.makedirs(top)
    with open(os.path.join(tree, "path"), "w", encoding="utf-8") as file:
        file.write(checkout)
    for name in FILES + [f"{room}/{part}" for room in ROOMS for part in ("src", "tests", "Cargo.toml")]:
        _copy(os.path.join(checkout, name), os.path.join(top, name))
    for name in ("bin", "tests", "templates"):
        os.makedirs(os.path.join(tree, name))
    for name in ("vzctl", "vzlist", "vztmpl", "vzmon", "vzinit") + TOOLS:
        shutil.copy2(os.path.join(programs, name), os.path.join(tree, "bin", name))
    shutil.copy2(os.path.join(programs, "vmagent"), os.path.join(tree, "agent"))
    shutil.copy2(os.path.join(programs, "vmprobe"), os.path.join(tree, "probe"))
    for path in binaries:
        at = os.path.join(tree, "tests", os.path.basename(path))
        # Symbols make up most of it.
        subprocess.run(["strip", "--strip-debug", "-o", at, path], check=True)
    for path in templates:
        shutil.copy2(path, os.path.join(tree, "templates"))
    _copy(modules, os.path.join(tree, "modules"))
    _copy(CRIU, os.path.join(tree, "criu"))
    _disk(tree, image)
    shutil.rmtree(tree)


def _copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True)
    elif os.path.exists(source):
        shutil.copy2(source, target)


def _disk(tree, image):
    size = subprocess.run(["du", "-sm", "--apparent-size", tree], stdout=subprocess.PIPE, check=True, text=True).stdout
    mib = int(size.split()[0]) * 12 // 10 + 32
    new = image + ".new"
    if os.path.exists(new):
        os.unlink(new)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "vm-payload", "-m", "0", "-O", "^has_journal",
                    "-E", "root_owner=0:0", "-d", tree, new, f"{mib}M"], check=True)
    os.rename(new, image)
