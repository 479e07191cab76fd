use proptest::prelude::*;

use super::*;
use crate::change::Changes;
use crate::params::Verb;
use crate::{Ctid, Mac};

const PCT: &str = "# A web server\narch: amd64\ncores: 2\ncpulimit: 1.5\ncpuunits: 200\nfeatures: nesting=1,keyctl=1\n\
    hostname: web\nmemory: 512\nnameserver: 9.9.9.9 1.1.1.1\nnet0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.1.2.3/24,gw=10.1.2.1,type=veth\n\
    onboot: 1\nrootfs: local:101/vm-101-disk-0.raw,size=8G\nswap: 256\nstartup: order=3,up=5\nunprivileged: 1\n\
    mp0: /srv/data,mp=/data\nlxc.cgroup2.devices.allow: c 10:200 rwm\n\n[before]\nmemory: 128\n";

const LXC: &str = "lxc.include = /usr/share/lxc/config/debian.common.conf\nlxc.include = more\nlxc.arch = amd64\n\
    lxc.rootfs.path = dir:/var/lib/lxc/c/rootfs\nlxc.uts.name = c1\nlxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\n\
    lxc.net.0.flags = up\nlxc.net.0.hwaddr = 00:16:3e:00:00:01\nlxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n\
    lxc.mount.entry = /srv data none bind 0 0\n";

fn any(_: &str) -> bool {
    true
}

fn none(_: &str) -> bool {
    false
}

fn options(foreign: &Foreign) -> Vec<String> {
    foreign.options.iter().map(|(option, value)| format!("{option} {value}")).collect()
}

/// What is mapped must be taken by `vzctl set`.
fn fits(foreign: &Foreign) {
    let mut all = foreign.options.clone();
    all.push(("save".into(), String::new()));
    Changes::from_options(Verb::Set, &all).unwrap();
}

#[test]
fn a_proxmox_container_is_mapped() {
    let foreign = pct(PCT, &any).unwrap();
    fits(&foreign);
    let list = options(&foreign);
    for want in [
        "cpus 2",
        "cpulimit 150",
        "cpuunits 2000",
        "features nesting:on",
        "ram 536870912B",
        "swap 268435456B",
        "nameserver 1.1.1.1",
        "netif_add eth0,BC:24:11:00:00:01,,,vmbr0",
        "diskspace 8388608:8388608",
        "bootorder 9997",
        "onboot yes",
        "description A web server",
    ] {
        assert!(list.contains(&want.to_owned()), "{want}: {list:?}");
    }
    assert_eq!(foreign.shift, 100_000);
    // The snapshot's memory is not the container's.
    assert_eq!(list.iter().filter(|line| line.starts_with("ram")).count(), 1);
    let missing: Vec<_> = foreign.notes.iter().filter(|note| note.fate == Fate::Missing).collect();
    assert_eq!(missing.len(), 3, "{missing:?}");
    // Without its bridge the address is routed.
    assert!(options(&pct(PCT, &none).unwrap()).contains(&"ipadd 10.1.2.3".to_owned()));
}

#[test]
fn an_lxc_container_is_mapped_with_what_it_includes() {
    let mut load = |name: &str| match name {
        "more" => {
            Ok("lxc.cgroup2.memory.max = 1G\nlxc.cgroup.cpu.shares = 512\nlxc.start.auto = 1\n".to_owned())
        }
        _ => Err("not there".to_owned()),
    };
    let foreign = lxc(LXC, &mut load, &any).unwrap();
    fits(&foreign);
    let list = options(&foreign);
    for want in [
        "hostname c1",
        "ram 1073741824B",
        "cpuunits 500",
        "netif_add eth0,00:16:3e:00:00:01,,,lxcbr0",
        "onboot yes",
    ] {
        assert!(list.contains(&want.to_owned()), "{want}: {list:?}");
    }
    assert_eq!(foreign.shift, 100_000);
    assert_eq!(foreign.root, Some(RootHint::Path("/var/lib/lxc/c/rootfs".into())));
    let old = "lxc.network.type = veth\nlxc.network.ipv4 = 10.0.3.5/24\nlxc.network.type = empty\nlxc.utsname = o\n\
        lxc.cgroup.memory.limit_in_bytes = 512M\nlxc.cgroup.memory.memsw.limit_in_bytes = 768M\n";
    let list = options(&lxc(old, &mut |_| Err(String::new()), &none).unwrap());
    assert!(
        list.contains(&"ipadd 10.0.3.5".to_owned()) && list.contains(&"swap 268435456B".to_owned()),
        "{list:?}"
    );
}

#[test]
fn includes_that_go_round_in_circles_end() {
    let mut loads = 0;
    let mut load = |_: &str| {
        loads += 1;
        Ok("lxc.include = a\nlxc.include = b\n".to_owned())
    };
    let error = lxc("lxc.include = a\n", &mut load, &none).unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
    assert!(loads <= LXC_INCLUDES);
}

#[test]
fn an_openvz_configuration_keeps_all_but_what_is_the_hosts() {
    let text = "# mine\nONBOOT=\"yes\"\nKMEMSIZE=\"14372700:14790164\"\nVE_ROOT=\"/vz/root/$VEID\"\nVE_PRIVATE=\"/vz/private/7\"\n\
        OSTEMPLATE=\"centos-6-x86_64\"\nIP_ADDRESS=\"10.0.0.7\"\nNAME=\"web\"\nVE_LAYOUT=\"ploop\"\nUUID=\"{1}\"\n\
        NETIF=\"ifname=eth0,mac=00:18:51:00:00:07,host_ifname=veth7.0,host_mac=00:18:51:00:00:08,bridge=br0\"\n";
    let ctid = Ctid::new(900).unwrap();
    let foreign = openvz(text.as_bytes(), ctid, Mac([0; 6]));
    assert_eq!(foreign.file.get("KMEMSIZE"), Some("14372700:14790164"));
    assert_eq!(foreign.file.get("UUID"), Some("{1}"));
    assert_eq!(foreign.file.get("OSTEMPLATE"), Some("centos-6-x86_64"));
    for key in ["VE_ROOT", "VE_PRIVATE", "VE_LAYOUT", "NAME"] {
        assert_eq!(foreign.file.get(key), None, "{key}");
    }
    assert_eq!(foreign.name.as_deref(), Some("web"));
    let netif = foreign.file.get("NETIF").unwrap();
    assert!(
        netif.contains("veth900.0") && netif.contains("00:18:51:00:00:07") && netif.contains("br0"),
        "{netif}"
    );
    assert!(foreign.notes.iter().any(|note| note.fate == Fate::Kept && note.line.starts_with("UUID")));
}

proptest! {
    #[test]
    fn damaged_configurations_are_errors_and_no_panics(at in 0usize..4000, byte: u8, cut in 0usize..4000) {
        for text in [PCT, LXC] {
            let mut bytes = text.as_bytes().to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let text = String::from_utf8_lossy(&bytes);
            let _ = pct(&text, &any);
            let _ = lxc(&text, &mut |_| Ok(text.to_string()), &none);
            let _ = openvz(&bytes, Ctid::new(900).unwrap(), Mac([0; 6]));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = pct(&text, &none);
        let _ = lxc(&text, &mut |_| Err(String::new()), &none);
    }
}
