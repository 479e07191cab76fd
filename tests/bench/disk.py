"""Disks: files as fast as the host's on every layout, backups beside tar, archives beside GNU tar."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import time

import peers
import report
import trees

# What fio does; each with files of its own, 4 KiB blocks around the page cache where they are random.
JOBS = {
    "sequential write": ["--rw=write", "--bs=1M", "--end_fsync=1"],
    "sequential read": ["--rw=read", "--bs=1M"],
    "random write": ["--rw=randwrite", "--bs=4k", "--direct=1", "--iodepth=8", "--ioengine=libaio"],
    "random read": ["--rw=randread", "--bs=4k", "--direct=1", "--iodepth=8", "--ioengine=libaio"],
}
# Layouts by the name that the table shows, and what `create` is told.
LAYOUTS = {
    "overlay": ["--layout", "overlay", "--config", "free"],
    "overlay, in an image": ["--layout", "overlay", "--diskspace", "4G"],
    "simfs": ["--layout", "simfs", "--config", "free"],
    "ploop": ["--layout", "ploop", "--diskspace", "4G"],
}


# What no layout can be faster than: an ext4 on a loop device with direct I/O, made without us, of a file whose blocks
# are allocated as they are written, and of one that has them all.
BARE = {"bare loop device, sparse": ["truncate", "-s", "1G"], "bare loop device, allocated": ["fallocate", "-l", "1G"]}


@contextlib.contextmanager
def bare(work):
    """An ext4 on a loop device for each of `BARE`, by its name; mounted in `work`, and gone at the end."""
    with contextlib.ExitStack() as end:
        work.mkdir()
        end.callback(shutil.rmtree, work)
        places = {}
        for number, (name, words) in enumerate(BARE.items()):
            image, place = work / f"{number}.img", work / str(number)
            place.mkdir()
            trees.run(*words, image)
            # Without nodiscard mkfs.ext4 gives back what was allocated.
            trees.run("mkfs.ext4", "-q", "-E", "nodiscard", image)
            made = ["losetup", "--find", "--show", "--direct-io=on", "--sector-size", "4096", str(image)]
            device = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
            try:
                trees.run("mount", device, place)
                end.callback(trees.run, "umount", place)
            finally:
                # A mounted one goes with its mount.
                trees.run("losetup", "--detach", device)
            places[name] = place
        yield places


class Mounted:
    """VEs of a template on each layout, mounted on the host; gone at the end."""

    def __init__(self, bench, kind):
        self.ours, self.roots = bench.ours, {}
        for name, words in LAYOUTS.items():
            number = bench.numbers(1)[0]
            self.ours.verb("create", number, "--ostemplate", kind, *words)
            self.roots[name] = number
            self.ours.verb("mount", number)

    def __enter__(self):
        return {name: pathlib.Path(f"/vz/root/{number}") for name, number in self.roots.items()}

    def __exit__(self, *_):
        for number in self.roots.values():
            self.ours.verb("umount", number)
            self.ours.destroy(number)


def io(bench):
    """Bytes a second of fio in the root of a VE on each layout, and in a directory of the host."""
    if not shutil.which("fio"):
        print("    left out: fio is not installed")
        return []
    seconds, megabytes = (2, 64) if bench.options.quick else (5, 512)
    rates = {name: {} for name in JOBS}
    with Mounted(bench, "tiny") as roots, bare(pathlib.Path("/vz/private/bare")) as devices:
        places = {"the host": pathlib.Path("/vz/private"), **roots, **devices}
        for _ in range(3 if bench.options.quick else 5):
            for job, words in JOBS.items():
                for place, directory in places.items():
                    rates[job].setdefault(place, []).append(fio(directory, words, seconds, megabytes))
    return [Rates("fio in a VE's root, and in a directory of the host", rates)]


def fio(directory, words, seconds, megabytes):
    file = directory / "fio.data"
    drop = ["--invalidate=1", f"--size={megabytes}M", f"--runtime={seconds}", "--output-format=json", "--name=job"]
    done = subprocess.run(["fio", f"--filename={file}", *words, *drop], capture_output=True, text=True, check=True)
    file.unlink(missing_ok=True)
    job = json.loads(done.stdout)["jobs"][0]
    return job["write" if "write" in words[0] else "read"]["bw_bytes"]


class Rates:
    """Bytes a second by job and place, beside the first place."""

    def __init__(self, title, rates):
        self.title, self.rates = title, rates

    def lines(self):
        places = list(next(iter(self.rates.values())))
        own = places[0]
        yield f"### {self.title}"
        yield ""
        yield f"| | {own} | {' | '.join(places[1:])} |"
        yield f"|---|---:|{'---:|' * len(places[1:])}"
        for job, of in self.rates.items():
            base = report.median(of[own])
            cells = [f"{report.median(of[place]) / 1e6:.0f} MB/s ({report.median(of[place]) / base:.2f})" for place in places[1:]]
            yield f"| {job} | {base / 1e6:.0f} MB/s | {' | '.join(cells)} |"
        yield ""
        yield "In brackets the ratio to the host's: more is faster. Medians."
        yield ""


def backup(bench):
    """A first backup of a Debian VE beside `tar | zstd` of the same tree, and one of the same again."""
    number = bench.numbers(1)[0]
    bench.ours.create(number, "debian")
    bench.ours.verb("mount", number)
    program, store = bench.programs / "vzbackup", bench.work / "node/backup"
    root, samples = f"/vz/root/{number}", {}
    tar = f"tar --numeric-owner --xattrs --acls --one-file-system -C {root} -cf - . | zstd -3 -T0 -q -o {store}/plain.tar.zst"
    for _ in range(max(3, bench.options.rounds // 6)):
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir(parents=True)
        lines = {
            "tar to zstd -T0": ["sh", "-c", tar],
            "vzbackup, the first": [program, "--quiet", "--to", store, number],
            "vzbackup, nothing has changed": [program, "--quiet", "--to", store, number],
        }
        for name, line in lines.items():
            # What was written before is not to be written during this.
            subprocess.run(["sync", "-f", store], check=True)
            samples.setdefault(name, []).append(peers.timed([str(word) for word in line])[1])
    bench.ours.verb("umount", number)
    bench.ours.destroy(number)
    first, again = (report.median(samples[name]) for name in list(samples)[1:])
    note = (f"The second takes {again / first:.3f} of the first's time. A backup is on the disk when the command returns; "
            "what tar has written is not.")
    return [report.Table("backup of a Debian VE", "vzbackup, the first", samples, note)]


def unpack(bench):
    """The first VE of a template unpacks it; beside GNU tar, both until it is on the disk."""
    archive = pathlib.Path("/vz/template/cache/debian.tar.zst")
    plain, samples = bench.work / "node/unpacked", {"vzctl create, the first of a template": [], "tar -x, sync -f": []}
    copy = archive.with_name("unpacked.tar.zst")
    for _ in range(max(3, bench.options.rounds // 6)):
        # Another file is another template; its tree goes with the last VE when the file is gone.
        number = bench.numbers(1)[0]
        shutil.copy(archive, copy)
        trees.run("sync", "-f", copy)
        samples["vzctl create, the first of a template"].append(bench.ours.create(number, "unpacked")[1])
        copy.unlink()
        bench.ours.destroy(number)
        trees.run("sync", "-f", archive)
        plain.parent.mkdir(parents=True, exist_ok=True)
        begin = time.time_ns()
        trees.unpack(archive, plain)
        trees.run("sync", "-f", plain)
        samples["tar -x, sync -f"].append(time.time_ns() - begin)
        shutil.rmtree(plain)
        trees.run("sync", "-f", bench.work)
    return [report.Table("unpacking of the Debian template", "vzctl create, the first of a template", samples, "")]


def disk(bench):
    return [*io(bench), *backup(bench), *unpack(bench)]
