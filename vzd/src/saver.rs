//! Whoever saves the VE has frozen it: when he is killed, `vzctl` is called to let it go on.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use ve::marker;
use vzsys::process::PidFd;

/// What shows that somebody is at work, and him.
#[derive(Debug)]
pub(crate) struct Saver {
    run_dir: PathBuf,
    inotify: OwnedFd,
    at_work: Option<PidFd>,
}

impl Saver {
    /// Looks out for such people. Without that, the next verb finds what they leave.
    pub(crate) fn await_in(run_dir: &Path) -> Option<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&inotify, run_dir, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR).ok()?;
        // Our predecessor may have died with him at work.
        let mut saver = Self { run_dir: run_dir.to_owned(), inotify, at_work: None };
        saver.find();
        Some(saver)
    }

    /// Adds what to wait for.
    pub(crate) fn register<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.inotify, PollFlags::IN));
        fds.extend(self.at_work.iter().map(|process| PollFd::new(process, PollFlags::IN)));
    }

    /// Serves what is ready, in the order of [`Saver::register`]; `true` when he is gone and has left his mark.
    pub(crate) fn serve_ready(&mut self, ready: &[PollFlags]) -> bool {
        let is_ready = |i: usize| ready.get(i).is_some_and(|flags| !flags.is_empty());
        if is_ready(1) {
            self.at_work = None;
        }
        if is_ready(0) && self.is_news() {
            self.find();
        }
        is_ready(1) && self.at_work.is_none() && self.run_dir.join(marker::FILE).exists()
    }

    /// Other files of the directory are replaced all the time.
    fn is_news(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut news = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_bytes() == marker::FILE.as_bytes());
            news |= name.unwrap_or(event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
        }
        news
    }

    fn find(&mut self) {
        let text = fs::read(self.run_dir.join(marker::FILE)).unwrap_or_default();
        self.at_work = marker::holder_of(&text).and_then(|holder| PidFd::open(holder.pid).ok().flatten());
    }
}
