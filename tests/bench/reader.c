/*
 * Reads a file from its beginning to its end, again and again, and prints how many nanoseconds each took: open, reads,
 * close. Usage: reader FILE TIMES MILLISECONDS, which it waits before each.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    static char text[65536];

    if (argc != 4)
        return 2;
    for (int left = atoi(argv[2]); left > 0; left--) {
        usleep(atoi(argv[3]) * 1000);

        long long begin = now();
        int file = open(argv[1], O_RDONLY | O_CLOEXEC);
        ssize_t length;

        if (file < 0)
            return 1;
        while ((length = read(file, text, sizeof text)) > 0)
            ;
        close(file);
        if (length < 0)
            return 1;
        printf("%lld\n", now() - begin);
    }
    return 0;
}
