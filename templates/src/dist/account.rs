//! Users and passwords: passwd(5), shadow(5), group(5), written directly.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::error::DistError;
use super::password::{self, Method};
use super::root::{Durability, GuestRoot};
use super::skeleton::{self, Owner};
use super::text::{self, Encoding};
use super::work::Changes;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const GROUP: &str = "/etc/group";
const GSHADOW: &str = "/etc/gshadow";
/// What lckpwdf(3) locks.
const LOCK: &str = "/etc/.pwd.lock";
const LOCK_TIME: Duration = Duration::from_secs(15);
const DAY: u64 = 24 * 60 * 60;
/// Above are `nobody` and the ids that systemd gives away.
const UID_MAX: u32 = 60000;

/// Gives a user of the guest a password, and makes the user when there is none of that name: with the
/// next free uid, a group of its own, a home with what `/etc/skel` has. A locked account is unlocked,
/// as passwd(1) does. The files keep mode and owner and are replaced whole; the guest's password lock
/// is held meanwhile. Waits up to 15 s for that lock.
///
/// # Errors
/// [`DistError::BadUser`], [`DistError::BadPassword`], [`DistError::NoPasswd`], [`DistError::Locked`], or what
/// could not be read or written.
pub fn set_user_password(root: &GuestRoot, user: &str, password: &str) -> Result<Changes, DistError> {
    if !password::is_user_name(user) {
        return Err(DistError::BadUser { name: user.to_owned() });
    }
    let login_defs = root.text("/etc/login.defs");
    let hash = password::hash(password, Method::by_login_defs(&login_defs))?;
    let lock = lock(root)?;
    let mut passwd = Table::read(root, PASSWD)?.ok_or(DistError::NoPasswd)?;
    let mut shadow = Table::read(root, SHADOW)?;
    let mut changes = Changes::default();
    let new = if passwd.find(user).is_none() {
        Some(add_user(root, &mut passwd, user, &login_defs, &mut changes)?)
    } else {
        None
    };
    match &mut shadow {
        Some(shadow) => {
            passwd.set_field(user, 1, "x");
            shadow_password(shadow, user, &hash);
        }
        None => passwd.set_field(user, 1, &hash),
    }
    for table in shadow.iter().chain([&passwd]) {
        table.save(root, &mut changes)?;
    }
    if let Some((home, owner)) = new {
        let mode = password::number(&login_defs, "HOME_MODE").unwrap_or(0o755);
        if skeleton::make_home(root, &home, mode, owner)? {
            changes.paths.push(home);
        }
    }
    drop(lock);
    Ok(changes)
}

/// Locks the account of root where it has an empty password.
pub(super) fn lock_empty_root(root: &GuestRoot) -> Result<Changes, DistError> {
    let mut changes = Changes::default();
    let lock = lock(root)?;
    for path in [SHADOW, PASSWD] {
        let Some(mut table) = Table::read(root, path)? else { continue };
        if table.field("root", 1) == Some("") {
            table.set_field("root", 1, "!!");
            table.save(root, &mut changes)?;
        }
    }
    drop(lock);
    Ok(changes)
}

/// A file of lines with fields between colons, of which the first is a name.
struct Table {
    path: &'static str,
    lines: Vec<String>,
    encoding: Encoding,
}

impl Table {
    fn read(root: &GuestRoot, path: &'static str) -> Result<Option<Self>, DistError> {
        let Some(content) = root.read(path)? else { return Ok(None) };
        let (text, encoding) = text::decode(&content);
        Ok(Some(Self { path, lines: text.lines().map(str::to_owned).collect(), encoding }))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.lines.iter().position(|line| line.split(':').next() == Some(name))
    }

    fn field(&self, name: &str, number: usize) -> Option<&str> {
        self.lines[self.find(name)?].split(':').nth(number)
    }

    fn set_field(&mut self, name: &str, number: usize, value: &str) {
        let Some(line) = self.find(name) else { return };
        let mut fields: Vec<&str> = self.lines[line].split(':').collect();
        fields.resize(fields.len().max(number + 1), "");
        fields[number] = value;
        self.lines[line] = fields.join(":");
    }

    /// The ids in the third field.
    fn ids(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().filter_map(|line| line.split(':').nth(2)?.parse().ok())
    }

    /// Before the lines of NIS, which stand for "all others".
    fn add(&mut self, line: String) {
        let at = self.lines.iter().position(|line| line.starts_with(['+', '-'])).unwrap_or(self.lines.len());
        self.lines.insert(at, line);
    }

    fn save(&self, root: &GuestRoot, changes: &mut Changes) -> Result<(), DistError> {
        let content = text::encode(&text::join(self.lines.iter().map(String::as_str)), self.encoding);
        if root.write(self.path, &content, 0o600, Durability::Synced)? {
            changes.paths.push(self.path.to_owned());
        }
        Ok(())
    }
}

fn shadow_password(shadow: &mut Table, user: &str, hash: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = (now.as_secs() / DAY).to_string();
    if shadow.find(user).is_some() {
        shadow.set_field(user, 1, hash);
        shadow.set_field(user, 2, &today);
    } else {
        shadow.add(format!("{user}:{hash}:{today}:0:99999:7:::"));
    }
}

/// Adds the user's lines; passwd is saved by the caller.
fn add_user(
    root: &GuestRoot,
    passwd: &mut Table,
    user: &str,
    login_defs: &str,
    changes: &mut Changes,
) -> Result<(String, Owner), DistError> {
    let least = password::number(login_defs, "UID_MIN").filter(|min| (100..UID_MAX).contains(min));
    let least = least.unwrap_or(1000);
    let mut group = Table::read(root, GROUP)?;
    let gids: Vec<u32> = group.iter().flat_map(Table::ids).collect();
    let uids: Vec<u32> = passwd.ids().collect();
    let uid = free(least, |id| uids.contains(&id) || gids.contains(&id));
    let known = group.as_ref().and_then(|group| group.field(user, 2)?.parse().ok());
    let gid = known.unwrap_or(uid);
    if let (Some(group), None) = (&mut group, known) {
        group.add(format!("{user}:x:{gid}:"));
        if let Some(mut gshadow) = Table::read(root, GSHADOW)?
            && gshadow.find(user).is_none()
        {
            gshadow.add(format!("{user}:!::"));
            gshadow.save(root, changes)?;
        }
        group.save(root, changes)?;
    }
    let useradd = root.text("/etc/default/useradd");
    let shell = password::default_shell(&useradd).filter(|shell| root.exists(shell));
    let shell = shell.unwrap_or(if root.exists("/bin/bash") { "/bin/bash" } else { "/bin/sh" });
    let home = format!("/home/{user}");
    passwd.add(format!("{user}:x:{uid}:{gid}::{home}:{shell}"));
    Ok((home, Owner { uid, gid }))
}

fn free(least: u32, taken: impl Fn(u32) -> bool) -> u32 {
    (least..UID_MAX).find(|id| !taken(*id)).unwrap_or(UID_MAX)
}

/// Held until dropped.
fn lock(root: &GuestRoot) -> Result<OwnedFd, DistError> {
    let path = Path::new(LOCK);
    let fd = root.open_lock(path)?;
    let end = Instant::now() + LOCK_TIME;
    loop {
        match fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(Errno::AGAIN | Errno::ACCESS) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(DistError::Locked { path: path.to_owned() }),
            Err(errno) => return Err(super::root::call("fcntl", path, errno)),
        }
    }
}
