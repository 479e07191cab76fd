//! Files that change all the time, in every way, while their container moves: it finds in them what it wrote.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use vztests::{Pair, Ve, compile, on_two_nodes, skip, until};

const SOON: Duration = Duration::from_secs(60);
/// Writes files again and again, through descriptors, mappings, renames, further names and io_submit(2), and compares
/// all of them with its memory each time. `bad` says what differed, `beat` how often it has looked.
const CHURN: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { FILES = 24, PAGES = 64 };
static long wanted[FILES], stored[PAGES], submitted;
static void bad(const char *what, int n, long want, long got) {
    FILE *f = fopen("bad", "a");
    fprintf(f, "%s %d: %ld wanted, %ld found, errno %d\n", what, n, want, got, errno);
    fclose(f);
    exit(1);
}
static long number(const char *name) {
    char text[32] = "";
    int fd = open(name, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) return -1;
    close(fd);
    return atol(text);
}
static void put(const char *name, int how, long value) {
    char text[32];
    int fd = open(name, O_WRONLY | how, 0600);
    if (fd < 0 || write(fd, text, sprintf(text, "%-12ld", value)) < 0) bad(name, fd, value, -2);
    close(fd);
}
int main(void) {
    char name[32], other[32];
    aio_context_t ring = 0;
    mkdir("churn", 0700);
    int open_one = open("churn/open", O_RDWR | O_CREAT, 0600), aio = open("churn/aio", O_RDWR | O_CREAT, 0600);
    int mapped = open("churn/mapped", O_RDWR | O_CREAT, 0600);
    if (ftruncate(mapped, PAGES * 4096)) return 1;
    volatile long *map = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    close(mapped);
    int has_aio = syscall(SYS_io_setup, 4, &ring) == 0;
    for (long i = 1;; i++) {
        int n = i % FILES;
        sprintf(name, "churn/%d", n);
        sprintf(other, "churn/also-%d", n);
        switch (n % 6) {
        case 0: put(name, O_CREAT, i); break;
        case 1: put("churn/new", O_CREAT | O_TRUNC, i); rename("churn/new", name); break;
        case 2: put(name, O_CREAT, i); unlink(other); link(name, other); break;
        case 3: unlink(name); put(name, O_CREAT | O_EXCL, i); break;
        case 4: mkdir("churn/dir", 0700); put("churn/dir/f", O_CREAT, i); rename("churn/dir/f", name); rmdir("churn/dir"); break;
        case 5: if (i > FILES) put(other, 0, i); else { put(name, O_CREAT, i); link(name, other); } break;
        }
        wanted[n] = i;
        map[i % PAGES * 512] = stored[i % PAGES] = i;
        if (pwrite(open_one, &i, sizeof i, 4096 * n) != sizeof i) bad("pwrite", n, i, -2);
        if (has_aio) {
            struct iocb cb = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = aio, .aio_buf = (unsigned long)&i, .aio_nbytes = sizeof i };
            struct iocb *list[] = { &cb };
            struct io_event event;
            if (syscall(SYS_io_submit, ring, 1, list) == 1) {
                while (syscall(SYS_io_getevents, ring, 1, 1, &event, 0) < 1) {}
                submitted = i;
            }
        }
        for (int k = 0; k < FILES; k++) {
            long got;
            if (!wanted[k]) continue;
            sprintf(name, "churn/%d", k);
            if ((got = number(name)) != wanted[k]) bad(name, k, wanted[k], got);
            sprintf(other, "churn/also-%d", k);
            if ((k % 6 == 2 || k % 6 == 5) && (got = number(other)) != wanted[k]) bad(other, k, wanted[k], got);
            if (pread(open_one, &got, sizeof got, 4096 * k) != sizeof got || got != wanted[k]) bad("open", k, wanted[k], got);
        }
        for (int k = 0; k < PAGES; k++)
            if (map[k * 512] != stored[k]) bad("mapped", k, stored[k], map[k * 512]);
        long got = 0;
        if (submitted && (pread(aio, &got, sizeof got, 0) != sizeof got || got != submitted)) bad("aio", 0, submitted, got);
        put("beat", O_CREAT, i);
        usleep(1000);
    }
}
"#;

/// How often it has looked, if all was well.
fn beats(ve: &Ve<'_>) -> u64 {
    let said = ve.sh("cat /root/bad 2>/dev/null; cat /root/beat 2>/dev/null; true");
    said.trim().parse().unwrap_or_else(|_| if said.is_empty() { 0 } else { panic!("{said}") })
}

/// There and back, three times.
fn moves(pair: &Pair<'_>, layout: &str) {
    if let Err(error) = criu::Program::find() {
        return skip(&format!("CRIU: {error}"));
    }
    let Some(program) = compile(&pair.a.scratch(), "churn", CHURN) else { return skip("a C compiler") };
    // There too its files are to lie in no image.
    pair.b.set_conf("DISK_QUOTA", "no");
    let (here, there) = (pair.a.with_layout(1, layout), pair.b.ve(1));
    here.start();
    here.begin("exec2", &["cat > /root/program"], &fs::read(&program).unwrap()).finish().ok();
    here.sh("cd /root; chmod 755 program; (./program </dev/null >/dev/null 2>&1 &)");
    until("it has looked often", SOON, || beats(&here) > 100);
    for (from, on, to) in [(pair.a, &here, &there), (&pair.b, &there, &here)].into_iter().cycle().take(6) {
        let before = beats(on);
        let run = pair.migrate(from, &["--online", "-v"], &on.id).ok();
        assert!(!run.text().contains("All files are looked at"), "{run}");
        until("it looks again", SOON, || beats(to) > before + 50);
    }
}

#[test]
fn a_plain_directory_loses_no_change() {
    on_two_nodes(|pair| moves(pair, "simfs"));
}

#[test]
fn an_overlay_loses_no_change() {
    on_two_nodes(|pair| moves(pair, "overlay"));
}
