/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * measure: what a Linux guest does with its disk and its network card, timed in the guest; and the other end of the card.
 *
 *     measure disk DEVICE COUNT            reads of 4 KiB at random places, one at a time, past the page cache
 *     measure stream DEVICE COUNT          reads of 256 KiB one behind the other
 *     measure echo ADDRESS COUNT           datagrams of 18 bytes, each sent when the last has come back
 *     measure flood ADDRESS COUNT          datagrams of 1472 bytes, 8 under way
 *     measure peer PATH                    on the host: serves a Unix stream socket, a frame behind its length (32 bits,
 *                                          big endian), one card after another; answers ARP, sends UDP back
 *
 * A guest's line is "measured KIND COUNT NANOSECONDS MEDIAN": of all together, and the median of one (of flood: 0).
 * It is linked statically, for an initial file system without a C library.
 *
 * Sources: open(2) of O_DIRECT; RFC 768 (UDP), RFC 791 (IP), RFC 826 (ARP); `stream` of QEMU's -netdev.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

enum { BLOCK = 4096, PIECE = 256 << 10, SMALL = 18, LARGE = 1472, UNDER_WAY = 8, PORT = 7, PATIENCE = 60, FRAME = 1 << 16 };

static void fail(const char *what)
{
    printf("measure: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int told(const char *kind, unsigned count, uint64_t took, uint64_t *each)
{
    if (each)
        qsort(each, count, sizeof *each, by_size);
    printf("measured %s %u %llu %llu\n", kind, count, (unsigned long long)took,
           (unsigned long long)(each ? each[count / 2] : 0));
    return 0;
}

static int disk(const char *device, unsigned count, int random)
{
    int file = open(device, O_RDONLY | O_DIRECT);
    size_t size = random ? BLOCK : PIECE;
    uint64_t bytes, places, begin, before, *each = calloc(count, sizeof *each), at = 1;
    void *buffer;

    if (file < 0 || ioctl(file, BLKGETSIZE64, &bytes) || posix_memalign(&buffer, BLOCK, size) || !each)
        fail(device);
    places = bytes / size;
    begin = before = now();
    for (unsigned i = 0; i < count; i++) {
        at = at * 6364136223846793005ull + 1442695040888963407ull; /* the same places each time */
        uint64_t place = random ? (at >> 33) % places : i % places, after;

        if (pread(file, buffer, size, place * size) != (ssize_t)size)
            fail(device);
        after = now();
        each[i] = after - before;
        before = after;
    }
    return told(random ? "disk" : "stream", count, before - begin, each);
}

static int card(const char *address, unsigned count, size_t size, unsigned under_way)
{
    int out = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
    struct timeval patience = { .tv_sec = PATIENCE };
    uint64_t begin, before, *each = calloc(count, sizeof *each);
    char data[LARGE] = { 0 };
    unsigned sent = 0, back;

    if (out < 0 || !each || inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
        setsockopt(out, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(out, (struct sockaddr *)&to, sizeof to))
        fail(address);
    if (send(out, data, size, 0) < 0 || recv(out, data, sizeof data, 0) < 0) /* ARP, once */
        fail(address);
    begin = before = now();
    for (back = 0; back < count; back++) {
        for (; sent < count && sent < back + under_way; sent++)
            if (send(out, data, size, 0) != (ssize_t)size)
                fail(address);
        if (recv(out, data, sizeof data, 0) != (ssize_t)size)
            fail(address);
        uint64_t after = now();
        each[back] = after - before;
        before = after;
    }
    return told(under_way > 1 ? "flood" : "echo", count, before - begin, under_way > 1 ? NULL : each);
}

static int all(int card, void *data, size_t left, int out)
{
    char *at = data;

    while (left) {
        ssize_t done = out ? write(card, at, left) : read(card, at, left);
        if (done <= 0)
            return 0;
        at += done;
        left -= done;
    }
    return 1;
}

static void swap(unsigned char *a, unsigned char *b, size_t size)
{
    while (size--) {
        unsigned char c = a[size];
        a[size] = b[size];
        b[size] = c;
    }
}

/* The frame made into its own answer; 0 if it gets none. A checksum is the same whichever way its fields stand. */
static int answered(unsigned char *f, size_t size)
{
    static const unsigned char own[6] = { 2, 0, 0, 0, 0, 1 };

    if (size >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 1) {
        f[21] = 2;
        swap(f + 22, f + 32, 6);
        swap(f + 28, f + 38, 4);
        memcpy(f + 22, own, 6);
    } else if (size >= 42 && f[12] == 8 && f[13] == 0 && f[23] == 17) {
        swap(f + 26, f + 30, 4);
        swap(f + 34, f + 36, 2);
    } else {
        return 0;
    }
    memcpy(f, f + 6, 6);
    memcpy(f + 6, own, 6);
    return 1;
}

static void peer(const char *path)
{
    static struct { uint32_t length; unsigned char data[FRAME]; } frame;
    int heard = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = { .sun_family = AF_UNIX };

    strncpy(at.sun_path, path, sizeof at.sun_path - 1);
    unlink(path);
    if (heard < 0 || bind(heard, (struct sockaddr *)&at, sizeof at) || listen(heard, 1))
        fail(path);
    for (;;) {
        int card = accept(heard, NULL, NULL);

        if (card < 0)
            fail(path);
        while (all(card, &frame.length, 4, 0)) {
            size_t size = ntohl(frame.length);

            if (size > FRAME || !all(card, frame.data, size, 0))
                break;
            if (answered(frame.data, size) && !all(card, &frame, 4 + size, 1))
                break;
        }
        close(card);
    }
}

int main(int argc, char **argv)
{
    unsigned count = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;

    if (argc == 3 && !strcmp(argv[1], "peer"))
        peer(argv[2]);
    if (count && !strcmp(argv[1], "disk"))
        return disk(argv[2], count, 1);
    if (count && !strcmp(argv[1], "stream"))
        return disk(argv[2], count, 0);
    if (count && !strcmp(argv[1], "echo"))
        return card(argv[2], count, SMALL, 1);
    if (count && !strcmp(argv[1], "flood"))
        return card(argv[2], count, LARGE, UNDER_WAY);
    printf("usage: measure disk|stream DEVICE COUNT, echo|flood ADDRESS COUNT, peer PATH\n");
    return 2;
}
