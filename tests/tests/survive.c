// Frozen in the middle: prepares one thing, waits for /tmp/go, and looks whether it is as it was.
// Says so by /tmp/WHAT.ready, and by /tmp/WHAT.ok or the line that failed in /tmp/WHAT.bad.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *what;

static void say(const char *end, int line)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/%s.%s", what, end);
    FILE *file = fopen(path, "w");
    fprintf(file, "line %d\n", line);
    fclose(file);
}

#define MUST(condition) do { if (!(condition)) { say("bad", __LINE__); exit(1); } } while (0)

static void wait_frozen(void)
{
    struct timespec pause = { .tv_nsec = 20000000 };
    say("ready", 0);
    while (access("/tmp/go", F_OK))
        nanosleep(&pause, NULL);
}

static void timers(void)
{
    struct itimerspec hour = { .it_value.tv_sec = 3600 }, fast = { { 0, 1000000 }, { 0, 1000000 } }, left;
    struct itimerval real = { .it_value.tv_sec = 3600 };
    struct sigevent none = { .sigev_notify = SIGEV_NONE };
    struct timespec before, after;
    timer_t posix;
    uint64_t ticks;
    int slow = timerfd_create(CLOCK_MONOTONIC, 0), quick = timerfd_create(CLOCK_BOOTTIME, 0);
    MUST(!timerfd_settime(slow, 0, &hour, NULL) && !timerfd_settime(quick, 0, &fast, NULL));
    MUST(!setitimer(ITIMER_REAL, &real, NULL));
    MUST(!timer_create(CLOCK_MONOTONIC, &none, &posix) && !timer_settime(posix, 0, &hour, NULL));
    clock_gettime(CLOCK_MONOTONIC, &before);
    wait_frozen();
    clock_gettime(CLOCK_MONOTONIC, &after);
    MUST(after.tv_sec >= before.tv_sec && after.tv_sec - before.tv_sec < 600);
    MUST(!timerfd_gettime(slow, &left) && left.it_value.tv_sec > 3000 && left.it_value.tv_sec < 3600);
    MUST(!timer_gettime(posix, &left) && left.it_value.tv_sec > 3000 && left.it_value.tv_sec < 3600);
    int seconds = alarm(0);
    MUST(seconds > 3000 && seconds <= 3600);
    MUST(read(quick, &ticks, sizeof ticks) == sizeof ticks && ticks > 0);
}

static void watches(void)
{
    char buffer[1024];
    int watch = inotify_init();
    mkdir("/tmp/watched", 0755);
    close(open("/tmp/watched/old", O_CREAT | O_WRONLY, 0644));
    MUST(inotify_add_watch(watch, "/tmp/watched", IN_CREATE) == 1);
    MUST(inotify_add_watch(watch, "/tmp/watched/old", IN_DELETE_SELF) == 2);
    wait_frozen();
    close(open("/tmp/watched/new", O_CREAT | O_WRONLY, 0644));
    MUST(read(watch, buffer, sizeof buffer) > 0);
    struct inotify_event *event = (void *)buffer;
    MUST(event->wd == 1 && !strcmp(event->name, "new"));
    unlink("/tmp/watched/old");
    MUST(read(watch, buffer, sizeof buffer) > 0 && event->wd == 2 && event->mask == IN_DELETE_SELF);
}

static void sockets(void)
{
    int pair[2], pipes[2], got = -1;
    char text[32] = "", control[CMSG_SPACE(sizeof(int))];
    struct iovec part = { "x", 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    MUST(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) && !pipe(pipes));
    MUST(write(pair[0], "in flight", 9) == 9 && write(pipes[1], "in the pipe", 11) == 11);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &pipes[0], sizeof(int));
    MUST(sendmsg(pair[0], &message, 0) == 1);
    wait_frozen();
    MUST(read(pair[1], text, sizeof text) == 9 && !memcmp(text, "in flight", 9));
    part.iov_base = text;
    MUST(recvmsg(pair[1], &message, 0) == 1 && (head = CMSG_FIRSTHDR(&message)));
    memcpy(&got, CMSG_DATA(head), sizeof(int));
    MUST(got > 0 && read(got, text, sizeof text) == 11 && !memcmp(text, "in the pipe", 11));
}

static void events(void)
{
    uint64_t value = 7;
    sigset_t set;
    struct signalfd_siginfo info;
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = 42 };
    int counter = eventfd(0, 0), poll = epoll_create1(0);
    sigemptyset(&set), sigaddset(&set, SIGUSR1), sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, 0);
    MUST(!epoll_ctl(poll, EPOLL_CTL_ADD, counter, &event));
    MUST(write(counter, &value, 8) == 8 && !raise(SIGUSR1));
    wait_frozen();
    event.data.u64 = 0;
    MUST(epoll_wait(poll, &event, 1, 0) == 1 && event.data.u64 == 42);
    MUST(read(counter, &value, 8) == 8 && value == 7);
    MUST(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
}

static void processes(void)
{
    siginfo_t info;
    pid_t child = fork();
    if (!child) {
        for (;;)
            pause();
    }
    int process = syscall(SYS_pidfd_open, child, 0);
    MUST(process >= 0);
    wait_frozen();
    MUST(!syscall(SYS_pidfd_send_signal, process, SIGTERM, NULL, 0));
    MUST(!waitid(P_PIDFD, process, &info, WEXITED) && info.si_pid == child && info.si_status == SIGTERM);
}

static void files(void)
{
    char text[16] = "";
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };
    int file = open("/tmp/gone", O_CREAT | O_RDWR, 0600), locked = open("/tmp/locked", O_CREAT | O_RDWR, 0600);
    MUST(write(file, "still here", 10) == 10 && !unlink("/tmp/gone"));
    MUST(!fcntl(locked, F_SETLK, &lock));
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    MUST(map != MAP_FAILED);
    wait_frozen();
    MUST(pread(file, text, sizeof text, 0) == 10 && !strcmp(text, "still here"));
    map[0] = 'S';
    MUST(pread(file, text, 1, 0) == 1 && text[0] == 'S');
    pid_t child = fork();
    if (!child) {
        MUST(!fcntl(locked, F_GETLK, &lock));
        _exit(lock.l_type == F_WRLCK && lock.l_pid == getppid() && lock.l_start == 3 ? 0 : 1);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } all[] = {
        { "timers", timers }, { "watches", watches }, { "sockets", sockets },
        { "events", events }, { "processes", processes }, { "files", files },
    };
    what = argc > 1 ? argv[1] : "";
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        if (!strcmp(all[i].name, what)) {
            all[i].run();
            say("ok", 0);
            return 0;
        }
    }
    return 2;
}
