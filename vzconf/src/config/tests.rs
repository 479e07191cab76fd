use std::fs;
use std::path::Path;

use super::Config;
use crate::{ConfFile, Ctid, Exit, Pair, Paths, units::UNLIMITED};

const GLOBAL: &str = "\
LOCKDIR=/vz/lock\n\
VE_ROOT=/vz/root/$VEID\n\
VE_PRIVATE=\"/vz/private/${VEID}/\"\n\
NAMESERVER=inherit # Copy from the node\n\
VE_LAYOUT=ploop\n\
NETFILTER=full\n\
LOG_LEVEL=-1\n\
IP_ADDRESS=\"10.9.9.9\"\n\
STOP_TIMEOUT=30\n\
DUMPDIR=\"/srv/dump\"\n";

fn node(global: &str, ve: Option<&str>) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    fs::create_dir_all(paths.conf_dir()).unwrap();
    fs::write(paths.vz_conf(), global).unwrap();
    let ctid = Ctid::new(101).unwrap();
    if let Some(ve) = ve {
        fs::write(paths.ve_conf(ctid), ve).unwrap();
    }
    let config = Config::load(&paths, ctid).unwrap();
    (dir, config)
}

#[test]
fn no_global_config_is_exit_10() {
    let dir = tempfile::tempdir().unwrap();
    let error = Config::load(&Paths::under(dir.path()), Ctid::new(1).unwrap()).unwrap_err();
    assert_eq!(error.exit(), Exit::NoConfig);
}

#[test]
fn override_beats_ve_beats_node_and_identity_is_not_inherited() {
    let (_dir, mut c) = node(GLOBAL, Some("STOP_TIMEOUT=\"5\"\nHOSTNAME=\"a\"\n"));
    assert_eq!(c.stop_timeout(), 5);
    c.set_override("STOP_TIMEOUT", "7");
    assert_eq!(c.stop_timeout(), 7);
    assert_eq!(c.ip_addresses(), []);
    assert_eq!(c.layout(), None, "the node's layout is not for a VE that exists");
    assert_eq!(c.dump_file().unwrap(), Path::new("/srv/dump/Dump.101"));
    assert_eq!(c.log_level(), -1);
    assert_eq!(c.node("IP_ADDRESS"), Some("10.9.9.9"));
    let (_dir, c) = node(GLOBAL, None);
    assert!(!c.exists());
    assert_eq!((c.layout(), c.stop_timeout()), (Some("ploop"), 30));
}

#[test]
fn paths_are_expanded_and_stripped() {
    let (_dir, c) = node(GLOBAL, None);
    assert_eq!(c.ve_root().unwrap(), Path::new("/vz/root/101"));
    assert_eq!(c.ve_private().unwrap(), Path::new("/vz/private/101"));
    assert_eq!(c.get("VE_ROOT"), Some("/vz/root/$VEID"));
    let (_dir, c) = node("", None);
    assert_eq!((c.ve_root(), c.ve_private()), (None, None));
    assert!(c.lock_dir().ends_with("vz/lock"));
    assert!(c.template_dir().ends_with("vz/template"));
    assert_eq!(c.stop_timeout(), 120);
    assert_eq!(c.onboot(), None);
}

#[test]
fn invalid_values_warn_and_fall_back() {
    let ve = "ONBOOT=maybe\nCPUUNITS=3\nKMEMSIZE=1x\nKMEMSIZE=5:6\nKMEMSIZE=7:8\nrubbish\n\
              IP_ADDRESS=\"10.0.0.1 nonsense 2001:DB8::1/64\"\nIP_ADDRESS=\"0.0.0.0 10.0.0.2\"\n\
              NAME=a\nNAME=b\nSTOP_TIMEOUT=soon\nFEATURES=\"nfs:on wings:on tun\"\nCAPABILITY=\"net_admin:on,chown:off\"\n\
              NETIF=\"ifname=eth0;ifname=eth0,bridge=br0;ifname=eth1,mac=zz\"\nPHYSPAGES=0:99999999999999999999\n\
              DCACHE=1:2\nUNKNOWN=kept\nDEVICES=\"c:10:200:rw b:7:1:rw\"\n";
    let (_dir, c) = node(GLOBAL, Some(ve));
    assert_eq!(c.onboot(), None);
    assert_eq!(c.cpuunits(), None);
    assert_eq!(c.ubc("kmemsize"), Some(Pair { barrier: 7, limit: 8 }));
    assert_eq!(c.ubc("physpages"), Some(Pair { barrier: 0, limit: UNLIMITED }));
    assert_eq!(c.ubc("dcachesize"), Some(Pair { barrier: 1, limit: 2 }));
    assert_eq!(c.ubc("cpuunits"), None);
    let ips: Vec<String> = c.ip_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.1", "2001:db8::1/64", "10.0.0.2"]);
    assert_eq!(c.name(), Some("a"));
    assert_eq!(c.stop_timeout(), 30);
    assert_eq!((c.feature("nfs"), c.feature("wings")), (Some(true), None));
    assert_eq!(
        c.capability().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["NET_ADMIN:on", "CHOWN:off"]
    );
    assert_eq!(c.netif().len(), 1);
    assert_eq!(c.devices().len(), 1);
    assert_eq!(c.get("UNKNOWN"), Some("kept"));
    let all = c.warnings().join("\n");
    for part in [
        "NETFILTER is ignored",
        "invalid value for ONBOOT: maybe (expected yes or no)",
        "invalid value for CPUUNITS: 3",
        "invalid value for KMEMSIZE: 1x",
        "invalid value in IP_ADDRESS: nonsense",
        "duplicate for NAME",
        "invalid value for STOP_TIMEOUT: soon",
        "invalid value in FEATURES: wings:on",
        "value of PHYSPAGES is too large",
        "duplicate device eth0",
        "invalid device in NETIF: ifname=eth1,mac=zz",
        "101.conf:6: not a KEY=value line",
        "invalid value in DEVICES: b:7:1:rw",
    ] {
        assert!(all.contains(part), "{part:?} is not in:\n{all}");
    }
}

#[test]
fn inherit_swallows_the_comment_behind_it() {
    let (_dir, c) = node(GLOBAL, None);
    assert_eq!(c.nameservers(), ["inherit"]);
    assert!(!c.warnings().join("\n").contains("NAMESERVER"));
}

#[test]
fn iolimit_in_a_file_is_bytes() {
    let (_dir, c) = node("", Some("IOLIMIT=\"1048576\"\nIOPSLIMIT=\"unlimited\"\nIOPRIO=9\n"));
    assert_eq!((c.iolimit(), c.iopslimit(), c.ioprio()), (Some(1_048_576), Some(0), None));
}

#[test]
fn a_config_not_yet_on_disk_can_be_viewed() {
    let (_dir, c) = node(GLOBAL, None);
    let view = c.with_file(Ctid::new(202).unwrap(), Some(ConfFile::parse("HOSTNAME=x\n")));
    assert_eq!(view.hostname(), Some("x"));
    assert_eq!(view.ve_root().unwrap(), Path::new("/vz/root/202"));
}

#[test]
fn a_node_without_ipv6_has_ve_configs_without_it() {
    let ve = "IP_ADDRESS=\"10.0.0.1 2001:db8::1\"\n";
    let (_dir, c) = node("IPV6=\"no\"\n", Some(ve));
    assert_eq!(c.ip_addresses().iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1"]);
    assert!(c.warnings().iter().any(|w| w.contains("IPv6 support is disabled")), "{:?}", c.warnings());
    let (_dir, c) = node("IPV6=\"yes\"\n", Some(ve));
    assert_eq!(c.ip_addresses().len(), 2);
    assert!(c.warnings().is_empty(), "{:?}", c.warnings());
}

#[test]
fn a_directory_of_the_node_that_all_ves_would_share_is_ignored() {
    let (_dir, c) = node("VE_PRIVATE=\"/vz/private\"\nVE_ROOT=/vz/root/${VEID}\n", Some(""));
    assert_eq!(c.ve_private(), None);
    assert_eq!(c.ve_root().unwrap(), Path::new("/vz/root/101"));
    assert!(c.warnings()[0].ends_with("VE_PRIVATE must contain $VEID, ignored"), "{:?}", c.warnings());
    let (_dir, c) = node("VE_PRIVATE=/vz/private\n", Some("VE_PRIVATE=\"/srv/web\"\n"));
    assert_eq!(c.ve_private().unwrap(), Path::new("/srv/web"));
}
