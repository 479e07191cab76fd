//! The image's user, by the files of the VE.

/// Who runs the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// `user`, `uid`, `user:group`, `uid:gid`; root when empty.
pub(super) fn find(word: &str) -> Result<User, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    resolve(word, &read("/etc/passwd"), &read("/etc/group"))
}

fn resolve(word: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_word) = match word.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (word, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 4 && (fields[0] == name || name.parse::<u32>().is_ok() && fields[2] == name)
    });
    let uid = match (&entry, name.parse()) {
        (Some(fields), _) => fields[2].parse().map_err(|_| format!("/etc/passwd is damaged at {name}"))?,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(format!("/etc/passwd knows no {name}")),
    };
    let groups: Vec<Vec<&str>> = group
        .lines()
        .map(|line| line.split(':').collect())
        .filter(|fields: &Vec<&str>| fields.len() >= 4)
        .collect();
    let id = |fields: &Vec<&str>| fields[2].parse::<u32>().ok();
    let gid = match group_word {
        Some(word) => {
            groups.iter().find(|fields| fields[0] == word).and_then(id).or_else(|| word.parse().ok())
        }
        None => Some(entry.as_ref().and_then(|fields| fields[3].parse().ok()).unwrap_or(0)),
    };
    let gid = gid.ok_or_else(|| format!("/etc/group knows no {}", group_word.unwrap_or_default()))?;
    let login = entry.as_ref().map_or("", |fields| fields[0]);
    let member = |fields: &&Vec<&str>| !login.is_empty() && fields[3].split(',').any(|one| one == login);
    // A group that is named replaces those that the user is in.
    let mut all: Vec<u32> = match group_word {
        Some(_) => Vec::new(),
        None => groups.iter().filter(member).filter_map(id).collect(),
    };
    if !all.contains(&gid) {
        all.insert(0, gid);
    }
    let home = entry.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    Ok(User {
        uid,
        gid,
        groups: all,
        home: home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:web,other\nshort\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let of = |word: &str| {
            let user = resolve(word, PASSWD, GROUP).unwrap();
            (user.uid, user.gid, user.groups, user.home)
        };
        assert_eq!(of(""), (0, 0, vec![0], "/root".to_owned()));
        assert_eq!(of("web"), (33, 34, vec![34, 4], "/srv".to_owned()));
        assert_eq!(of("33"), (33, 34, vec![34, 4], "/srv".to_owned()));
        assert_eq!(of("web:log"), (33, 4, vec![4], "/srv".to_owned()));
        assert_eq!(of("1000"), (1000, 0, vec![0], "/".to_owned()));
        assert_eq!(of("1000:1001"), (1000, 1001, vec![1001], "/".to_owned()));
        assert!(resolve("nobody", PASSWD, GROUP).is_err());
        assert!(resolve("web:none", PASSWD, GROUP).is_err());
        assert!(resolve("x", "", "").is_err());
    }
}
