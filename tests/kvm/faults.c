/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Loaded before libc (LD_PRELOAD) by tests/kvm/faults.py: calls by which the host gives something are counted, and the
 * one of a number fails once, with an errno, without being made. Those of this process' main thread and of others alike.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

enum { IOCTL, MMAP, EVENTFD, THREAD };
#define ROOM 8192

static atomic_int counting, count, fails_at = -1, fails_with;
static struct {
    int kind;
    unsigned long request;
} calls[ROOM];

/* From now on: the call of number AT (none: -1) fails with WITH. */
void faults_begin(int at, int with)
{
    count = 0;
    fails_at = at;
    fails_with = with;
    counting = 1;
}

int faults_end(void)
{
    counting = 0;
    return count < ROOM ? count : ROOM;
}

int faults_kind(int at)
{
    return calls[at].kind;
}

unsigned long faults_request(int at)
{
    return calls[at].request;
}

static int fails(int kind, unsigned long request)
{
    int number;

    if (!counting)
        return 0;
    number = count++;
    if (number < ROOM) {
        calls[number].kind = kind;
        calls[number].request = request;
    }
    return number == fails_at ? fails_with : 0;
}

/* Of mmap: called by the binding. Python's allocator calls it too, and a thread that has no memory in its first steps
 * leaves who starts it waiting for ever (CPython, Thread.start). */
static int is_ours(void *caller)
{
    Dl_info found;

    return dladdr(caller, &found) && found.dli_fname && strstr(found.dli_fname, "_kvm");
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    va_list rest;
    void *argument;
    int error;

    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    if (!real)
        real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    if ((request >> 8 & 0xff) == 0xae && (error = fails(IOCTL, request))) {
        errno = error;
        return -1;
    }
    return real(fd, request, argument);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    int error;

    if (!real)
        real = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    if (is_ours(__builtin_return_address(0)) && (error = fails(MMAP, 0))) {
        errno = error;
        return (void *)-1;
    }
    return real(address, size, protection, flags, fd, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int eventfd(unsigned int value, int flags)
{
    static int (*real)(unsigned int, int);
    int error;

    if (!real)
        real = (int (*)(unsigned int, int))dlsym(RTLD_NEXT, "eventfd");
    if ((error = fails(EVENTFD, 0))) {
        errno = error;
        return -1;
    }
    return real(value, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int error;

    if (!real)
        real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    if ((error = fails(THREAD, 0)))
        return error;
    return real(thread, attributes, start, argument);
}
