use super::*;
use crate::units::page_size;

/// Every option with a value it takes and what that is stored as, and values it refuses.
const CASES: &[(&str, &str, &str, &[&str])] = &[
    ("onboot", "yes", "yes", &["YES", "1", "", "auto"]),
    ("bootorder", "10", "10", &["-1", "x", "", "1.5"]),
    ("root", "/vz/root/$VEID/", "/vz/root/$VEID", &["", "rel/ative", "$VEID"]),
    ("private", "/vz/private/${VEID}", "/vz/private/${VEID}", &["", "x"]),
    ("layout", "ploop:expanded", "ploop:expanded", &["zfs", "simfs:raw", ""]),
    ("config", "vswap-256m", "vswap-256m", &["", "a/b", "..", "a b"]),
    ("ostemplate", "debian-12-x86_64-minimal", "debian-12-x86_64-minimal", &["../x", "", "a b"]),
    ("name", "web 1", "web 1", &["a/b", "..", "a*b"]),
    ("description", "any \"text\" $HOME", "any \"text\" $HOME", &["two\nlines"]),
    ("disabled", "no", "no", &["1", "No"]),
    ("stop-timeout", "0", "0", &["-1", "soon", "4294967296"]),
    ("userpasswd", "root:a:b c", "root:a:b c", &["root", ":x", "root:", "a b:c", "r:x\ny"]),
    ("mount_opts", "noatime,nodelalloc", "noatime,nodelalloc", &["a b", "a;b"]),
    ("local_uid", "100000", "100000", &["-1", "4294967295"]),
    ("local_gid", "0", "0", &["x"]),
    ("applyconfig", "basic", "basic", &["/etc/passwd"]),
    ("applyconfig_map", "name", "name", &["names", ""]),
    ("ipadd", "10.0.0.1 2001:DB8:0::1/64", "10.0.0.1 2001:db8::1/64", &["10.0.0", "host", "1.2.3.4/33"]),
    ("ipdel", "all", "all", &["", "x"]),
    ("hostname", "a.example.org", "a.example.org", &["a b", "-a", "a..b", "x\"y"]),
    ("nameserver", "10.0.0.53", "10.0.0.53", &["ns.example.org", "inherit 10.0.0.1"]),
    ("searchdomain", "example.org", "example.org", &["a/b", "-x"]),
    ("netif_add", "eth0", "eth0", &["", "sixteen-letters-", "eth0,zz"]),
    ("netif_del", "all", "all", &["", "a b"]),
    ("ifname", "eth0", "eth0", &["", "a/b"]),
    ("mac", "00:18:51:aa:bb:cc", "00:18:51:AA:BB:CC", &["", "00:18:51"]),
    ("host_ifname", "veth101.0", "veth101.0", &["", "sixteen-letters-"]),
    ("host_mac", "00:18:51:AA:BB:CD", "00:18:51:AA:BB:CD", &["ff:ff:ff:ff:ff:ff"]),
    ("bridge", "vmbr0", "vmbr0", &["a b"]),
    ("mac_filter", "off", "off", &["no", ""]),
    ("netdev_add", "eth1", "eth1", &["lo", "venet0", "tun3", "tap0"]),
    ("netdev_del", "eth1", "eth1", &["", "lo"]),
    ("swap", "unlimited", "0:unlimited", &["-1", "1:2", "x"]),
    ("vm_overcommit", "1.5", "1.5", &["x", "-1", "inf", "1e3", ""]),
    ("cpuunits", "8", "8", &["7", "500001", "x"]),
    ("cpuweight", "100", "100", &["0", "x"]),
    ("cpulimit", "200", "200", &["101%", "x", "-1", "1.5", ""]),
    ("cpuburst", "50", "50", &["x", "-1", "409601", ""]),
    ("cpus", "2", "2", &["-1", "4097"]),
    ("cpumask", "7,0,1-2", "0-2,7", &["x", "3-1", "", "4096"]),
    ("nodemask", "all", "all", &["auto", "x"]),
    ("diskspace", "2G:2.2G", "2097152:2306867", &["unlimited", "x", "1:unlimited", ""]),
    ("diskinodes", "200000:220000", "200000:220000", &["unlimited", "2K"]),
    ("diskquota", "no", "no", &["off"]),
    ("quotatime", "0", "0", &["-1", "1h"]),
    ("quotaugidlimit", "100", "100", &["-1", "unlimited"]),
    ("ioprio", "7", "7", &["8", "-1"]),
    ("iolimit", "5", "5242880", &["5T", "x", "", "-1"]),
    ("iopslimit", "unlimited", "0", &["1K", ""]),
    ("devnodes", "net/tun:rw", "net/tun:rw", &["../sda:rw", "fuse", "fuse:x"]),
    ("devices", "c:10:200:rw", "c:10:200:rw", &["b:7:0:rw", "c:10:200", "x:1:1:r"]),
    ("pci_add", "3:1f.7", "0000:03:1f.7", &["3:1f", "g:1.0"]),
    ("pci_del", "0000:03:1f.7", "0000:03:1f.7", &[""]),
    (
        "capability",
        "net_admin:on,Sys_Time:off",
        "NET_ADMIN:on SYS_TIME:off",
        &["flying:on", "net_admin", "chown:yes"],
    ),
    ("features", "NFS:on,procbc:off", "nfs:on procbc:off", &["wings:on", "nfs"]),
    ("netfilter", "stateful", "stateful", &["none", "Full", ""]),
    ("iptables", "ipt_REJECT,xt_mac", "ipt_REJECT xt_mac", &["nothing"]),
    ("meminfo", "pages:1024", "pages:1024", &["pages:0", "pages", "all:1", "pages:-1"]),
    ("setmode", "ignore", "ignore", &["", "no"]),
];

#[test]
fn every_value_option_has_a_case_that_is_stored_and_cases_that_are_refused() {
    for param in PARAMS.iter().filter(|p| p.takes_value()) {
        let is_ubc = matches!(param.kind, Kind::Ubc(_));
        assert!(
            is_ubc || param.option == "ram" || CASES.iter().any(|c| c.0 == param.option),
            "{}",
            param.option
        );
    }
    for (option, value, stored, refused) in CASES {
        let kind = by_option(option).unwrap().kind;
        assert_eq!(kind.canonical(value, Origin::Option).as_deref(), Ok(*stored), "--{option} {value}");
        for value in *refused {
            let allowed = kind.canonical(value, Origin::Option).unwrap_err();
            assert!(!allowed.is_empty(), "--{option} {value}");
        }
        // What is stored is read back as it is (bytes, not megabytes).
        if by_option(option).unwrap().key.is_some() && kind != Kind::NetifAdd && kind != Kind::Ram {
            assert_eq!(kind.canonical(stored, Origin::File).as_deref(), Ok(*stored), "{option}={stored}");
        }
    }
}

#[test]
fn beancounters_have_their_units() {
    let ubcs: Vec<_> = PARAMS.iter().filter(|p| matches!(p.kind, Kind::Ubc(_))).collect();
    assert_eq!(ubcs.len(), 22);
    for param in ubcs {
        assert_eq!(param.key, Some(param.option.to_uppercase().as_str()));
        let with_suffix = param.kind.canonical("1M", Origin::Option);
        let name = param.option;
        if name.starts_with("num") || name == "avnumproc" {
            assert!(with_suffix.is_err(), "{name}");
        } else if name.ends_with("pages") {
            assert_eq!(with_suffix, Ok(((1u64 << 20) / page_size()).to_string()), "{name}");
        } else {
            assert_eq!(with_suffix, Ok("1048576".to_string()), "{name}");
        }
        assert_eq!(param.kind.canonical("5:unlimited", Origin::Option), Ok("5:unlimited".to_string()));
        assert_eq!(param.kind.canonical("7:7", Origin::Option), Ok("7".to_string()));
        assert!(param.kind.canonical("9223372036854775808", Origin::Option).is_err());
        assert_eq!(param.kind.canonical("9223372036854775808", Origin::File), Ok("unlimited".to_string()));
    }
}

#[test]
fn ram_is_rounded_up_to_pages() {
    let ram = by_option("ram").unwrap();
    let page = page_size();
    for (value, pages) in
        [("256M", (256 << 20) / page), ("1", 1), ("0", 0), (&format!("{}", page + 1), 2), ("3p", 3)]
    {
        assert_eq!(ram.kind.canonical(value, Origin::Option), Ok(format!("0:{pages}")), "{value}");
    }
    assert_eq!(ram.key, Some("PHYSPAGES"));
    assert_eq!(by_key("PHYSPAGES").unwrap().option, "physpages");
}

#[test]
fn limits_have_their_command_line_units() {
    let iolimit = by_option("iolimit").unwrap().kind;
    for (value, bytes) in [
        ("1B", "1"),
        ("2K", "2048"),
        ("1.5M", "1572864"),
        ("unlimited", "0"),
        ("0", "0"),
        ("9999", "2147483647"),
    ] {
        assert_eq!(iolimit.canonical(value, Origin::Option).as_deref(), Ok(bytes), "{value}");
    }
    assert_eq!(iolimit.canonical("512", Origin::File).as_deref(), Ok("512"));
    assert_eq!(by_option("cpulimit").unwrap().kind.canonical("50%", Origin::Option).as_deref(), Ok("50%"));
}

#[test]
fn names_are_unique_and_rows_complete() {
    let mut names: Vec<&str> =
        PARAMS.iter().flat_map(|p| p.aliases.iter().chain([&p.option]).copied()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for param in PARAMS {
        assert!(!param.help.is_empty() && !param.verbs.is_empty(), "{}", param.option);
        assert_eq!(param.takes_value(), !param.syntax.is_empty(), "{}", param.option);
    }
}

#[test]
fn verbs_take_what_they_take() {
    let create: Vec<&str> = of(Verb::Create).map(|p| p.option).collect();
    for option in [
        "ostemplate",
        "config",
        "layout",
        "diskspace",
        "diskinodes",
        "private",
        "root",
        "ipadd",
        "hostname",
        "name",
        "description",
        "local_uid",
        "local_gid",
    ] {
        assert!(create.contains(&option), "{option}");
    }
    assert_eq!(create.len(), 13);
    let set: Vec<&str> = of(Verb::Set).map(|p| p.option).collect();
    assert!(["layout", "config", "local_uid", "local_gid"].iter().all(|o| !set.contains(o)));
    for option in
        ["capability", "iptables", "netfilter", "features", "quotaugidlimit", "diskquota", "mount_opts"]
    {
        assert!(by_option(option).unwrap().restart_required(), "{option}");
    }
    assert_eq!(PARAMS.iter().filter(|p| p.restart_required()).count(), 7);
    for option in ["name", "ostemplate", "stop-timeout"] {
        assert!(by_option(option).unwrap().needs_save, "{option}");
    }
    for (alias, option) in
        [("ip", "ipadd"), ("ve_layout", "layout"), ("velayout", "layout"), ("offline", "offline-resize")]
    {
        assert_eq!(by_option(alias).unwrap().option, option);
    }
}
