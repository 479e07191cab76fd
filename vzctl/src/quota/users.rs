//! Users and groups inside a VE: `vzquota stat -t`, `setlimit2`, `settime2`.

use std::fmt::Write as _;

use templates::image::Users;
use templates::quota::{Bounds, Row};
use vzconf::{Config, Ctid, Paths};
use vzsys::SysError;
use vzsys::quota::{Grace, Quota, Whose};

use super::{Refusal, SYSTEM, UGID_INACTIVE, left, usage};

const KINDS: [(Whose, &str); 2] = [(Whose::User, "user"), (Whose::Group, "group")];
const NONE: &str =
    "User/group quota: off,inactive\nUgids: loaded 0, total 0, limit 0\nUgid limit was exceeded: no\n";

/// What is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The limits of one: soft and hard, of space in KiB and of inodes.
    Limits { whose: Whose, id: u32, space: Bounds, inodes: Bounds },
    /// For how many seconds all of a kind may exceed their soft limits.
    Times { whose: Whose, grace: Grace },
}

impl Change {
    /// What follows the number of the container.
    pub(super) fn read(command: &str, who: Option<(Whose, &str)>, words: &[&str]) -> Result<Self, Refusal> {
        let (whose, id) = who.ok_or_else(|| usage("-u or -g is needed"))?;
        let number = |word: &str| word.parse().map_err(|_| usage(format!("{word} is not a number")));
        let numbers = words.iter().map(|word| number(word)).collect::<Result<Vec<u64>, _>>()?;
        match (command, numbers.as_slice()) {
            ("setlimit2", [space_soft, space_hard, soft, hard]) => Ok(Self::Limits {
                whose,
                id: id.parse().map_err(|_| usage(format!("{id} is not the number of a user or group")))?,
                space: Bounds { barrier: *space_soft, limit: *space_hard },
                inodes: Bounds { barrier: *soft, limit: *hard },
            }),
            ("settime2", [space, inodes]) => {
                Ok(Self::Times { whose, grace: Grace { space: *space, inodes: *inodes } })
            }
            ("setlimit2", _) => Err(usage("four limits are needed: KiB soft and hard, inodes soft and hard")),
            _ => Err(usage("two times are needed, in seconds: of space and of inodes")),
        }
    }
}

fn open(paths: &Paths, ctid: Ctid) -> Result<Option<(Config, Users)>, Refusal> {
    let failed = |error: String| (SYSTEM, error);
    let config = Config::global(paths).and_then(|global| global.for_ve(ctid));
    let config = config.map_err(|error| failed(error.to_string()))?;
    let users = ve::user_quota::of(&config, ctid).map_err(|error| failed(ve::describe(&error)))?;
    Ok(users.map(|users| (config, users)))
}

fn failed(error: SysError) -> Refusal {
    (SYSTEM, error.to_string())
}

/// Carries a change out.
pub(super) fn change(paths: &Paths, ctid: Ctid, change: Change) -> Result<(), Refusal> {
    let Some((_, users)) = open(paths, ctid)? else {
        let what = format!(
            "nothing counts the users inside container {ctid}; with the layout ploop: vzctl set {ctid} --quotaugidlimit 1000 \
             --save; vzctl restart {ctid}"
        );
        return Err((UGID_INACTIVE, what));
    };
    match change {
        Change::Limits { whose, id, space, inodes } => {
            let limits = Quota {
                space_soft: space.barrier,
                space_hard: space.limit,
                inodes_soft: inodes.barrier,
                inodes_hard: inodes.limit,
                ..Quota::default()
            };
            users.limit(whose, id, &limits).map_err(failed)
        }
        Change::Times { whose, grace } => users.set_grace(whose, grace).map_err(failed),
    }
}

/// What `-t` adds, and whether there are such limits.
pub(super) fn table(paths: &Paths, ctid: Ctid, batch: bool, now: u64) -> Result<(String, bool), Refusal> {
    let Some((config, users)) = open(paths, ctid)? else {
        return Ok((if batch { "0 0\n0 0 0\n0\n" } else { NONE }.to_owned(), false));
    };
    let mut all = Vec::new();
    let mut graces = Vec::new();
    for (whose, name) in KINDS {
        all.extend(users.list(whose).map_err(failed)?.into_iter().map(|(id, quota)| (id, name, quota)));
        graces.push((name, users.grace(whose).map_err(failed)?));
    }
    let limit = config.quotaugidlimit().unwrap_or(0);
    Ok((text(&all, &graces, limit, batch, now), true))
}

fn text(all: &[(u32, &str, Quota)], graces: &[(&str, Grace)], limit: u64, batch: bool, now: u64) -> String {
    let (count, is_over) = (all.len(), all.len() as u64 > limit);
    let mut text = String::new();
    if batch {
        let _ = writeln!(text, "1 1\n{count} {count} {limit}\n{}", u8::from(is_over));
    } else {
        let _ = write!(
            text,
            "User/group quota: on,active\nUgids: loaded {count}, total {count}, limit {limit}\n\
             Ugid limit was exceeded: {}\n\nUser/group grace times and quotafile flags:\n \
             type block_exp_time inode_exp_time dqi_flags\n",
            if is_over { "yes" } else { "no" }
        );
    }
    for (name, Grace { space, inodes }) in graces {
        let _ = match batch {
            true => writeln!(text, "{name} {space} {inodes} 0"),
            false => writeln!(text, "{name:>5} {space:>14} {inodes:>14} {:>9}", "0h"),
        };
    }
    if !batch {
        let _ = writeln!(
            text,
            "\nUser/group objects:\n{:<10} {:>5} {:>10} {:>11} {:>12} {:>12} {:>8} status",
            "ID", "type", "resource", "usage", "softlimit", "hardlimit", "grace"
        );
    }
    for (id, name, quota) in all {
        for (resource, row) in rows(quota) {
            let Row { usage, bounds: Bounds { barrier, limit }, expires } = row;
            let _ = match batch {
                true => writeln!(
                    text,
                    "{id} {name} {resource} {usage} {barrier} {limit} {}",
                    expires.unwrap_or(0)
                ),
                false => writeln!(
                    text,
                    "{id:<10} {name:>5} {resource:>10} {usage:>11} {barrier:>12} {limit:>12} {:>8} loaded",
                    left(expires, now)
                ),
            };
        }
    }
    text
}

fn rows(quota: &Quota) -> [(&'static str, Row); 2] {
    let row = |usage, barrier, limit, until| Row {
        usage,
        bounds: Bounds { barrier, limit },
        expires: (until != 0).then_some(until),
    };
    let Quota { space, space_soft, space_hard, space_until, .. } = *quota;
    let Quota { inodes, inodes_soft, inodes_hard, inodes_until, .. } = *quota;
    [
        ("1k-blocks", row(space.div_ceil(1024), space_soft, space_hard, space_until)),
        ("inodes", row(inodes, inodes_soft, inodes_hard, inodes_until)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_understood_or_refused() {
        let user = Some((Whose::User, "1000"));
        let bounds = |barrier, limit| Bounds { barrier, limit };
        assert_eq!(
            Change::read("setlimit2", user, &["1", "2", "3", "4"]).unwrap(),
            Change::Limits { whose: Whose::User, id: 1000, space: bounds(1, 2), inodes: bounds(3, 4) }
        );
        assert_eq!(
            Change::read("settime2", Some((Whose::Group, "")), &["60", "70"]).unwrap(),
            Change::Times { whose: Whose::Group, grace: Grace { space: 60, inodes: 70 } }
        );
        for (command, who, words) in [
            ("setlimit2", None, &["1", "2", "3", "4"][..]),
            ("setlimit2", user, &["1", "2", "3"]),
            ("setlimit2", user, &["1", "2", "3", "x"]),
            ("setlimit2", Some((Whose::User, "web")), &["1", "2", "3", "4"]),
            ("settime2", user, &["1"]),
        ] {
            assert_eq!(Change::read(command, who, words).unwrap_err().0, super::super::USAGE, "{words:?}");
        }
    }

    #[test]
    fn users_and_groups_are_shown_in_openvzs_form() {
        let quota = Quota { space: 3000, space_soft: 5, space_hard: 6, inodes: 2, ..Quota::default() };
        let graces = [("user", Grace { space: 60, inodes: 70 })];
        let shown = text(&[(7, "user", quota)], &graces, 1, false, 0);
        assert!(shown.starts_with("User/group quota: on,active\nUgids: loaded 1, total 1, limit 1\n"));
        assert!(shown.contains("\n user             60             70        0h\n"), "{shown}");
        let line = "7           user  1k-blocks           3            5            6          loaded";
        assert!(shown.contains(line), "{shown}");
        let batch = text(&[(7, "user", quota)], &graces, 0, true, 0);
        assert_eq!(batch, "1 1\n1 1 0\n1\nuser 60 70 0\n7 user 1k-blocks 3 5 6 0\n7 user inodes 2 0 0 0\n");
    }
}
