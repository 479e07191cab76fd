//! What a VE's account remembers: the most there was, and what was refused, as long as the VE runs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use beancounters::{Record, Resource};
use rustix::process::{Pid, Signal, kill_process};
use vztests::{Ve, alive, on_node, until};

const SOON: Duration = Duration::from_secs(20);

/// Columns of one VE.
fn columns(ve: &Ve<'_>, fields: &str) -> Vec<u64> {
    let out = ve.node.vzlist(&["-H", "-o", fields, &ve.id]).ok().out();
    out.split_whitespace().map(|word| word.parse().unwrap_or_else(|_| panic!("{fields}: {out}"))).collect()
}

#[test]
fn peaks_and_refusals_outlive_the_monitor_and_end_with_a_restart() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.ok("set", &["--numproc", "40", "--numpty", "4", "--save"]);
        ve.start();
        assert_eq!(columns(&ve, "numproc.b,numproc.l,numproc.f,numpty.l"), [40, 40, 0, 4]);
        // More than it may have; the shell that cannot make another one ends.
        ve.sh("(for n in $(seq 60); do sleep 2 & done) 2>/dev/null; true");
        let most = columns(&ve, "numproc.m,numproc.f");
        assert!(most[0] >= 30 && most[1] > 0, "{most:?}");
        until("its processes have ended", SOON, || columns(&ve, "numproc")[0] < 10);

        let monitor = ve.monitor().unwrap();
        kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
        until("the monitor is gone", SOON, || !alive(monitor));
        let after = columns(&ve, "numproc.m,numproc.f");
        assert!(after[0] >= most[0] && after[1] >= most[1], "{after:?} after {most:?}");
        // The next verb that needs one makes a new monitor, which goes on with the account.
        ve.ok("set", &["--numproc", "50:60"]);
        let adopted = columns(&ve, "numproc.m,numproc.b,numproc.l,numproc.f");
        assert!(adopted[0] >= most[0] && adopted[3] >= most[1], "{adopted:?} after {most:?}");
        assert_eq!(adopted[1..3], [50, 60]);

        ve.ok("restart", &["--fast"]);
        let anew = columns(&ve, "numproc.m,numproc.f,numproc.l");
        assert!(anew[0] < 20, "a VE that starts has used nothing yet: {anew:?}");
        assert_eq!(anew[1..], [0, 40], "what was not saved is gone");
    });
}

/// Nobody looks while it is in use.
#[test]
fn the_monitor_notes_what_comes_and_goes() {
    on_node(|node| {
        let ve = node.tiny(1);
        ve.start();
        let run_dir = Path::new("/run/vz").join(&ve.id);
        let noted =
            || Record::load(&run_dir).map_or(0, |record| record.beancounter(0)[Resource::Numfile].maxheld);
        let before = noted();
        let line = "for n in $(seq 40); do sleep 100 3</dev/null 4</dev/null & done; wait";
        let session = ve.begin("exec", &[line], b"");
        until("the monitor has counted them", SOON, || noted() >= before + 80);
        ve.ok("stop", &["--fast"]);
        let _ = session.finish();
        assert!(!run_dir.exists(), "the account ends with the VE");
    });
}
