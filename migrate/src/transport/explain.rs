//! What ssh's messages mean, and what to do about them.

/// Words that ssh says, what they mean, and what to do; `HOST` stands for the destination.
const KNOWN: [(&str, &str, &str); 9] = [
    (
        "Permission denied",
        "Can't connect to destination address using public key",
        "Please put your public key to destination node: ssh-copy-id HOST",
    ),
    (
        "Host key verification failed",
        "the host key of HOST is not known, or has changed",
        "Connect once by hand and compare its fingerprint: ssh HOST",
    ),
    (
        "Could not resolve hostname",
        "there is no host of the name HOST",
        "Look for a slip of the pen; or give its address",
    ),
    (
        "Connection refused",
        "no ssh server answers on HOST",
        "Is sshd running there, on this port? --ssh=\"-p PORT\"",
    ),
    (
        "Connection timed out",
        "HOST does not answer",
        "Is it up, and is there no firewall in between? ping HOST",
    ),
    ("No route to host", "HOST cannot be reached", "Is it up? ping HOST"),
    ("Network is unreachable", "HOST cannot be reached", "Is there a route to it? ip route get HOST"),
    ("Bad owner or permissions", "ssh does not trust its own files", "See ssh's message above"),
    ("not responding", "the connection to HOST was lost", "Try again once the network is back"),
];

/// What a failed ssh means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explained {
    pub(super) text: String,
    pub(super) hint: Option<String>,
}

/// From ssh's last words and its exit code, if it has ended by one.
pub(super) fn explain(host: &str, said: &[String], code: Option<i32>) -> Explained {
    let last = said.last().map_or("", String::as_str);
    if code == Some(127) || code == Some(126) {
        return Explained {
            text: format!("vzmigrate is not installed on {host}"),
            hint: Some(format!("Install the same version there. ({last})")),
        };
    }
    let known = KNOWN.iter().find(|(words, ..)| said.iter().any(|line| line.contains(words)));
    match known {
        Some((_, text, hint)) => Explained {
            text: format!("{} ({last})", text.replace("HOST", host)),
            hint: Some(hint.replace("HOST", host)),
        },
        None if last.is_empty() => {
            Explained { text: format!("the connection to {host} was lost"), hint: None }
        }
        None => Explained { text: format!("the connection to {host} was lost ({last})"), hint: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_is_explained() {
        let case = |said: &str, code| explain("root@b", &[said.to_owned()], code);
        let denied = case("root@b: Permission denied (publickey).", Some(255));
        assert!(denied.text.starts_with("Can't connect to destination address using public key"));
        assert_eq!(
            denied.hint.as_deref(),
            Some("Please put your public key to destination node: ssh-copy-id root@b")
        );
        assert!(
            case("sh: 1: exec: vzmigrate: not found", Some(127)).text.contains("not installed on root@b")
        );
        assert!(
            case("ssh: connect to host b port 22: Connection refused", Some(255))
                .text
                .contains("no ssh server")
        );
        assert_eq!(explain("b", &[], None).text, "the connection to b was lost");
    }
}
