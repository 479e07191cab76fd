//! VALIDATE_MODE: what becomes of a VE that is to be started and whose configuration does not fit.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use ve::Ve;
use vzconf::Exit;

use super::super::subject::Subject;
use super::super::{Error, Outcome, Talk};
use super::{Mending, Node, Validation, facts};
use crate::check::host::Memory;
use crate::fit::limits::Limits;

/// Validates a VE's configuration if `vz.conf` wants it, and mends it if it wants that. Whoever calls has its lock.
///
/// # Errors
/// Exit 35 with VALIDATE_MODE=error for a configuration that does not fit.
pub fn validate(ve: &mut Ve<'_>) -> Result<(), ve::Error> {
    let mode = ve.node.global.node("VALIDATE_MODE").unwrap_or("none");
    let mending = if mode == "fix" { Mending::All } else { Mending::None };
    let Some(file) = ve.config.file().filter(|_| matches!(mode, "warning" | "error" | "fix")) else {
        return Ok(());
    };
    let path = ve.node.paths.ve_conf(ve.ctid);
    let subject = Subject { path, file: file.clone(), ctid: Some(ve.ctid) };
    let told = Told::default();
    let judged = judge(ve, &subject, mending, &told);
    for line in told.text().lines() {
        ve.say(-1, line);
    }
    let outcome = match judged {
        Ok(outcome) => outcome,
        Err(Error::Conf(error)) => return Err(error.into()),
        Err(Error::Ve(error)) => return Err(error),
        // A node that does not say what it has keeps nobody from starting.
        Err(error) => {
            ve.say(-1, &format!("Warning: the configuration is not validated: {}", ve::describe(&error)));
            Outcome::Good
        }
    };
    if outcome == Outcome::Unfit && mode == "error" {
        return Err(ve::Error::Refused {
            message: "the configuration is not valid".to_owned(),
            hint: Some(format!("Mend it with: vzcfgvalidate -r {}", subject.path.display())),
            exit: Exit::Validate,
        });
    }
    Ok(())
}

fn judge(ve: &mut Ve<'_>, subject: &Subject, mending: Mending, told: &Told) -> Result<Outcome, Error> {
    let facts = facts(subject, &ve.node.global, None, Node::of(Memory::read()?));
    let before = Limits::of(&ve.config);
    let (mut out, mut err, mut input) = (told.clone(), told.clone(), std::io::empty());
    let mut talk = Talk { out: &mut out, err: &mut err, input: &mut input };
    let mut validation = Validation::new(before.clone(), mending, &mut talk);
    validation.values(subject);
    validation.limits(&facts)?;
    if validation.unfit {
        return Ok(Outcome::Unfit);
    }
    let mut file = subject.file.clone();
    validation.limits.write(&before, &mut file)?;
    if file != subject.file {
        file.save(&subject.path)?;
        ve.config = ve.node.global.with_file(ve.ctid, Some(file));
    }
    Ok(Outcome::Good)
}

/// Takes both streams in their order.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<u8>>>);

impl Told {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
