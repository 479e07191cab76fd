"""The root file systems: a tiny one and Debian; the same files for every contender."""

import os
import pathlib
import shutil
import subprocess

import host

HERE = pathlib.Path(__file__).resolve().parent
DEBIAN = "debian-12-x86_64-minimal"
# The first id of the peers' containers.
SHIFT = 1_000_000

UP = """\
[Unit]
Description=Writes when the system is up

[Service]
ExecStart=/bin/sh -c 'systemctl is-system-running --wait >/up.state; date +%%s%%N >/up.new; mv /up.new /up'
"""


def step(text):
    print(f"==> {text}", flush=True)


def run(*command, **more):
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, **more)


def prepare(work, with_debian):
    """Makes what is missing in `work/trees` and `work/cache`; on the host, with its network."""
    (work / "trees").mkdir(exist_ok=True)
    (work / "cache").mkdir(exist_ok=True)
    tiny(work)
    if with_debian:
        debian(work)


def tiny(work):
    tree = work / "trees/tiny"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "sbin", "etc", "dev", "proc", "sys", "run", "root", "tmp", "var", "usr/bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    run("cc", "-Os", "-static", "-o", tree / "sbin/init", HERE / "stamp.c")
    run("cc", "-Os", "-static", "-o", tree / "bin/reader", HERE / "reader.c")
    for applet in ("sh", "true", "date", "sleep", "cat", "ps", "mount", "umount", "halt", "poweroff", "reboot"):
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "etc/inittab").write_text("::sysinit:/bin/true\n::ctrlaltdel:/bin/true\n")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    pack(tree, work / "cache/tiny.tar.zst")
    shifted = work / "trees/tiny-shifted"
    shutil.rmtree(shifted, ignore_errors=True)
    run("cp", "-a", tree, shifted)
    run("chown", "-hR", f"{SHIFT}:{SHIFT}", shifted)


def pack(tree, archive):
    run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-I", "zstd", "-C", tree, "-cf", archive, ".")


def unpack(archive, tree):
    tree.mkdir(parents=True)
    run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C", tree, "-xf", archive)


def debian(work):
    """Kept from run to run: making it takes half a minute and more."""
    archive = work / "cache/debian.tar.zst"
    tree = work / "trees/debian"
    if archive.exists() and tree.exists():
        return
    source = debian_source(work)
    shutil.rmtree(tree, ignore_errors=True)
    unpack(source, tree)
    (tree / "etc/systemd/system/up.service").write_text(UP)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "up.service").symlink_to("../up.service")
    # One that is made at the first boot would make that one slower than the others.
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    made = archive.with_suffix(".new")
    pack(tree, made)
    made.rename(archive)


def debian_source(work):
    """The host's own template, or one that is built now."""
    for cache in (pathlib.Path("/vz/template/cache"), work / "cache"):
        found = sorted(path for path in cache.glob(f"{DEBIAN}.tar*") if path.is_file())
        if found:
            return found[0]
    step(f"Making {DEBIAN} from Debian's archive")
    # In directories of its own, where /etc/vz and /vz are for programs of this host.
    own = work / "template"
    shutil.rmtree(own, ignore_errors=True)
    for path in (own / "etc", own / "vz/template/cache", pathlib.Path("/etc/vz"), pathlib.Path("/vz")):
        path.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE.parent.parent / "packaging/conf/vz.conf", own / "etc")
    script = 'mount --bind "$1/etc" /etc/vz && mount --bind "$1/vz" /vz && exec "$2/vztmpl" --quiet build "$3"'
    run("unshare", "--mount", "sh", "-ec", script, "sh", own, host.bin_dir(), DEBIAN)
    made = next(path for path in (own / "vz/template/cache").glob(f"{DEBIAN}.tar*"))
    return made.rename(work / "cache" / made.name)


def size(tree):
    """Bytes of a tree's files on disk."""
    total = 0
    for path, _, files in os.walk(tree):
        for name in files:
            total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total
