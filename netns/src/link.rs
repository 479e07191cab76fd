//! The one place that speaks rtnetlink: a socket of one namespace, over which requests are
//! pipelined. No other file knows that there is a runtime beneath.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use rustix::io::Errno;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::error::{Error, Subject};
use crate::namespace;
use crate::request;

/// One request, with the words that tell of it when it fails.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: String,
    pub(crate) subject: Subject,
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

/// What the kernel answered.
pub(crate) type Answer = Result<Vec<RouteNetlinkMessage>, Errno>;

type Answers = Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>;

/// A netlink socket of one network namespace.
pub(crate) struct Link {
    namespace: &'static str,
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    runtime: Runtime,
    indices: HashMap<String, u32>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Link {
    /// A socket of the namespace the caller is in.
    pub(crate) fn host() -> Result<Self, Error> {
        Self::open("the host", None, || Ok(()))
    }

    /// A socket of a VE's namespace; `prepare` runs inside that namespace as well.
    pub(crate) fn inside(
        netns: BorrowedFd<'_>,
        prepare: impl FnOnce() -> Result<(), Error> + Send,
    ) -> Result<Self, Error> {
        Self::open("the container", Some(netns), prepare)
    }

    fn open(
        namespace: &'static str,
        netns: Option<BorrowedFd<'_>>,
        prepare: impl FnOnce() -> Result<(), Error> + Send,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Socket { namespace, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let connect = || {
            let _context = runtime.enter();
            rtnetlink::new_connection_with_strict_check().map_err(failed)
        };
        let (connection, handle, _) = match netns {
            None => connect()?,
            Some(netns) => namespace::inside(netns, || {
                prepare()?;
                connect()
            })?,
        };
        let connection = runtime.spawn(connection);
        Ok(Self { namespace, handle, connection, runtime, indices: HashMap::new() })
    }

    /// Sends all requests at once and collects the answers, one for each, in order.
    pub(crate) fn ask(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, Error> {
        let namespace = self.namespace;
        let broken = |source| Error::Socket { namespace, source };
        let mut streams: Vec<Answers> = Vec::with_capacity(requests.len());
        for request in requests {
            let mut message = NetlinkMessage::from(request.message);
            message.header.flags = NLM_F_REQUEST | request.flags;
            let stream = self.handle.request(message).map_err(|e| broken(io::Error::other(e)))?;
            streams.push(Box::pin(stream));
        }
        let answers = self.runtime.block_on(async {
            let mut answers = Vec::with_capacity(streams.len());
            for stream in streams {
                answers.push(collect(stream).await);
            }
            answers
        });
        // A stream that merely ends means "acknowledged", unless the socket itself is gone.
        if self.connection.is_finished() {
            return Err(broken(io::ErrorKind::ConnectionAborted.into()));
        }
        Ok(answers)
    }

    /// Sends all requests at once; the first one refused is the error. Those after it were carried
    /// out all the same.
    pub(crate) fn run(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        let names: Vec<_> = requests.iter().map(|r| (r.what.clone(), r.subject)).collect();
        for (answer, (what, subject)) in self.ask(requests)?.into_iter().zip(names) {
            answer.map_err(|errno| refused(what, subject, errno))?;
        }
        Ok(())
    }

    /// One request that brings an answer, such as a look-up or a dump.
    pub(crate) fn get(&mut self, request: Request) -> Result<Answer, Error> {
        Ok(self.ask(vec![request])?.pop().unwrap_or(Ok(Vec::new())))
    }

    /// Several dumps, one after another: a socket can have only one under way. A protocol that this
    /// kernel does not speak has nothing to tell.
    pub(crate) fn dump<const N: usize>(
        &mut self,
        requests: [Request; N],
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut found = Vec::new();
        for request in requests {
            let (what, subject) = (request.what.clone(), request.subject);
            match self.get(request)? {
                Ok(messages) => found.extend(messages),
                Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => {}
                Err(errno) => return Err(refused(what, subject, errno)),
            }
        }
        Ok(found)
    }

    /// The index of a device, asked for once.
    pub(crate) fn index(&mut self, device: &str) -> Result<Option<u32>, Error> {
        if let Some(&index) = self.indices.get(device) {
            return Ok(Some(index));
        }
        let found = self.device(request::link_by_name(device))?;
        if let Some(found) = &found {
            self.indices.insert(device.to_string(), found.index);
        }
        Ok(found.map(|d| d.index))
    }

    /// Looks one device up; `None` when there is none.
    pub(crate) fn device(&mut self, request: Request) -> Result<Option<Device>, Error> {
        let (what, subject) = (request.what.clone(), request.subject);
        match self.get(request)? {
            Ok(messages) => Ok(messages.into_iter().find_map(Device::from_message)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(refused(what, subject, errno)),
        }
    }
}

/// The kernel's refusal as our error.
pub(crate) fn refused(what: String, subject: Subject, errno: Errno) -> Error {
    Error::Refused { what, subject, source: errno.into() }
}

async fn collect(mut stream: Answers) -> Answer {
    let mut answer = Vec::new();
    while let Some(message) = stream.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => answer.push(inner),
            NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                return Err(Errno::from_raw_os_error(error.raw_code().saturating_neg()));
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// A device as the kernel describes it.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) message: netlink_packet_route::link::LinkMessage,
}

impl Device {
    pub(crate) fn from_message(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else { return None };
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        Some(Self { index: message.header.index, name, message })
    }

    /// Its hardware address, when it is an Ethernet one.
    pub(crate) fn mac(&self) -> Option<vzconf::Mac> {
        self.message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().map(vzconf::Mac),
            _ => None,
        })
    }
}

/// Flags of a request that changes something.
pub(crate) const CHANGE: u16 = NLM_F_ACK;
/// Flags of a dump.
pub(crate) const DUMP: u16 = NLM_F_DUMP;
/// Flags of a look-up.
pub(crate) const LOOKUP: u16 = 0;
