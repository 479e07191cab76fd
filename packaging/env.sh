# shellcheck shell=sh
# Where things are, and how the scripts here speak. Read with `.` from a script of this directory,
# after `cd` to the checkout's top.

# A cargo installed by rustup is often not in root's PATH, and newer than the distribution's.
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
if [ -x "$cargo_home/bin/cargo" ]; then PATH="$cargo_home/bin:$PATH"; fi
# Debian's `su` and cron leave the sbin directories out.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

# shellcheck disable=SC2034 # used by the scripts that read this
PROGRAMS="vzctl vzlist vztmpl vzubc vzcalc vzmemcheck vzcpucheck vzoversell vzpid vznnc vzcfgvalidate vzsplit vzcfgscale vztop vzmetrics vzbackup vzrestore vzquota vzmigrate vzimport vzdump"

# shellcheck disable=SC2034
# Not for people: in lib/vz.
HELPERS="vzmon vzinit"

step() { printf '==> %s\n' "$*"; }
say() { printf '    %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# The value of a `key = "value"` line in a TOML file, the first one.
toml_value() { sed -n "s/^$2 *= *\"\\(.*\\)\".*/\\1/p" "$1" | head -n 1; }

rust_version() { toml_value Cargo.toml rust-version; }

# Cargo puts programs below the named target's directory (see .cargo/config.toml).
bin_dir() {
    triple=${CARGO_BUILD_TARGET:-$(toml_value .cargo/config.toml target)}
    printf '%s/%s/%s\n' "${CARGO_TARGET_DIR:-$PWD/target}" "$triple" "$1"
}
