//! The monitor's first task for a saved VE: have CRIU restore it, as our child.

use std::os::fd::{AsFd, OwnedFd};

use criu::{Answer, Criu, External, Restore, Setting, Stage};
use rustix::process::{Resource, Signal};
use ve::monitor::{Charge, FromMonitor, Order, RestorePlan, ToMonitor};
use ve::{Externals, Origin};
use vzsys::channel::Channel;
use vzsys::fuse::Connection;
use vzsys::launch::{LaunchError, Stage as LaunchStage, Terminal, own_terminal};
use vzsys::limits::Lent;
use vzsys::mount::Detached;
use vzsys::process::{PidFd, ProcRef};
use vzsys::serve::Shown;

use crate::launch::{Taken, count_files, raise_limits};
use crate::watch::Init;

fn failed(error: impl std::fmt::Display) -> LaunchError {
    LaunchError { stage: LaunchStage::Restore, error: error.to_string() }
}

/// Restores the VE and hands it over; `None` when `vzctl` gave up.
pub(crate) fn restore(
    order: &Order,
    plan: &RestorePlan,
    dev: Option<OwnedFd>,
    vzctl: &Channel,
) -> std::result::Result<Taken, LaunchError> {
    raise_limits();
    // A user namespace is born with the limit of whoever makes it.
    let _signals = plan.signals.map(|number| Lent::at_least(Resource::Sigpending, number));
    let _lockable = plan.lockable.map(|bytes| Lent::at_least(Resource::Memlock, bytes));
    let dev = Detached::from_fd(dev.ok_or_else(|| failed("no /dev came with the order"))?);
    let terminal = plan.externals.console.map(|_| own_terminal(plan.ids)).transpose().map_err(failed)?;
    let (connection, views) = if plan.externals.views() {
        // Its places are in the images: something has to be mounted there.
        let (connection, views) = crate::views::open().map_err(failed)?;
        (Some(connection), Some(views))
    } else {
        (None, None)
    };
    let criu = start(plan, &dev, views.as_ref(), terminal.as_ref()).map_err(failed)?;
    drop((dev, views));
    let mut job = Job { order, plan, vzctl, connection, criu: criu.pid(), init: None, failure: None };
    job.run(criu, terminal)
}

fn start(
    plan: &RestorePlan,
    dev: &Detached,
    views: Option<&Detached>,
    terminal: Option<&Terminal>,
) -> criu::Result<Criu> {
    let mut shown = vec![Shown { mount: dev, name: "dev" }];
    shown.extend(views.map(|mount| Shown { mount, name: "views" }));
    shown.extend(terminal.map(|terminal| Shown { mount: &terminal.mount, name: "pts" }));
    let slave: Vec<_> = terminal.map(|terminal| terminal.slave.as_fd()).into_iter().collect();
    let setting = Setting {
        images: &plan.images,
        log: criu::RESTORE_LOG,
        fds: &slave,
        shown: &shown,
        place: plan.place.clone(),
    };
    Criu::start(&plan.criu, setting)
}

fn sources(externals: &Externals, plan: &RestorePlan) -> Vec<External> {
    let source = |kept: &ve::Kept| External::Mount {
        key: kept.key(),
        path: plan.place.join(kept.source()).display().to_string(),
    };
    let mut all: Vec<External> = Vec::new();
    for kept in &externals.mounts {
        let one = source(kept);
        if (kept.origin != Origin::Console || externals.console.is_some()) && !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

struct Job<'j> {
    order: &'j Order,
    plan: &'j RestorePlan,
    vzctl: &'j Channel,
    connection: Option<Connection>,
    criu: i32,
    init: Option<PidFd>,
    /// What made us say no; `None` in it when vzctl gave up.
    failure: Option<Option<LaunchError>>,
}

impl Job<'_> {
    fn run(&mut self, mut criu: Criu, terminal: Option<Terminal>) -> std::result::Result<Taken, LaunchError> {
        let keys = self.plan.externals.console.map(|(device, on)| External::terminal_key(device, on));
        let restore = Restore {
            root: self.plan.root.display().to_string(),
            external: sources(&self.plan.externals, self.plan),
            inherit: keys.into_iter().collect(),
            log_level: self.plan.log_level,
        };
        let restored = criu.restore(&restore, &mut |stage| match self.stage(stage) {
            Ok(true) => Answer::Yes,
            Ok(false) => {
                self.failure.get_or_insert(None);
                Answer::No
            }
            Err(error) => {
                self.failure.get_or_insert(Some(error));
                Answer::No
            }
        });
        criu.end();
        match (restored, self.failure.take()) {
            (Ok(pid), None) => {
                let init = ProcRef::of(pid).map_err(failed)?;
                let pidfd = init.open().map_err(failed)?;
                let pidfd = pidfd.ok_or_else(|| failed("init ended at once"))?;
                Ok(Some((Init::Child(pidfd, init), terminal.map(|terminal| terminal.master))))
            }
            (restored, failure) => {
                self.kill();
                match (failure, restored) {
                    (Some(None), _) => Ok(None),
                    (Some(Some(error)), _) => Err(error),
                    (None, Err(error)) => Err(failed(error)),
                    (None, Ok(_)) => Err(failed("CRIU did not wait for an answer")),
                }
            }
        }
    }

    /// CRIU kills what it made; this is for a CRIU that died.
    fn kill(&self) {
        if let Some(init) = &self.init {
            let _ = init.signal(Signal::KILL);
            let _ = init.reap();
        }
    }

    /// `false` when `vzctl` gave up.
    fn stage(&mut self, stage: Stage) -> std::result::Result<bool, LaunchError> {
        match stage {
            Stage::PreRestore => {
                if let Some(ids) = self.plan.ids {
                    Criu::become_owner(self.criu, ids.base).map_err(failed)?;
                }
                Ok(true)
            }
            Stage::SetupNamespaces(pid) => self.furnish(pid),
            Stage::PostRestore(_) => {
                self.vzctl.send(&FromMonitor::Furnished, None).map_err(failed)?;
                self.wait(|message| matches!(message, ToMonitor::Release))
            }
            // Nothing can be undone any more; vzctl sees whether it stands still.
            Stage::PreResume if self.plan.frozen => {
                let _ = ve::restore::hold(self.order.ctid);
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn furnish(&mut self, pid: i32) -> std::result::Result<bool, LaunchError> {
        self.init = PidFd::open(pid).map_err(failed)?;
        if self.plan.ids.is_some() {
            Criu::become_root(self.criu).map_err(failed)?;
        }
        count_files(self.order.ctid, pid);
        let views = self.connection.is_some();
        if let Some(connection) = self.connection.take() {
            let init = ProcRef::of(pid).map_err(failed)?;
            let base = self.plan.ids.map_or(0, |ids| ids.base);
            let run_dir = self.order.run_dir.clone();
            let charge = Charge { ctid: self.order.ctid, run_dir, init, base, load: true };
            crate::views::begin(connection, charge).map_err(failed)?;
        }
        self.vzctl.send(&FromMonitor::Cloned { pid, views }, None).map_err(failed)?;
        self.wait(|message| matches!(message, ToMonitor::Wired))
    }

    /// Until `vzctl` says so, or is gone.
    fn wait(&self, wanted: impl Fn(&ToMonitor) -> bool) -> std::result::Result<bool, LaunchError> {
        loop {
            match self.vzctl.receive::<ToMonitor>().map_err(failed)? {
                Some((message, _)) if wanted(&message) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }
}
