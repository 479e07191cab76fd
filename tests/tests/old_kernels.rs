//! Kernels that lack a call, simulated by a filter that answers "not implemented": what can be done
//! without is done without, the rest fails before anything has happened, and says what is missing.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use vztests::{Run, Ve, compile, on_node, run, skip};

const UP: &str = "exist mounted running";
const DOWN: &str = "exist unmounted down";

const WITHOUT: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
/* without NUMBER PROGRAM ARGUMENT... */
int main(int argc, char **argv)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(argv[1]), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 38),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { 4, filter };
    if (argc < 3 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 99;
    execv(argv[2], argv + 2);
    return 98;
}
"#;

/// `vzctl start` where a system call is missing.
fn start_without(wrapper: &Path, call: u32, vzctl: &Path, ve: &Ve<'_>) -> Run {
    run(wrapper, &[&call.to_string(), vzctl.to_str().unwrap(), "start", &ve.id])
}

#[test]
fn a_kernel_without_a_needed_call_is_told_to_be_too_old_and_nothing_stays() {
    on_node(|node| {
        let Some(wrapper) = compile(&node.scratch(), "without", WITHOUT) else { return skip("a C compiler") };
        let vzctl = node.program("vzctl");
        let ve = node.tiny(1);
        for (name, call) in [("fsopen", 430), ("clone3", 435), ("mount_setattr", 442)] {
            let failed = start_without(&wrapper, call, &vzctl, &ve);
            assert_ne!(failed.code, 0, "without {name}: {failed}");
            let failed = failed.says(name).says("kernel 5.15 or newer");
            // 152: the image that it writes to cannot be mounted.
            assert!(failed.code < 98 || failed.code == 152, "{failed}");
            ve.is(DOWN);
        }
        ve.start();
    });
}

/// `start` itself does without.
#[test]
fn a_kernel_without_pidfds_is_told_to_be_too_old_by_the_verb_that_needs_them() {
    on_node(|node| {
        let Some(wrapper) = compile(&node.scratch(), "without", WITHOUT) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        ve.start();
        let failed =
            run(&wrapper, &["434", node.program("vzctl").to_str().unwrap(), "exec2", &ve.id, "true"]);
        assert_ne!(failed.code, 0, "{failed}");
        failed.says("pidfd_open").says("kernel 5.15 or newer");
        ve.is(UP);
    });
}

#[test]
fn a_kernel_without_openat2_still_starts_a_ve() {
    on_node(|node| {
        let Some(wrapper) = compile(&node.scratch(), "without", WITHOUT) else { return skip("a C compiler") };
        let ve = node.tiny(1);
        start_without(&wrapper, 437, &node.program("vzctl"), &ve).ok();
        ve.is(UP);
        assert_eq!(ve.sh("echo alive"), "alive");
    });
}
