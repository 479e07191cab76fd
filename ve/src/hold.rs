//! A VE's lock, and what killed verbs left, mended by whoever has it.

use vzconf::{Ctid, Exit, Lock};

use crate::error::Result;
use crate::interrupted::{self, Wake};
use crate::node::{Node, Ve};
use crate::{convert, creating, marker, snapshot};

impl Node {
    /// Takes a VE's lock for as long as the value lives, mends what killed verbs left of the VE, and reads it then:
    /// whole, and nobody else changes it. This is how a verb takes hold of a VE; [`Node::lock`] alone is for who decides
    /// about the very thing that is to be mended.
    ///
    /// # Errors
    /// 9 when somebody has the lock, or when only another host can tell whose the VE is; 3, and as the verb that is
    /// needed, when something cannot be mended. It is not locked then.
    pub fn hold(&self, ctid: Ctid, doing: &str, wake: Wake) -> Result<(Lock, Ve<'_>)> {
        let lock = self.lock(ctid, doing)?;
        let ve = self.mended(ctid, wake)?;
        Ok((lock, ve))
    }

    /// A VE without what killed verbs left of it. The caller has its lock, or was told to do without.
    ///
    /// # Errors
    /// As [`Node::hold`].
    pub fn mended(&self, ctid: Ctid, wake: Wake) -> Result<Ve<'_>> {
        let ve = self.ve(ctid)?;
        if ctid.is_host() {
            return Ok(ve);
        }
        marker::mend(&ve)?;
        // There may be no VE any more, and another layout of one that is.
        let ve = if creating::mend(&ve)? { self.ve(ctid)? } else { ve };
        let ve = if convert::mend(&ve)? { self.ve(ctid)? } else { ve };
        let ve = if snapshot::mend_switch(&ve)? { self.ve(ctid)? } else { ve };
        if !interrupted::is_marked(&self.paths, ctid) {
            return Ok(ve);
        }
        // A move to or from another host: this one may not have it at all.
        interrupted::mend(self, ctid, wake)?;
        self.ve(ctid)
    }

    /// Whether killed verbs, or such that are at work, have left a VE that may not be what its files say. For who
    /// looks at a VE before its lock is taken.
    #[must_use]
    pub fn is_marked(&self, ctid: Ctid) -> bool {
        creating::is_marked(&self.paths, ctid) || interrupted::is_marked(&self.paths, ctid)
    }

    /// A VE, held, that has to be there.
    ///
    /// # Errors
    /// 14 when it is not, and as [`Node::hold`].
    pub(crate) fn hold_existing(&self, ctid: Ctid, doing: &str) -> Result<(Lock, Ve<'_>)> {
        // Who has no configuration is told so before anybody's lock gets in the way.
        if !self.is_marked(ctid) {
            exists(&self.ve(ctid)?)?;
        }
        let (lock, ve) = self.hold(ctid, doing, Wake::Yes)?;
        exists(&ve)?;
        Ok((lock, ve))
    }
}

/// Refuses a VE that is none.
pub(crate) fn exists(ve: &Ve<'_>) -> Result<()> {
    if ve.config.exists() {
        return Ok(());
    }
    Err(crate::Error::refused(Exit::NoVeConfig, format!("container {} does not exist", ve.ctid)))
}
