//! The fixed sentences of failures, which clients match, and the hints after them, which people read.

use vzconf::Exit;

/// The sentence a verb must say when it ends with `exit`, and its level.
pub(super) fn fixed(verb: &str, exit: Exit) -> Option<(i32, &'static str)> {
    let sentence = match (verb, exit) {
        ("destroy", Exit::VeRunning) => return Some((0, "Container is currently running. Stop it first.")),
        ("destroy", Exit::FsMounted) => "Container is currently mounted (umount first)",
        ("umount", Exit::VeRunning) => "Container is running -- stop it first",
        ("umount", Exit::FsNotMounted) => "CT is not mounted",
        ("start", Exit::VeRunning) => "Container is already running",
        ("start" | "restart", Exit::VeStartDisabled) => "Container start disabled",
        ("enter" | "exec" | "exec2" | "exec3", Exit::VeNotRunning) => "Container is not running",
        ("create", Exit::VeOstemplateNotSet) => "OS template is not specified",
        (_, Exit::NoVeConfig) => "Container config file does not exist",
        (_, Exit::Locked) => "Container already locked",
        _ => return None,
    };
    Some((-1, sentence))
}

/// What to do about a failure. `ct` is the container as the user named it.
pub(super) fn hint(verb: &str, exit: Exit, ct: &str) -> Option<String> {
    Some(match (verb, exit) {
        (_, Exit::VeNotRunning) => format!("Container {ct} is not running; start it with: vzctl start {ct}"),
        ("start", Exit::VeRunning) => format!("To start it anew: vzctl restart {ct}"),
        ("destroy" | "umount", Exit::VeRunning) => {
            format!("Container {ct} is running; stop it with: vzctl stop {ct}")
        }
        ("destroy", Exit::FsMounted) => {
            format!("Container {ct} is mounted; unmount it with: vzctl umount {ct}")
        }
        ("start" | "restart", Exit::VeStartDisabled) => {
            format!(
                "Start it all the same: vzctl start {ct} --force; enable it: vzctl set {ct} --disabled no --save"
            )
        }
        ("create", Exit::FsPrvtAreaExist) => {
            format!("Container {ct} seems to exist: vzctl status {ct}; remove it with: vzctl destroy {ct}")
        }
        ("create", Exit::VeOstemplateNotSet) => {
            "Give one with --ostemplate, or set DEF_OSTEMPLATE in /etc/vz/vz.conf; see: vztmpl list"
                .to_owned()
        }
        (_, Exit::OstemplateNotFound) => {
            "Templates in the cache: vztmpl list; make one: vztmpl build".to_owned()
        }
        (_, Exit::NoVeConfig) => {
            format!("There is no container {ct}; all containers: vzlist -a; make it: vzctl create {ct}")
        }
        (_, Exit::Locked) => "Another command works on the container; try again when it has ended".to_owned(),
        (_, Exit::NoConfig) => "Is it installed? It needs /etc/vz/vz.conf".to_owned(),
        (_, Exit::Stop) => format!("Kill it with: vzctl stop {ct} --fast"),
        (_, Exit::IpInUse) => "Who has it: vzlist -a -o ctid,ip".to_owned(),
        (_, Exit::SetName) => "Names in use: vzlist -a -o ctid,name".to_owned(),
        (_, Exit::CpConfig | Exit::ApplyConfig) => "Samples: ls /etc/vz/conf/ve-*.conf-sample".to_owned(),
        (_, Exit::FsCantUmount) => {
            format!("A program of the host is at work in it: fuser -vm $(vzlist -aHo root {ct})")
        }
        (_, Exit::FsNoDiskSpace) => "Free space: df -h /vz".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_their_sentences() {
        for (verb, exit, level, sentence) in [
            ("start", Exit::VeRunning, -1, "Container is already running"),
            ("exec", Exit::VeNotRunning, -1, "Container is not running"),
            ("enter", Exit::VeNotRunning, -1, "Container is not running"),
            ("umount", Exit::FsNotMounted, -1, "CT is not mounted"),
            ("destroy", Exit::VeRunning, 0, "Container is currently running. Stop it first."),
            ("set", Exit::Locked, -1, "Container already locked"),
            ("stop", Exit::NoVeConfig, -1, "Container config file does not exist"),
        ] {
            assert_eq!(fixed(verb, exit), Some((level, sentence)), "{verb} {exit:?}");
        }
        assert_eq!(fixed("set", Exit::VeRunning), None);
    }

    #[test]
    fn hints_name_the_container_as_the_user_did() {
        assert_eq!(
            hint("exec", Exit::VeNotRunning, "web").as_deref(),
            Some("Container web is not running; start it with: vzctl start web")
        );
        assert_eq!(hint("set", Exit::SetIo, "1"), None);
    }
}
