//! One conversation with `criu swrk`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType,
    recvmsg, sendmsg, socketpair,
};
use vzsys::process::PidFd;
use vzsys::serve::{FIRST_FD, Serve, Shown};
use vzsys::{Call, SysError};

use crate::error::{Error, Result};
use crate::log;
use crate::wire::{Kind, Notify, Request, Response};

/// The longest message of CRIU's.
const MESSAGE: usize = 64 * 1024;
/// Under which number CRIU finds its end of the socket, and from which on what it is given.
const SOCKET_FD: i32 = FIRST_FD;
pub(crate) const MORE_FD: i32 = FIRST_FD + 1;

/// A moment at which CRIU waits for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Nothing is stopped yet, and all that takes long at its start is over.
    PreDump,
    /// All tasks are held, and nothing is dumped yet.
    NetworkLock,
    /// All is in the images. Yes: the tasks are killed. No: they run on.
    PostDump,
    /// That was answered with yes: CRIU waits for the tasks' end, which frozen ones do not come to. The answer to this
    /// does not matter.
    Killing,
    /// Before the first task is made.
    PreRestore,
    /// The first task, of this pid on the host, is in its namespaces, in which nothing is set up yet.
    SetupNamespaces(i32),
    /// Mounts and network are restored; the other tasks do not exist yet.
    PostSetupNamespaces,
    /// All is restored and nothing has run. Yes: it runs. No: it is killed.
    PostRestore(i32),
    /// All is restored, and the tasks are about to be let go.
    PreResume,
    /// What happens now can no longer be undone, or is of no interest.
    Other,
}

impl Stage {
    fn of(notify: &Notify) -> Stage {
        let pid = notify.pid.unwrap_or(0);
        match notify.script.as_deref().unwrap_or_default() {
            "pre-dump" => Stage::PreDump,
            "network-lock" => Stage::NetworkLock,
            "post-dump" => Stage::PostDump,
            "pre-restore" => Stage::PreRestore,
            "setup-namespaces" => Stage::SetupNamespaces(pid),
            "post-setup-namespaces" => Stage::PostSetupNamespaces,
            "post-restore" => Stage::PostRestore(pid),
            "pre-resume" => Stage::PreResume,
            _ => Stage::Other,
        }
    }
}

/// What a stage is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Yes,
    /// Do not: CRIU undoes what it did.
    No,
}

/// A running `criu swrk`, our child.
#[derive(Debug)]
pub struct Criu {
    pid: i32,
    process: PidFd,
    socket: OwnedFd,
    images: PathBuf,
    log: PathBuf,
}

/// What CRIU is started with, besides the program.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The image directory, in which its log is written too. A path, and no descriptor: CRIU mounts things in it, which
    /// it can only in mounts of its own.
    pub images: &'a Path,
    /// The name of its log there.
    pub log: &'static str,
    /// More descriptors for it, in order.
    pub fds: &'a [BorrowedFd<'a>],
    /// Mounts that only it sees.
    pub shown: &'a [Shown<'a>],
    /// Where it sees them.
    pub place: PathBuf,
}

impl Criu {
    /// Starts it. The caller must be single-threaded. When our end of the socket is closed, it undoes what it does
    /// and ends.
    ///
    /// # Errors
    /// [`Error::Talk`].
    pub fn start(program: &Path, setting: Setting<'_>) -> Result<Criu> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .call("socketpair", || "AF_UNIX, SOCK_SEQPACKET")?;
        let mut fds = vec![theirs.as_fd()];
        fds.extend(setting.fds);
        let number = SOCKET_FD.to_string();
        let serve = Serve {
            program,
            arguments: &["swrk", &number],
            fds: &fds,
            shown: setting.shown,
            place: setting.place,
            keep_capabilities: true,
            unlimited: true,
        };
        let (pid, process) = serve.start()?;
        let images = setting.images.to_owned();
        let log = images.join(setting.log);
        Ok(Criu { pid, process, socket: ours, images, log })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn images(&self) -> String {
        self.images.display().to_string()
    }

    /// Makes a CRIU, by its pid, the owner of a VE's user namespace, with all its capabilities kept: the kernel shows an
    /// owner the limits of the VE's processes, and accounts to him what he makes. For a stage before anything was done.
    ///
    /// # Errors
    /// [`Error::Talk`].
    pub fn become_owner(pid: i32, owner: u32) -> Result<()> {
        Ok(vzsys::trace::set_effective_user(pid, owner)?)
    }

    /// Makes it root again, and those whom it has started meanwhile: v1 cgroups take processes from root alone. For
    /// [`Stage::SetupNamespaces`], when the namespace has been made.
    ///
    /// # Errors
    /// [`Error::Talk`].
    pub fn become_root(pid: i32) -> Result<()> {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|word| word.parse().ok());
        for process in std::iter::once(pid).chain(children) {
            match vzsys::trace::set_effective_user(process, 0) {
                Err(error) if error.errno() == Errno::SRCH && process != pid => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Has it do something; `on` answers its stages. Blocks until it is done.
    ///
    /// # Errors
    /// [`Error::Failed`], with the first error of its log; [`Error::Died`], [`Error::Talk`]. What it had begun is undone
    /// by it; after [`Error::Died`] nobody knows.
    pub(crate) fn ask(&mut self, request: &Request, on: &mut dyn FnMut(Stage) -> Answer) -> Result<Response> {
        self.send(request)?;
        loop {
            let response = self.receive()?;
            if let Some(notify) = &response.notify {
                let stage = Stage::of(notify);
                let answer = on(stage) == Answer::Yes;
                let request =
                    Request { kind: Kind::Notify.into(), notify_success: Some(answer), ..Request::default() };
                self.send(&request)?;
                if stage == Stage::PostDump && answer {
                    on(Stage::Killing);
                }
                continue;
            }
            if response.success && response.kind == request.kind {
                return Ok(response);
            }
            return Err(self.failure(&response));
        }
    }

    fn failure(&self, response: &Response) -> Error {
        let reason = log::first_error(&self.log).or_else(|| response.message.clone());
        let reason = reason.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| match response.errno {
            Some(errno) if errno > 0 => std::io::Error::from_raw_os_error(errno).to_string(),
            _ => format!("no reason given; see {}", self.log.display()),
        });
        Error::Failed { reason }
    }

    fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        let mut control = SendAncillaryBuffer::default();
        match sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(self.died()),
            Err(errno) => Err(SysError::new("sendmsg", "criu", errno).into()),
        }
    }

    fn receive(&self) -> Result<Response> {
        let mut bytes = vec![0_u8; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Ok(got) if got.bytes == 0 => return Err(self.died()),
                Ok(got) => {
                    return Response::decode(&bytes[..got.bytes])
                        .map_err(|error| Error::OutOfTurn(error.to_string()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Err(self.died()),
                Err(errno) => return Err(SysError::new("recvmsg", "criu", errno).into()),
            }
        }
    }

    fn died(&self) -> Error {
        Error::Died { log: log::first_error(&self.log) }
    }

    /// Lets it end and waits for that. Whatever it still had to undo is then undone.
    pub fn end(self) {
        let Criu { process, socket, .. } = self;
        drop(socket);
        let _ = process.reap();
    }
}
