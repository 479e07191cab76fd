use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{ConfFile, Config, Ctid, NetIf, Paths};

const NODE: Node = Node { cpus: 4, mac: Mac([0x52, 0x54, 0, 0, 0, 1]) };

struct Bench {
    _dir: tempfile::TempDir,
    config: Config,
    file: ConfFile,
}

fn bench(global: &str, ve: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    fs::create_dir_all(paths.conf_dir()).unwrap();
    fs::write(paths.vz_conf(), global).unwrap();
    let ctid = Ctid::new(101).unwrap();
    fs::write(paths.ve_conf(ctid), ve).unwrap();
    let config = Config::load(&paths, ctid).unwrap();
    let file = config.file().unwrap().clone();
    Bench { _dir: dir, config, file }
}

impl Bench {
    fn apply(&mut self, options: &[(&str, &str)]) -> Result<Vec<Changed>, Error> {
        let changes = Changes::from_options(Verb::Set, options)?;
        changes.apply_to(&mut self.file, &self.config, self.config.ctid().unwrap(), &NODE)
    }
}

/// The value of `key` after the options were merged into `ve`.
fn merged(ve: &str, options: &[(&str, &str)], key: &str) -> String {
    let mut bench = bench("", ve);
    bench.apply(options).unwrap();
    bench.file.get(key).unwrap_or("(absent)").to_string()
}

/// A VE's config, options, and what a key is afterwards.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

const MERGES: &[Case] = &[
    (
        "IP_ADDRESS=\"10.0.0.1\"",
        &[("ipadd", "10.0.0.2"), ("ip", "10.0.0.3 10.0.0.1")],
        "IP_ADDRESS",
        "10.0.0.1 10.0.0.2 10.0.0.3",
    ),
    (
        "IP_ADDRESS=1.1.1.1\nIP_ADDRESS=2.2.2.2",
        &[("ipadd", "3.3.3.3")],
        "IP_ADDRESS",
        "1.1.1.1 2.2.2.2 3.3.3.3",
    ),
    ("IP_ADDRESS=\"1.1.1.1 2.2.2.2\"", &[("ipadd", "1.1.1.1/24")], "IP_ADDRESS", "2.2.2.2 1.1.1.1/24"),
    ("IP_ADDRESS=\"1.1.1.1/24 2.2.2.2\"", &[("ipdel", "1.1.1.1")], "IP_ADDRESS", "2.2.2.2"),
    ("IP_ADDRESS=\"1.1.1.1\"", &[("ipadd", "9.9.9.9"), ("ipdel", "all")], "IP_ADDRESS", "9.9.9.9"),
    ("IP_ADDRESS=\"1.1.1.1\"", &[("ipdel", "all")], "IP_ADDRESS", ""),
    ("", &[("ipadd", "0.0.0.0"), ("ipadd", "::"), ("ipadd", "2001:DB8::1")], "IP_ADDRESS", "2001:db8::1"),
    ("", &[("ipadd", "0.0.0.0")], "IP_ADDRESS", "(absent)"),
    (
        "NAMESERVER=\"1.1.1.1\"",
        &[("nameserver", "2.2.2.2"), ("nameserver", "3.3.3.3")],
        "NAMESERVER",
        "2.2.2.2 3.3.3.3",
    ),
    ("NAMESERVER=\"1.1.1.1\"", &[("nameserver", "inherit")], "NAMESERVER", "inherit"),
    (
        "SEARCHDOMAIN=\"a.org\"",
        &[("searchdomain", "b.org"), ("searchdomain", "b.org")],
        "SEARCHDOMAIN",
        "b.org",
    ),
    ("FEATURES=\"nfs:on\"", &[("features", "ppp:on,nfs:off")], "FEATURES", "nfs:off ppp:on"),
    (
        "CAPABILITY=\"NET_ADMIN:on\"",
        &[("capability", "net_admin:off"), ("capability", "sys_time:on")],
        "CAPABILITY",
        "NET_ADMIN:off SYS_TIME:on",
    ),
    (
        "DEVICES=\"c:10:200:rw\"",
        &[("devices", "b:8:all:r"), ("devices", "c:10:200:none")],
        "DEVICES",
        "b:8:all:r",
    ),
    (
        "DEVNODES=\"fuse:r\"",
        &[("devnodes", "fuse:rw"), ("devnodes", "net/tun:rw")],
        "DEVNODES",
        "fuse:rw net/tun:rw",
    ),
    ("PCI=\"0000:01:00.0\"", &[("pci_add", "2:0.0"), ("pci_del", "1:0.0")], "PCI", "0000:02:00.0"),
    ("NETDEV=\"eth1\"", &[("netdev_add", "eth2"), ("netdev_del", "eth1")], "NETDEV", "eth2"),
    ("", &[("ram", "256M")], "PHYSPAGES", "0:65536"),
    ("", &[("cpulimit", "50%")], "CPULIMIT", "200"),
    ("", &[("cpulimit", "50%"), ("cpulimit", "30")], "CPULIMIT", "30"),
    ("", &[("iolimit", "10")], "IOLIMIT", "10485760"),
    ("", &[("diskspace", "1G:2G")], "DISKSPACE", "1048576:2097152"),
    // libvirt wants both values of these, and nobody minds.
    ("", &[("diskspace", "1G")], "DISKSPACE", "1048576:1048576"),
    ("", &[("diskinodes", "5:5")], "DISKINODES", "5:5"),
    ("", &[("numproc", "5:5")], "NUMPROC", "5"),
    ("KMEMSIZE=1:2\nKMEMSIZE=3:4", &[("kmemsize", "5:6"), ("kmemsize", "7:8")], "KMEMSIZE", "7:8"),
    ("HOSTNAME=a", &[("hostname", "")], "HOSTNAME", ""),
    ("", &[("iptables", "xt_mac nonsense")], "IPTABLES", "xt_mac"),
    ("", &[("cpumask", "auto"), ("nodemask", "0-1")], "NODEMASK", "0-1"),
];

#[test]
fn merges() {
    for (ve, options, key, want) in MERGES.iter().copied() {
        // Pages of other sizes would need other numbers.
        if key != "PHYSPAGES" || crate::units::page_size() == 4096 {
            assert_eq!(merged(ve, options, key), want, "{ve:?} {options:?}");
        }
    }
}

#[test]
fn veth_devices_are_added_edited_and_removed() {
    let mut b = bench("", "");
    b.apply(&[("netif_add", "eth0"), ("netif_add", "eth1,,,,br0")]).unwrap();
    let list = NetIf::parse_list(b.file.get("NETIF").unwrap()).unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[1].host_ifname.as_deref(), Some("veth101.1"));
    assert!(list.iter().all(|n| n.mac.is_some() && n.host_mac.is_some() && n.mac != n.host_mac));
    b.apply(&[
        ("bridge", "br9"),
        ("ifname", "eth0"),
        ("mac_filter", "off"),
        ("ifname", "eth1"),
        ("bridge", ""),
    ])
    .unwrap();
    let list = NetIf::parse_list(b.file.get("NETIF").unwrap()).unwrap();
    assert_eq!(
        (list[0].bridge.as_deref(), list[0].mac_filter, list[1].bridge.as_deref()),
        (Some("br9"), Some(false), None)
    );
    assert_eq!(b.apply(&[("netif_add", "eth0,00:18:51:00:00:01")]).unwrap_err().exit().code(), 21);
    assert_eq!(b.apply(&[("netif_add", "eth1")]).unwrap(), [], "the same device again is no change");
    assert_eq!(b.apply(&[("netif_del", "eth7")]).unwrap_err().exit().code(), 21);
    b.apply(&[("netif_add", "eth2"), ("ifname", "eth2"), ("bridge", "br2"), ("netif_del", "eth0")]).unwrap();
    let list = NetIf::parse_list(b.file.get("NETIF").unwrap()).unwrap();
    assert_eq!(list.iter().map(|n| n.ifname.as_str()).collect::<Vec<_>>(), ["eth1", "eth2"]);
    assert_eq!(list[1].bridge.as_deref(), Some("br2"));
    let error = b.apply(&[("bridge", "br0")]).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.exit().code()),
        ("Invalid usage.  Option --ifname not specified", 20)
    );
    assert_eq!(b.apply(&[("ifname", "eth9"), ("bridge", "br0")]).unwrap_err().exit().code(), 20);
    b.apply(&[("netif_del", "all")]).unwrap();
    assert_eq!(b.file.get("NETIF"), Some(""));
}

#[test]
fn changes_are_told_once_with_old_and_new_and_when() {
    let mut b = bench("CPUUNITS=500\nFEATURES=\"nfs:on\"\n", "ONBOOT=\"yes\"\nQUOTAUGIDLIMIT=5\n");
    let changed = b
        .apply(&[
            ("onboot", "yes"),
            ("cpuunits", "700"),
            ("features", "ppp:on"),
            ("quotaugidlimit", "6"),
            ("ipdel", "all"),
        ])
        .unwrap();
    let told: Vec<_> =
        changed.iter().map(|c| (c.key.as_str(), c.old.as_deref(), c.new.as_str(), c.applies)).collect();
    use crate::params::Applies::{Live, Restart};
    assert_eq!(
        told,
        [
            ("CPUUNITS", Some("500"), "700", Live),
            ("FEATURES", Some("nfs:on"), "nfs:on ppp:on", Restart),
            ("QUOTAUGIDLIMIT", Some("5"), "6", Live),
        ]
    );
    let changed = b.apply(&[("quotaugidlimit", "0")]).unwrap();
    assert_eq!(changed[0].applies, Restart);
    assert_eq!(b.apply(&[("cpuunits", "700")]).unwrap(), []);
}

#[test]
fn a_sample_gives_limits_but_not_identity() {
    let mut b = bench("", "HOSTNAME=\"mine\"\nVE_ROOT=\"/r/$VEID\"\nKMEMSIZE=\"1:2\"\n");
    let sample = "KMEMSIZE=\"3:4\"\nHOSTNAME=\"theirs\"\nVE_ROOT=\"/x\"\nNAME=\"n\"\nDESCRIPTION=\"d\"\nOSTEMPLATE=\"o\"\nCPUUNITS=\"1\"\nFOO=\"bar\"\n";
    fs::write(b.config.paths().sample("s"), sample).unwrap();
    b.apply(&[("applyconfig", "s"), ("numproc", "9")]).unwrap();
    let want = [
        ("KMEMSIZE", Some("3:4")),
        ("HOSTNAME", Some("mine")),
        ("VE_ROOT", Some("/r/$VEID")),
        ("NAME", None),
        ("DESCRIPTION", None),
        ("OSTEMPLATE", None),
        ("CPUUNITS", None),
        ("FOO", Some("bar")),
        ("NUMPROC", Some("9")),
        ("ORIGIN_SAMPLE", Some("s")),
    ];
    for (key, value) in want {
        assert_eq!(b.file.get(key), value, "{key}");
    }
    assert_eq!(b.apply(&[("applyconfig", "nope")]).unwrap_err().exit().code(), 109);
}

#[test]
fn refusals_have_the_documented_codes() {
    for (verb, options, code) in [
        (Verb::Set, &[("cpuunits", "7")][..], 21),
        (Verb::Set, &[("nonsense", "7")], 21),
        (Verb::Set, &[("local_uid", "7")], 21),
        (Verb::Create, &[("cpuunits", "1000")], 21),
        (Verb::Set, &[("name", "web")], 131),
        (Verb::Set, &[("ostemplate", "x")], 20),
        (Verb::Set, &[("stop-timeout", "5")], 20),
        (Verb::Set, &[("force", "")], 20),
        (Verb::Set, &[("setmode", "restart")], 20),
        (Verb::Set, &[("reset_ub", ""), ("onboot", "yes")], 20),
        (Verb::Set, &[("cpumask", "auto")], 20),
        (Verb::Set, &[("nodemask", "0")], 20),
        (Verb::Set, &[("description", "a\nb")], 21),
    ] {
        let error = Changes::from_options(verb, options).unwrap_err();
        assert_eq!(error.exit().code(), code, "{options:?}: {error}");
    }
    let error = Changes::from_options(Verb::Set, &[("cpuunits", "7")]).unwrap_err();
    assert_eq!(error.to_string(), "Bad parameter for --cpuunits: 7 (expected a number from 8 to 500000)");
    let error = Changes::from_options(Verb::Set, &[("userpasswd", "secret")]).unwrap_err();
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn flags_and_the_rest_are_kept_apart() {
    let options = [
        ("save", ""),
        ("setmode", "ignore"),
        ("skip_arpdetect", ""),
        ("offline", ""),
        ("userpasswd", "root:a:b"),
        ("applyconfig_map", "name"),
        ("name", "web"),
        ("ram", "1G"),
        ("physpages", "7"),
    ];
    let changes = Changes::from_options(Verb::Set, &options).unwrap();
    assert!(changes.save && changes.skip_arpdetect && changes.offline_resize && changes.applyconfig_map);
    assert_eq!(changes.setmode, Some(SetMode::Ignore));
    assert_eq!((changes.passwords[0].user.as_str(), changes.passwords[0].password.as_str()), ("root", "a:b"));
    assert!(!format!("{changes:?}").contains("a:b"));
    assert_eq!(
        (changes.value("name"), changes.value("ram"), changes.value("physpages")),
        (Some("web"), None, Some("7"))
    );
    assert!(changes.has("ram"));
    assert!(Changes::from_options(Verb::Set, &[("save", "")]).unwrap().is_empty());
    let create = Changes::from_options(Verb::Create, &[("config", "basic"), ("name", "web")]).unwrap();
    assert_eq!(create.config.as_deref(), Some("basic"));
    assert_eq!(create.value("name"), Some("web"));
}

#[test]
fn unknown_keys_and_comments_survive_every_option() {
    for param in crate::params::of(Verb::Set).filter(|p| p.repeats || p.key.is_some()) {
        let text = "#UUID: 1\nMINE='x y'\n\nFOO=bar # odd";
        let mut b = bench("", text);
        // Not every option takes "1", but what is taken must leave the rest alone.
        if b.apply(&[(param.option, "1"), ("save", "")]).is_ok() {
            assert!(b.file.to_string().starts_with(text), "--{}:\n{}", param.option, b.file);
        }
    }
}

proptest! {
    #[test]
    fn any_option_value_is_taken_or_refused_and_what_is_taken_reads_back(
        which in 0..crate::params::PARAMS.len(), value in "[a-z0-9:.,/ %$\"-]{0,24}"
    ) {
        let param = &crate::params::PARAMS[which];
        let mut b = bench("", "");
        let options = [(param.option, value.as_str()), ("save", "")];
        if param.is_for(Verb::Set) && b.apply(&options).is_ok() {
            let view = b.config.with_file(b.config.ctid().unwrap(), Some(ConfFile::parse(&b.file.to_string())));
            prop_assert_eq!(view.warnings(), &[] as &[String], "--{} {}", param.option, value);
        }
    }

    #[test]
    fn adding_then_deleting_addresses_gives_back_the_rest(kept in proptest::collection::btree_set(1u32..=u32::MAX, 0..8), gone in 1u32..=u32::MAX) {
        let show = |ip: &u32| std::net::Ipv4Addr::from(*ip).to_string();
        let kept: Vec<String> = kept.iter().filter(|ip| **ip != gone).map(show).collect();
        let mut b = bench("", &format!("IP_ADDRESS=\"{}\"\n", kept.join(" ")));
        b.apply(&[("ipadd", &show(&gone))]).unwrap();
        b.apply(&[("ipdel", &show(&gone))]).unwrap();
        prop_assert_eq!(b.file.get("IP_ADDRESS").unwrap(), kept.join(" "));
    }
}
