/*
 * Reads a file from its beginning to its end, again and again, and prints how many nanoseconds each took: open, reads,
 * close. Usage: reader FILE TIMES MILLISECONDS [OTHER]. Before each it sleeps so long; or reads the other file all the
 * while, which keeps the processors awake and whoever answers at work.
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

static long long took(const char *path)
{
    static char text[65536];
    long long begin = now();
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (file < 0)
        exit(1);
    while ((length = read(file, text, sizeof text)) > 0)
        ;
    close(file);
    if (length < 0)
        exit(1);
    return now() - begin;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 5)
        return 2;
    for (int left = atoi(argv[2]); left > 0; left--) {
        int pause = atoi(argv[3]);

        if (argc == 5)
            for (long long end = now() + pause * 1000000LL; now() < end;)
                took(argv[4]);
        else
            usleep(pause * 1000);
        printf("%lld\n", took(argv[1]));
    }
    return 0;
}
