"""Which tests run in a machine, by groups: the rows of the table."""

import dataclasses
import subprocess

# Rooms whose unit tests ask the kernel. The others are the same everywhere.
KERNEL_ROOMS = ["vzsys", "beancounters", "netns", "templates", "ve", "vzd"]
# What is tried again on other file systems: layouts, layers, ids.
ON_DISKS = ["lifecycle::every_layout", "lifecycle::a_ve_lives", "lifecycle::destroy", "lifecycle::mount_and", "disk::create_on",
            "disk::a_ve_on", "disk::a_read_only", "disk::vz_may", "disk::private_areas", "quota::"]
# What every kernel is asked in a short run; the first one is asked all.
ESSENTIAL = ("unit tests of vzsys", "unit tests of netns", "unit tests of beancounters", "unified", "module", "machines",
             "layouts on xfs", "distributions", "confinement", "lifecycle: every_layout", "lifecycle: a_ve_lives",
             "settings: limits", "network: ves_reach", "crowd: heavy::twenty",
             "procbc", "supervisor")
# What is alike on every kernel: computing, wording, what is undone by file operations. In a short run the host's own
# pass is enough.
ALIKE = ("unit tests of beancounters: text::", "unit tests of templates: archive::", "unit tests of templates: dist::",
         "unit tests of templates: build::", "unit tests of templates: removal::", "unit tests of templates: layout::remove::",
         "templates: every_compression", "exec: fifty_megabytes", "supervisor: what_an_open_costs", "told", "refusals", "values: each",
         "scripts", "faults: heavy::create", "faults: heavy::destroy",
         "disk: an_image", "disk: snapshots_and", "disk: a_convert")
# What takes long and is asked of the host itself as well: for a full run.
LONG = ("backups", "btrfs", "clones", "images", "mended", "convert", "failing")
# What has not been seen to pass on these kernels yet: for a full run, which is where that is found out.
UNTRIED = ("layouts on btrfs", "snapshots", "oci", "import", "migrate", "online", "carried", "churn", "clients", "checkpoint", "readers",
           "unit tests of templates: snapshot::", "unit tests of templates: mirror::", "unit tests of templates: changes::",
           "unit tests of templates: backup::", "unit tests of templates: replica::", "unit tests of templates: image::",
           "unit tests of templates: oci::", "unit tests of vzsys: fanotify::", "unit tests of vzsys: block::")
# Those that use the whole machine: what they mount shows in the nodes of others.
ALONE = ("unified: the_systemd", "module: ")
# Of the distributions, those whose templates the machine is given.
BOOTS = ["boot::debian_12"]
DEADLINE = 400
BOOT_DEADLINE = 1200


@dataclasses.dataclass
class Test:
    """One test of one program, on one of the machine's disks."""

    group: str
    program: str
    name: str
    ignored: bool = False
    disk: str = "ext4"

    @property
    def title(self):
        """As a person names it."""
        return f"{self.group}: {self.name}"

    @property
    def alone(self):
        """Whether nothing else may run meanwhile."""
        return self.title.startswith(ALONE)

    @property
    def essential(self):
        """Whether it is part of a short run."""
        return self.title.startswith(ESSENTIAL)

    def in_short_run(self, first_kernel):
        """Whether it is part of one on this kernel."""
        if self.title.startswith(LONG + UNTRIED):
            return False
        return self.essential or (first_kernel and not self.title.startswith(ALIKE))

    @property
    def deadline(self):
        """Seconds."""
        return BOOT_DEADLINE if "boot::" in self.name else DEADLINE


def collect(programs):
    """All tests, in the order in which they are to run: what says most about a kernel first."""
    containers, units = [], []
    for (package, name), path in sorted(programs.items()):
        if package == "vztests" and name not in ("vztests", "vmagent"):
            containers += [Test(name, path, *test) for test in _tests(path)]
        elif package in KERNEL_ROOMS and not name.startswith(("speed", "vzmon")):
            units += [Test(f"unit tests of {package}", path, *test) for test in _tests(path)]
    disks = [dataclasses.replace(test, group=f"layouts on {disk}", disk=disk)
             for disk in ("xfs", "btrfs") for test in containers
             if f"{test.group}::{test.name}".startswith(tuple(ON_DISKS))]
    boots = [test for test in containers if test.name in BOOTS]
    return units + [test for test in containers if "boot::" not in test.name] + disks + boots


def _tests(path):
    """Names, and whether they are ignored."""

    def listed(*more):
        done = subprocess.run([path, "--list", "--format", "terse", *more], stdout=subprocess.PIPE, check=True, text=True)
        return [line[:-len(": test")] for line in done.stdout.splitlines() if line.endswith(": test")]

    ignored = set(listed("--ignored"))
    return [(name, name in ignored) for name in listed()]
