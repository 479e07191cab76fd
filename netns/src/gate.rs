//! New TCP connections to a VE are turned away from its device, to another one that keeps them, and nothing else is.
//!
//! A filter of traffic control at the host's end of the VE's device: what is open goes on in both directions. It goes
//! with the device; whoever is killed leaves it, and [`open`] takes it away.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Subject};
use crate::link::{CHANGE, DUMP, Link, Request, refused};
use crate::live;

const QDISC: &str = "clsact";
/// Our filters are told from others by their priorities: one for each protocol.
const FILTERS: [(u16, u16, &[Match]); 2] = [(0x765a, ETH_P_IP, &SYN_OF_4), (0x765b, ETH_P_IPV6, &SYN_OF_6)];
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86DD;

/// Value, mask, and where in the packet.
type Match = (u32, u32, i32);
/// A header without options, no later fragment, TCP, and of the flags SYN, ACK, RST and FIN only the first.
const SYN_OF_4: [Match; 4] =
    [(0x0500_0000, 0x0f00_0000, 0), (0, 0x1fff, 4), (0x0006_0000, 0x00ff_0000, 8), (SYN, FLAGS, 32)];
/// TCP right behind the header, and the same flags.
const SYN_OF_6: [Match; 2] = [(0x0600, 0xff00, 4), (SYN, FLAGS, 52)];
const SYN: u32 = 0x0002_0000;
const FLAGS: u32 = 0x0017_0000;

/// From now on a packet that asks for a connection goes to the device `to` instead of `device`.
///
/// # Errors
/// What was refused, on kernels without these filters, or where the admin has a qdisc `ingress` on that device; it is
/// open then.
pub(crate) fn shut(link: &mut Link, device: &str, index: u32, to: u32) -> Result<(), Error> {
    match link.get(qdisc(device, index, true))? {
        Ok(_) => {}
        Err(Errno::EXIST) if has_qdisc(link, device, index)? => {}
        Err(errno) => {
            return Err(refused(format!("tc qdisc add dev {device} {QDISC}"), Subject::Venet, errno));
        }
    }
    let filters = FILTERS.iter().map(|(priority, protocol, matches)| {
        let mut request = filter(device, index, *priority, *protocol, "add");
        let RouteNetlinkMessage::NewTrafficFilter(message) = &mut request.message else { return request };
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(selector(matches))),
            TcOption::U32(TcFilterU32Option::Action(vec![redirect(to)])),
        ]));
        request
    });
    let shut = link.run(filters.collect());
    if shut.is_err() {
        // The cause is told; whatever stays is removed by who connects the VE again.
        let _ = open(link, device, index);
    }
    shut
}

/// Takes that away; what is not there is as well. The qdisc goes too when nobody else has a filter in it.
///
/// # Errors
/// What was refused.
pub(crate) fn open(link: &mut Link, device: &str, index: u32) -> Result<(), Error> {
    let (mut ours, mut others) = (false, false);
    for minor in [TcHandle::MIN_EGRESS, TcHandle::MIN_INGRESS] {
        for message in link.dump([filters_of(device, index, minor)])? {
            let RouteNetlinkMessage::NewTrafficFilter(found) = message else { continue };
            let priority = (found.header.info >> 16) as u16;
            let own = FILTERS.iter().any(|(own, ..)| *own == priority);
            ours |= own;
            others |= !own;
        }
    }
    if !ours {
        return Ok(());
    }
    let mut requests: Vec<Request> = FILTERS
        .iter()
        .map(|(priority, protocol, _)| filter(device, index, *priority, *protocol, "del"))
        .collect();
    if !others {
        requests.push(qdisc(device, index, false));
    }
    live::gone(link, requests)
}

/// The qdisc `ingress` has the same handle, and a filter would look at the other direction.
fn has_qdisc(link: &mut Link, device: &str, index: u32) -> Result<bool, Error> {
    let request = Request {
        what: format!("tc qdisc show dev {device}"),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::GetQueueDiscipline(message(index)),
        flags: DUMP,
    };
    Ok(link.dump([request])?.into_iter().any(|answer| {
        let RouteNetlinkMessage::NewQueueDiscipline(found) = answer else { return false };
        found.header.index == signed(index) && found.attributes.contains(&TcAttribute::Kind(QDISC.into()))
    }))
}

fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn message(index: u32) -> TcMessage {
    TcMessage::with_index(signed(index))
}

fn qdisc(device: &str, index: u32, add: bool) -> Request {
    let mut message = message(index);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.attributes.push(TcAttribute::Kind(QDISC.into()));
    let (verb, message, flags) = if add {
        ("add", RouteNetlinkMessage::NewQueueDiscipline(message), CHANGE | NLM_F_CREATE | NLM_F_EXCL)
    } else {
        ("del", RouteNetlinkMessage::DelQueueDiscipline(message), CHANGE)
    };
    Request { what: format!("tc qdisc {verb} dev {device} {QDISC}"), subject: Subject::Venet, message, flags }
}

fn filter(device: &str, index: u32, priority: u16, protocol: u16, verb: &str) -> Request {
    let mut message = message(index);
    message.header.parent = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
    message.header.info = u32::from(priority) << 16 | u32::from(protocol.to_be());
    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.into()));
    let what = format!("tc filter {verb} dev {device} egress pref {priority} u32");
    let (message, flags) = if verb == "add" {
        (RouteNetlinkMessage::NewTrafficFilter(message), CHANGE | NLM_F_CREATE | NLM_F_EXCL)
    } else {
        (RouteNetlinkMessage::DelTrafficFilter(message), CHANGE)
    };
    Request { what, subject: Subject::Venet, message, flags }
}

fn filters_of(device: &str, index: u32, minor: u16) -> Request {
    let mut message = message(index);
    message.header.parent = TcHandle { major: 0xffff, minor };
    Request {
        what: format!("tc filter show dev {device}"),
        subject: Subject::Venet,
        message: RouteNetlinkMessage::GetTrafficFilter(message),
        flags: DUMP,
    }
}

fn selector(matches: &[Match]) -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = u8::try_from(matches.len()).unwrap_or_default();
    for (value, mask, at) in matches {
        let mut key = TcU32Key::default();
        (key.val, key.mask, key.off) = (*value, *mask, *at);
        selector.keys.push(key);
    }
    selector
}

fn redirect(to: u32) -> TcAction {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    (mirror.generic, mirror.eaction, mirror.ifindex) = (generic, TcMirrorActionType::EgressRedir, to);
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    action
}
