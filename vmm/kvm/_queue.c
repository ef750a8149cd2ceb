/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Split virtqueues served in C, by a thread that needs no Python: guest memory, descriptor chains, rings, and who may be
 * inside when. What a request means is the device's: _disk.c, _net.c. The readable model is
 * vmm/machine/virtio/{queue,chain}.py: this makes no decision that they do not make too, in the same order and with the
 * same words, and tests give both the same drivers.
 *
 * The driver is not trusted and runs meanwhile. Every number of its is read once, into memory of ours, and checked there;
 * an address becomes a pointer in one place, host_at, for bytes that a memslot holds. Stretches change under the lock
 * alone, which is held from the look at a request to its end, so that what was checked stays true.
 */
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/uio.h>

#define MAX_INDIRECT 1024             /* entries of an indirect table */
#define MAX_SEGMENTS (VMM_ENTRIES + MAX_INDIRECT) /* a chain may end in an indirect table */
#define MAX_CHAIN (1ULL << 32)        /* bytes, 2.7.5.2 */
#define PIECES 64                     /* of memory in one call to the kernel */

/* What all queues of a device have in common. */
struct vmm_plane {
    struct vmm_acked *acked;
    int irq; /* the eventfd of its interrupt, -1: none */
    /* `lock` is of all that follows. Who wants it from outside holds `gate` until he has it, and says that he waits: the
     * thread, which takes it again and again, would else leave him none. */
    pthread_mutex_t gate, lock;
    int waiting;
    struct vmm_stretch *stretches;
    __u32 stretch_count;
    int stopped, error;
    const char *doing; /* what failed with `error` */
    int broken; /* the driver broke a rule, and no queue is served: `why` says which */
    char why[VMM_WHY];
    __u64 kicks, interrupts;
};

struct queue {
    struct vmm_plane *plane;
    __u32 number;
    int running;
    struct vmm_queue ring;
};

struct segment { __u64 gpa; __u32 size; };

/* One request. Of its segments the first `readable` are to be read by the device. There is room for MAX_SEGMENTS. */
struct chain {
    __u16 head;
    __u32 readable, count;
    __u64 read_size, write_size;
    struct segment *segments;
};

/* -- memory */

/* Where the host has guest memory from `gpa` on, and in *SIZE how much of it lies there in a row; NULL: nowhere, or it
 * may not be written. */
static void *host_at(const struct vmm_plane *plane, __u64 gpa, __u64 *size, int write)
{
    for (__u32 i = 0; i < plane->stretch_count; i++) {
        const struct vmm_stretch *stretch = &plane->stretches[i];

        if (gpa >= stretch->gpa && gpa - stretch->gpa < stretch->size) {
            __u64 left = stretch->size - (gpa - stretch->gpa);

            if (write && stretch->readonly)
                return NULL;
            if (*size > left)
                *size = left;
            return (void *)(uintptr_t)(stretch->hva + (gpa - stretch->gpa));
        }
    }
    return NULL;
}

/* These bytes, which are guest memory, are written: whoever wants to know finds their pages marked. */
static void marks(const struct vmm_plane *plane, __u64 gpa, __u64 size)
{
    for (__u32 i = 0; size && i < plane->stretch_count; i++) {
        const struct vmm_stretch *stretch = &plane->stretches[i];
        __u64 first = gpa > stretch->gpa ? gpa - stretch->gpa : 0, end = gpa + size - stretch->gpa;

        if (!stretch->touched || gpa + size <= stretch->gpa || first >= stretch->size)
            continue;
        if (end > stretch->size)
            end = stretch->size;
        memset(stretch->touched + first / PAGE_BYTES, 1, (end - 1) / PAGE_BYTES - first / PAGE_BYTES + 1);
        *stretch->marked = 1;
    }
}

/* Are all of these bytes guest memory (that may be written)? If not, *MISSING is the first that is none. */
static int holds(const struct vmm_plane *plane, __u64 gpa, __u64 size, int write, __u64 *missing)
{
    while (size) {
        __u64 run = size;

        *missing = gpa;
        if (!host_at(plane, gpa, &run, write))
            return 0;
        size -= run;
        gpa += run;
        if (size && gpa < run)
            return 0; /* beyond 64 bits */
    }
    return 1;
}

/* The host refuses what the thread cannot do without. */
static void fails(struct vmm_plane *plane, const char *doing)
{
    plane->error = errno ? errno : EIO;
    plane->doing = doing;
}

static void interrupt(struct vmm_plane *plane, __u32 cause)
{
    __u64 one = 1;

    vmm_acked_raise(plane->acked, cause);
    if (plane->irq < 0)
        return;
    __atomic_fetch_add(&plane->interrupts, 1, __ATOMIC_RELAXED);
    if (write(plane->irq, &one, sizeof one) < 0 && errno != EAGAIN)
        fails(plane, "raising an interrupt: write to an eventfd");
}

/* The driver broke a rule, or the host failed us: nothing more is served until the device is reset. */
__attribute__((format(printf, 2, 3))) static int breaks(struct queue *q, const char *form, ...)
{
    struct vmm_plane *plane = q->plane;
    int begun = snprintf(plane->why, sizeof plane->why, "queue %u: ", q->number);
    va_list rest;

    va_start(rest, form);
    vsnprintf(plane->why + begun, sizeof plane->why - (size_t)begun, form, rest);
    va_end(rest);
    __atomic_store_n(&plane->broken, 1, __ATOMIC_RELEASE);
    interrupt(plane, VIRTIO_MMIO_INT_CONFIG);
    return -1;
}

/* Copy between our memory and the guest's. What is not there breaks, in the words of Python's. */
static int copy(struct queue *q, __u64 gpa, void *ours, __u32 size, int write, const char *what)
{
    __u64 missing;
    char *at = ours;

    if (!holds(q->plane, gpa, size, 0, &missing))
        return breaks(q, "the %s is gone: %s %u bytes at 0x%llx: no memslot holds guest-physical address 0x%llx", what,
                      write ? "writing" : "reading", size, gpa, missing);
    if (write)
        marks(q->plane, gpa, size);
    while (size) {
        __u64 run = size;
        void *there = host_at(q->plane, gpa, &run, 0);

        if (write)
            memcpy(there, at, run);
        else
            memcpy(at, there, run);
        at += run;
        gpa += run;
        size -= (__u32)run;
    }
    return 0;
}

/* A word of the rings, which is aligned: read and written as a whole. */
static int ring_read(struct queue *q, __u64 gpa, __u16 *value)
{
    __u64 run = sizeof *value;
    __u16 *there = host_at(q->plane, gpa, &run, 0);

    if (!there)
        return copy(q, gpa, value, sizeof *value, 0, "available ring");
    *value = __atomic_load_n(there, __ATOMIC_ACQUIRE);
    return 0;
}

static int ring_write(struct queue *q, __u64 gpa, __u16 value)
{
    __u64 run = sizeof value;
    __u16 *there = host_at(q->plane, gpa, &run, 0);

    if (!there)
        return copy(q, gpa, &value, sizeof value, 1, "used ring");
    marks(q->plane, gpa, sizeof value);
    __atomic_store_n(there, value, __ATOMIC_RELEASE);
    return 0;
}

/* -- chains (2.7.5) */

static int check_indirect(struct queue *q, const struct vring_desc *desc, int inside)
{
    __u64 missing;

    if (!q->ring.indirect)
        return breaks(q, "an indirect descriptor, and VIRTIO_RING_F_INDIRECT_DESC was not negotiated");
    if (inside)
        return breaks(q, "an indirect descriptor inside an indirect table");
    if (desc->flags & VRING_DESC_F_NEXT)
        return breaks(q, "an indirect descriptor with VRING_DESC_F_NEXT");
    if (!desc->len || desc->len % sizeof *desc || desc->len > MAX_INDIRECT * sizeof *desc)
        return breaks(q, "an indirect table of 0x%x bytes: 1 to %d descriptors of %d bytes", desc->len, MAX_INDIRECT,
                      (int)sizeof *desc);
    if (!holds(q->plane, desc->addr, desc->len, 0, &missing))
        return breaks(q, "an indirect table of 0x%x bytes at 0x%llx is not all guest memory", desc->len, desc->addr);
    return 0;
}

static int add_segment(struct queue *q, struct chain *chain, const struct vring_desc *desc)
{
    int write = !!(desc->flags & VRING_DESC_F_WRITE);
    __u64 missing;

    if (!holds(q->plane, desc->addr, desc->len, write, &missing))
        return breaks(q, "a buffer of 0x%x bytes at 0x%llx is not all %s memory", desc->len, desc->addr,
                      write ? "writable" : "guest");
    if (chain->count > chain->readable && !write)
        return breaks(q, "a buffer to read comes after one to write");
    if (!desc->len)
        return 0;
    if (write)
        marks(q->plane, desc->addr, desc->len);
    chain->segments[chain->count++] = (struct segment){desc->addr, desc->len};
    if (write) {
        chain->write_size += desc->len;
    } else {
        chain->readable++;
        chain->read_size += desc->len;
    }
    return 0;
}

static int walk(struct queue *q, struct chain *chain, __u16 head)
{
    __u64 table = q->ring.desc, total;
    __u32 entries = q->ring.size, left = entries, index = head;
    struct vring_desc desc;
    int inside = 0;

    chain->head = head;
    chain->readable = chain->count = 0;
    chain->read_size = chain->write_size = 0;
    do {
        if (index >= entries)
            return breaks(q, "descriptor %u of a table that has %u", index, entries);
        if (!left--)
            return breaks(q, "a chain of more than %u descriptors: it goes in a circle", entries);
        if (copy(q, table + index * sizeof desc, &desc, sizeof desc, 0, "descriptor table"))
            return -1;
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (check_indirect(q, &desc, inside))
                return -1;
            table = desc.addr;
            entries = left = desc.len / sizeof desc;
            index = 0;
            inside = 1;
            desc.flags = VRING_DESC_F_NEXT; /* on, with the first of the table */
            continue;
        }
        if (add_segment(q, chain, &desc))
            return -1;
        index = desc.next;
    } while (desc.flags & VRING_DESC_F_NEXT);
    total = chain->read_size + chain->write_size;
    if (total > MAX_CHAIN)
        return breaks(q, "a chain of 0x%llx bytes; 4 GiB is the most", total);
    return 0;
}

/* A place in one part of a chain. */
struct cursor { const struct segment *at, *end; __u32 offset; };

static struct cursor readable(const struct chain *chain)
{
    return (struct cursor){chain->segments, chain->segments + chain->readable, 0};
}

static struct cursor writable(const struct chain *chain)
{
    return (struct cursor){chain->segments + chain->readable, chain->segments + chain->count, 0};
}

static void skip(struct cursor *cursor, __u64 size)
{
    while (size && cursor->at < cursor->end) {
        __u32 left = cursor->at->size - cursor->offset;

        if (size < left) {
            cursor->offset += (__u32)size;
            return;
        }
        size -= left;
        cursor->at++;
        cursor->offset = 0;
    }
}

/* The next bytes, at most `size`, as pieces of the host's memory. How many pieces. */
static int pieces(const struct vmm_plane *plane, struct cursor cursor, __u64 size, struct iovec *list)
{
    int count = 0;

    while (size && count < PIECES && cursor.at < cursor.end) {
        __u64 run = cursor.at->size - cursor.offset;

        if (run > size)
            run = size;
        list[count].iov_base = host_at(plane, cursor.at->gpa + cursor.offset, &run, 0);
        list[count++].iov_len = run;
        size -= run;
        skip(&cursor, run);
    }
    return count;
}

/* Between our memory and a chain; its buffers are all there. */
static void move(const struct vmm_plane *plane, struct cursor cursor, void *ours, __u64 size, int write)
{
    struct iovec list[PIECES];
    char *at = ours;

    while (size) {
        int count = pieces(plane, cursor, size, list);

        for (int i = 0; i < count; i++) {
            if (write)
                memcpy(list[i].iov_base, at, list[i].iov_len);
            else
                memcpy(at, list[i].iov_base, list[i].iov_len);
            at += list[i].iov_len;
            size -= list[i].iov_len;
            skip(&cursor, list[i].iov_len);
        }
        if (!count)
            return;
    }
}

/* -- the queue (2.7) */

/* Is it to be served? */
static int runs(const struct queue *q)
{
    return q->running && !q->plane->broken;
}

/* How many chains wait. `arm`: let the driver say what it adds to them, as SplitQueue.pending does; else as `waiting`. */
static int available(struct queue *q, int arm)
{
    __u16 index, newer;

    if (ring_read(q, q->ring.avail + 2, &index))
        return -1;
    for (;; index = newer) {
        __u16 count = (__u16)(index - q->ring.last_avail);

        if (count > q->ring.size)
            return breaks(q, "the available index runs %u ahead in a queue of %u", count, q->ring.size);
        if (!arm || !q->ring.event_idx)
            return count;
        if (ring_write(q, q->ring.used + 4 + 8 * q->ring.size, index))
            return -1;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (ring_read(q, q->ring.avail + 2, &newer))
            return -1;
        if (newer == index)
            return count;
    }
}

/* The next chain; `available` must say that there is one. */
static int pop(struct queue *q, struct chain *chain)
{
    __u16 head;

    if (ring_read(q, q->ring.avail + 4 + 2 * (q->ring.last_avail % q->ring.size), &head) || walk(q, chain, head))
        return -1;
    q->ring.last_avail++;
    return 0;
}

/* Give a chain back; the driver sees it with the index, by `announce`. */
static int push(struct queue *q, __u16 head, __u64 written)
{
    struct vring_used_elem element = {head, (__u32)written};

    if (copy(q, q->ring.used + 4 + sizeof element * (q->ring.used_idx % q->ring.size), &element, sizeof element, 1,
             "used ring"))
        return -1;
    q->ring.used_idx++;
    return 0;
}

static int announce(struct queue *q)
{
    return ring_write(q, q->ring.used + 2, q->ring.used_idx);
}

/* Does the driver want to hear of what was given back since it was told last? (2.7.7.2) -1: the ring is gone. */
static int wants_interrupt(struct queue *q)
{
    __u16 before = q->ring.told, word;

    q->ring.told = q->ring.used_idx;
    if (before == q->ring.used_idx)
        return 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (ring_read(q, q->ring.event_idx ? q->ring.avail + 4 + 2 * q->ring.size : q->ring.avail, &word))
        return -1;
    if (!q->ring.event_idx)
        return !(word & VRING_AVAIL_F_NO_INTERRUPT);
    return (__u16)(q->ring.used_idx - word - 1) < (__u16)(q->ring.used_idx - before);
}

/* Let the driver hear of it, if it wants to. -1: there is no going on. */
static int notify(struct queue *q)
{
    int wants = wants_interrupt(q);

    if (wants > 0)
        interrupt(q->plane, VIRTIO_MMIO_INT_VRING);
    return wants < 0 || q->plane->error ? -1 : 0;
}

/* -- who is inside */

/* Somebody else wants the lock, or the end of the thread. */
static int wanted(struct vmm_plane *plane)
{
    return __atomic_load_n(&plane->waiting, __ATOMIC_ACQUIRE) || __atomic_load_n(&plane->stopped, __ATOMIC_ACQUIRE);
}

static void enter(struct vmm_plane *plane)
{
    pthread_mutex_lock(&plane->gate);
    pthread_mutex_lock(&plane->lock);
    pthread_mutex_unlock(&plane->gate);
}

/* From another thread: after the request that is under way. */
static void interrupt_thread(struct vmm_plane *plane)
{
    __atomic_fetch_add(&plane->waiting, 1, __ATOMIC_ACQ_REL);
    enter(plane);
    __atomic_fetch_sub(&plane->waiting, 1, __ATOMIC_ACQ_REL);
}

static void leave(struct vmm_plane *plane)
{
    pthread_mutex_unlock(&plane->lock);
}

static void plane_init(struct vmm_plane *plane, struct vmm_acked *acked, int irq)
{
    plane->acked = acked;
    plane->irq = irq;
    pthread_mutex_init(&plane->gate, NULL);
    pthread_mutex_init(&plane->lock, NULL);
}

/* Serve this queue; what waits in it waits for a kick. Under the lock. */
static void queue_begin(struct queue *q, const struct vmm_queue *ring)
{
    q->ring = *ring;
    q->running = 1;
}

/* Where it stands; nothing of it is served any more. What was broken is forgotten. Under the lock. */
static void queue_end(struct queue *q, struct vmm_queue *ring)
{
    q->running = 0;
    *ring = q->ring;
    __atomic_store_n(&q->plane->broken, 0, __ATOMIC_RELEASE);
}

/* -- what Python calls */

/* Guest memory is this from now on. Memory that is no longer in it is not touched after this has returned. */
int vmm_plane_memory(struct vmm_plane *plane, const struct vmm_stretch *stretches, __u32 count)
{
    struct vmm_stretch *old, *new = malloc(count * sizeof *new + 1);

    if (!new)
        return -ENOMEM;
    memcpy(new, stretches, count * sizeof *new);
    interrupt_thread(plane);
    old = plane->stretches;
    plane->stretches = new;
    plane->stretch_count = count;
    leave(plane);
    free(old);
    return 0;
}

/* 1, and the words, if the driver broke a rule since the queue was begun. */
int vmm_plane_broken(struct vmm_plane *plane, char *why)
{
    if (!__atomic_load_n(&plane->broken, __ATOMIC_ACQUIRE))
        return 0;
    memcpy(why, plane->why, VMM_WHY);
    return 1;
}

/* What the thread came back from. */
const char *vmm_plane_failed(struct vmm_plane *plane)
{
    return plane->doing ? plane->doing : "";
}

void vmm_plane_counted(struct vmm_plane *plane, __u64 *kicks, __u64 *interrupts)
{
    *kicks = __atomic_load_n(&plane->kicks, __ATOMIC_RELAXED);
    *interrupts = __atomic_load_n(&plane->interrupts, __ATOMIC_RELAXED);
}
