/*
 * A server as games have it: answers each datagram on port 7, and changes its memory a little for each.
 *
 * usage: game MEBIBYTES PAGES
 *
 * It keeps so many MiB, and writes to so many pages of them for each datagram, all in turn. Half of each page is noise,
 * the other half is a word again and again: what a compressor makes half of, as of most programs' memory.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { PAGE = 4096 };

static uint64_t noise(void)
{
    static uint64_t state = 88172645463325252ULL;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

int main(int count, char **words)
{
    char bytes[2048];
    struct sockaddr_in from, here = { .sin_family = AF_INET, .sin_port = htons(7) };
    size_t pages = count > 1 ? strtoul(words[1], 0, 10) * 256 : 0;
    size_t each = count > 2 ? strtoul(words[2], 0, 10) : 0, next = 0;
    uint64_t *memory = pages ? malloc(pages * PAGE) : 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (pages && !memory)
        return 1;
    for (size_t page = 0; page < pages; page++)
        for (size_t at = 0; at < PAGE / 8; at++)
            memory[page * PAGE / 8 + at] = at < PAGE / 16 ? noise() : 0x20676e6f6c206f73ULL;
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) {
        perror("bind");
        return 1;
    }
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
        for (size_t i = 0; pages && i < each; i++) {
            memory[next * PAGE / 8] = noise();
            next = (next + 1) % pages;
        }
        if (got >= 0)
            sendto(fd, bytes, got, 0, (struct sockaddr *)&from, length);
    }
}
