/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A virtio disk served in C, by a thread that needs no Python: from a kick (an eventfd) to the used ring and the interrupt
 * (another one). The readable model is vmm/machine/virtio/{queue,chain,blk,disk}.py: this makes no decision that they do
 * not make too, in the same order and with the same words, and a test compares used rings, memory and file.
 *
 * The driver is not trusted and runs meanwhile. Every number of its is read once, into memory of ours, and checked there;
 * an address becomes a pointer in one place, host_at, for bytes that a memslot holds. Slots change under the lock alone,
 * which is held from the look at a request to its end, so that what was checked stays true.
 */
#include <linux/falloc.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/uio.h>

#define DISK_SECTOR 512
#define MAX_INDIRECT 1024             /* entries of an indirect table */
#define MAX_SEGMENTS (VMM_DISK_ENTRIES + MAX_INDIRECT) /* a chain may end in an indirect table */
#define MAX_CHAIN (1ULL << 32)        /* bytes, 2.7.5.2 */
#define PIECES 64                     /* of memory in one call to the kernel */
#define ZEROES 65536

struct segment { __u64 gpa; __u32 size; };

/* One request. Of `segments` the first are to be read by the device. */
struct chain {
    __u16 head;
    __u32 readable, count;
    __u64 read_size, write_size;
    struct segment segments[MAX_SEGMENTS];
};

struct vmm_disk {
    struct vmm_disk_setup setup;
    struct vmm_acked *acked;
    /* `lock` is of all that follows. Who wants it from outside holds `gate` until he has it, and says that he waits: the
     * thread, which takes it again and again, would else leave him none. */
    pthread_mutex_t gate, lock;
    int waiting;
    struct vmm_disk_slot *slots;
    __u32 slot_count;
    struct vmm_disk_queue queue;
    struct vmm_disk_mode mode;
    int running, stopped, error;
    const char *doing; /* what failed with `error` */
    int broken; /* the driver broke a rule: `why` says which */
    char why[VMM_DISK_WHY];
    struct vmm_disk_counts counts;
    struct chain chain;
};

/* -- memory */

/* Where the host has guest memory from `gpa` on, and in *SIZE how much of it lies there in a row; NULL: nowhere, or it
 * may not be written. */
static void *host_at(const struct vmm_disk *disk, __u64 gpa, __u64 *size, int write)
{
    for (__u32 i = 0; i < disk->slot_count; i++) {
        const struct vmm_disk_slot *slot = &disk->slots[i];

        if (gpa >= slot->gpa && gpa - slot->gpa < slot->size) {
            __u64 left = slot->size - (gpa - slot->gpa);

            if (write && slot->readonly)
                return NULL;
            if (*size > left)
                *size = left;
            return (void *)(uintptr_t)(slot->hva + (gpa - slot->gpa));
        }
    }
    return NULL;
}

/* Are all of these bytes guest memory (that may be written)? If not, *MISSING is the first that is none. */
static int holds(const struct vmm_disk *disk, __u64 gpa, __u64 size, int write, __u64 *missing)
{
    while (size) {
        __u64 run = size;

        *missing = gpa;
        if (!host_at(disk, gpa, &run, write))
            return 0;
        size -= run;
        gpa += run;
        if (size && gpa < run)
            return 0; /* beyond 64 bits */
    }
    return 1;
}

/* The host refuses what the thread cannot do without. */
static void fails(struct vmm_disk *disk, const char *doing)
{
    disk->error = errno ? errno : EIO;
    disk->doing = doing;
}

static void interrupt(struct vmm_disk *disk, __u32 cause)
{
    __u64 one = 1;

    vmm_acked_raise(disk->acked, cause);
    if (disk->setup.irq < 0)
        return;
    __atomic_fetch_add(&disk->counts.interrupts, 1, __ATOMIC_RELAXED);
    if (write(disk->setup.irq, &one, sizeof one) < 0 && errno != EAGAIN)
        fails(disk, "raising an interrupt: write to an eventfd");
}

/* The driver broke a rule, or the host failed us: nothing more is served until the device is reset. */
__attribute__((format(printf, 2, 3))) static int breaks(struct vmm_disk *disk, const char *form, ...)
{
    va_list rest;

    va_start(rest, form);
    vsnprintf(disk->why, sizeof disk->why, form, rest);
    va_end(rest);
    disk->running = 0;
    __atomic_store_n(&disk->broken, 1, __ATOMIC_RELEASE);
    interrupt(disk, VIRTIO_MMIO_INT_CONFIG);
    return -1;
}

/* Copy between our memory and the guest's. What is not there breaks, in the words of Python's. */
static int copy(struct vmm_disk *disk, __u64 gpa, void *ours, __u32 size, int write, const char *what)
{
    __u64 missing;
    char *at = ours;

    if (!holds(disk, gpa, size, 0, &missing))
        return breaks(disk, "the %s is gone: %s %u bytes at 0x%llx: no memslot holds guest-physical address 0x%llx", what,
                      write ? "writing" : "reading", size, gpa, missing);
    while (size) {
        __u64 run = size;
        void *there = host_at(disk, gpa, &run, 0);

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
static int ring_read(struct vmm_disk *disk, __u64 gpa, __u16 *value)
{
    __u64 run = sizeof *value;
    __u16 *there = host_at(disk, gpa, &run, 0);

    if (!there)
        return copy(disk, gpa, value, sizeof *value, 0, "available ring");
    *value = __atomic_load_n(there, __ATOMIC_ACQUIRE);
    return 0;
}

static int ring_write(struct vmm_disk *disk, __u64 gpa, __u16 value)
{
    __u64 run = sizeof value;
    __u16 *there = host_at(disk, gpa, &run, 0);

    if (!there)
        return copy(disk, gpa, &value, sizeof value, 1, "used ring");
    __atomic_store_n(there, value, __ATOMIC_RELEASE);
    return 0;
}

/* -- chains (2.7.5) */

static int check_indirect(struct vmm_disk *disk, const struct vring_desc *desc, int inside)
{
    __u64 missing;

    if (!disk->queue.indirect)
        return breaks(disk, "an indirect descriptor, and VIRTIO_RING_F_INDIRECT_DESC was not negotiated");
    if (inside)
        return breaks(disk, "an indirect descriptor inside an indirect table");
    if (desc->flags & VRING_DESC_F_NEXT)
        return breaks(disk, "an indirect descriptor with VRING_DESC_F_NEXT");
    if (!desc->len || desc->len % sizeof *desc || desc->len > MAX_INDIRECT * sizeof *desc)
        return breaks(disk, "an indirect table of 0x%x bytes: 1 to %d descriptors of %d bytes", desc->len, MAX_INDIRECT,
                      (int)sizeof *desc);
    if (!holds(disk, desc->addr, desc->len, 0, &missing))
        return breaks(disk, "an indirect table of 0x%x bytes at 0x%llx is not all guest memory", desc->len, desc->addr);
    return 0;
}

static int add_segment(struct vmm_disk *disk, struct chain *chain, const struct vring_desc *desc)
{
    int write = !!(desc->flags & VRING_DESC_F_WRITE);
    __u64 missing;

    if (!holds(disk, desc->addr, desc->len, write, &missing))
        return breaks(disk, "a buffer of 0x%x bytes at 0x%llx is not all %s memory", desc->len, desc->addr,
                      write ? "writable" : "guest");
    if (chain->count > chain->readable && !write)
        return breaks(disk, "a buffer to read comes after one to write");
    if (!desc->len)
        return 0;
    chain->segments[chain->count++] = (struct segment){desc->addr, desc->len};
    if (write) {
        chain->write_size += desc->len;
    } else {
        chain->readable++;
        chain->read_size += desc->len;
    }
    return 0;
}

static int walk(struct vmm_disk *disk, struct chain *chain, __u16 head)
{
    __u64 table = disk->queue.desc, total;
    __u32 entries = disk->queue.size, left = entries, index = head;
    struct vring_desc desc;
    int inside = 0;

    chain->head = head;
    chain->readable = chain->count = 0;
    chain->read_size = chain->write_size = 0;
    do {
        if (index >= entries)
            return breaks(disk, "descriptor %u of a table that has %u", index, entries);
        if (!left--)
            return breaks(disk, "a chain of more than %u descriptors: it goes in a circle", entries);
        if (copy(disk, table + index * sizeof desc, &desc, sizeof desc, 0, "descriptor table"))
            return -1;
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (check_indirect(disk, &desc, inside))
                return -1;
            table = desc.addr;
            entries = left = desc.len / sizeof desc;
            index = 0;
            inside = 1;
            desc.flags = VRING_DESC_F_NEXT; /* on, with the first of the table */
            continue;
        }
        if (add_segment(disk, chain, &desc))
            return -1;
        index = desc.next;
    } while (desc.flags & VRING_DESC_F_NEXT);
    total = chain->read_size + chain->write_size;
    if (total > MAX_CHAIN)
        return breaks(disk, "a chain of 0x%llx bytes; 4 GiB is the most", total);
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
static int pieces(const struct vmm_disk *disk, struct cursor cursor, __u64 size, struct iovec *list)
{
    int count = 0;

    while (size && count < PIECES && cursor.at < cursor.end) {
        __u64 run = cursor.at->size - cursor.offset;

        if (run > size)
            run = size;
        list[count].iov_base = host_at(disk, cursor.at->gpa + cursor.offset, &run, 0);
        list[count++].iov_len = run;
        size -= run;
        skip(&cursor, run);
    }
    return count;
}

/* Between our memory and a chain; its buffers are all there. */
static void move(const struct vmm_disk *disk, struct cursor cursor, void *ours, __u64 size, int write)
{
    struct iovec list[PIECES];
    char *at = ours;

    while (size) {
        int count = pieces(disk, cursor, size, list);

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

/* Python has no fallocate with a mode. */
int vmm_fallocate(int file, int mode, long long offset, long long size)
{
    int result;

    do
        result = fallocate(file, mode, offset, size);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

/* -- the file. A status of virtio-blk, VIRTIO_BLK_S_IOERR for whatever the host refuses. */

static int flush(struct vmm_disk *disk)
{
    if (fdatasync(disk->setup.file) < 0)
        return VIRTIO_BLK_S_IOERR;
    __atomic_fetch_add(&disk->counts.flushes, 1, __ATOMIC_RELAXED);
    return VIRTIO_BLK_S_OK;
}

static int in_disk(const struct vmm_disk *disk, __u64 sector, __u64 size)
{
    __u64 capacity = disk->setup.capacity;

    return !(size % DISK_SECTOR) && sector <= capacity && size / DISK_SECTOR <= capacity - sector;
}

static int transfer(struct vmm_disk *disk, struct cursor cursor, __u64 size, __u64 sector, int write, __u64 *done)
{
    struct iovec list[PIECES];
    __u64 offset = sector * DISK_SECTOR;

    while (*done < size) {
        int count = pieces(disk, cursor, size - *done, list);
        ssize_t moved = write ? pwritev(disk->setup.file, list, count, (off_t)(offset + *done))
                              : preadv(disk->setup.file, list, count, (off_t)(offset + *done));

        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0) {
            *done = 0;
            return VIRTIO_BLK_S_IOERR;
        }
        if (!moved)
            return VIRTIO_BLK_S_IOERR; /* the file became shorter */
        *done += (__u64)moved;
        skip(&cursor, (__u64)moved);
    }
    return VIRTIO_BLK_S_OK;
}

static int write_data(struct vmm_disk *disk, const struct chain *chain, __u64 sector)
{
    __u64 size = chain->read_size - sizeof(struct virtio_blk_outhdr), done = 0;
    struct cursor cursor = readable(chain);
    int status;

    if (disk->setup.readonly || !in_disk(disk, sector, size))
        return VIRTIO_BLK_S_IOERR;
    skip(&cursor, sizeof(struct virtio_blk_outhdr));
    status = transfer(disk, cursor, size, sector, 1, &done);
    if (status == VIRTIO_BLK_S_OK && !disk->mode.writeback)
        status = flush(disk);
    return status;
}

/* 1: done, 0: the file system has no such mode, -1: it refuses. */
static int allocate(struct vmm_disk *disk, int mode, __u64 offset, __u64 size)
{
    int error = vmm_fallocate(disk->setup.file, mode | FALLOC_FL_KEEP_SIZE, (long long)offset, (long long)size);

    return !error ? 1 : error == -EOPNOTSUPP || error == -ENOSYS ? 0 : -1;
}

static int write_zeroes(struct vmm_disk *disk, __u64 offset, __u64 size)
{
    static const char zeroes[ZEROES];

    while (size) {
        ssize_t done = pwrite(disk->setup.file, zeroes, size < ZEROES ? size : ZEROES, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        offset += (__u64)done;
        size -= (__u64)done;
    }
    return 1;
}

static int clear(struct vmm_disk *disk, __u64 offset, __u64 size, int discard, int unmap)
{
    int done = discard || unmap ? allocate(disk, FALLOC_FL_PUNCH_HOLE, offset, size) : 0;

    if (!done && discard)
        return 1; /* then the space stays: a discard is a hint */
    if (!done)
        done = allocate(disk, FALLOC_FL_ZERO_RANGE, offset, size);
    return done ? done : write_zeroes(disk, offset, size);
}

/* A discard, or a request for zeroes. Every range is checked before the first is done. */
static int clear_ranges(struct vmm_disk *disk, const struct chain *chain, int discard)
{
    const struct vmm_disk_setup *setup = &disk->setup;
    __u64 size = chain->read_size - sizeof(struct virtio_blk_outhdr), most = discard ? setup->max_discard : setup->max_zeroes;
    __u32 known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    struct virtio_blk_discard_write_zeroes ranges[256];
    struct cursor cursor = readable(chain);
    int count = (int)(size / sizeof ranges[0]);

    if (!size || size % sizeof ranges[0] || size > setup->max_ranges * sizeof ranges[0] || size > sizeof ranges)
        return VIRTIO_BLK_S_IOERR;
    skip(&cursor, sizeof(struct virtio_blk_outhdr));
    move(disk, cursor, ranges, size, 0);
    for (int i = 0; i < count; i++) {
        if (ranges[i].flags & ~known)
            return VIRTIO_BLK_S_UNSUPP;
        if (ranges[i].num_sectors > most || !in_disk(disk, ranges[i].sector, (__u64)ranges[i].num_sectors * DISK_SECTOR))
            return VIRTIO_BLK_S_IOERR;
    }
    for (int i = 0; i < count; i++) {
        __u64 bytes = (__u64)ranges[i].num_sectors * DISK_SECTOR;

        if (bytes && clear(disk, ranges[i].sector * DISK_SECTOR, bytes, discard, (int)ranges[i].flags) < 0)
            return VIRTIO_BLK_S_IOERR;
    }
    return discard || disk->mode.writeback ? VIRTIO_BLK_S_OK : flush(disk);
}

/* -- requests (5.2.6) */

static int perform(struct vmm_disk *disk, const struct chain *chain, __u64 *written)
{
    struct virtio_blk_outhdr header;
    __u64 size;

    move(disk, readable(chain), &header, sizeof header, 0);
    *written = 0;
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        size = chain->write_size - 1;
        if (!in_disk(disk, header.sector, size))
            return VIRTIO_BLK_S_IOERR;
        return transfer(disk, writable(chain), size, header.sector, 0, written);
    case VIRTIO_BLK_T_OUT:
        return write_data(disk, chain, header.sector);
    case VIRTIO_BLK_T_FLUSH:
        return disk->setup.readonly ? VIRTIO_BLK_S_UNSUPP : flush(disk);
    case VIRTIO_BLK_T_DISCARD:
        return disk->mode.discard ? clear_ranges(disk, chain, 1) : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return disk->mode.zeroes ? clear_ranges(disk, chain, 0) : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_GET_ID:
        *written = chain->write_size - 1 < VMM_DISK_ID ? chain->write_size - 1 : VMM_DISK_ID;
        move(disk, writable(chain), disk->setup.serial, *written, 1);
        return VIRTIO_BLK_S_OK;
    }
    return VIRTIO_BLK_S_UNSUPP;
}

/* -- the queue (2.7) */

/* How many chains wait. `arm`: let the driver say what it adds to them, as SplitQueue.pending does. */
static int available(struct vmm_disk *disk, int arm)
{
    struct vmm_disk_queue *q = &disk->queue;
    __u16 index, newer;

    if (ring_read(disk, q->avail + 2, &index))
        return -1;
    for (;; index = newer) {
        __u16 count = (__u16)(index - q->last_avail);

        if (count > q->size)
            return breaks(disk, "the available index runs %u ahead in a queue of %u", count, q->size);
        if (!arm || !q->event_idx)
            return count;
        if (ring_write(disk, q->used + 4 + 8 * q->size, index))
            return -1;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (ring_read(disk, q->avail + 2, &newer))
            return -1;
        if (newer == index)
            return count;
    }
}

static int push(struct vmm_disk *disk, __u16 head, __u64 written)
{
    struct vmm_disk_queue *q = &disk->queue;
    struct vring_used_elem element = {head, (__u32)written};

    if (copy(disk, q->used + 4 + sizeof element * (q->used_idx % q->size), &element, sizeof element, 1, "used ring"))
        return -1;
    q->used_idx++;
    return ring_write(disk, q->used + 2, q->used_idx);
}

/* Does the driver want to hear of what was given back since it was told last? (2.7.7.2) -1: the ring is gone. */
static int wants_interrupt(struct vmm_disk *disk)
{
    struct vmm_disk_queue *q = &disk->queue;
    __u16 before = q->told, word;

    q->told = q->used_idx;
    if (before == q->used_idx)
        return 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (ring_read(disk, q->event_idx ? q->avail + 4 + 2 * q->size : q->avail, &word))
        return -1;
    if (!q->event_idx)
        return !(word & VRING_AVAIL_F_NO_INTERRUPT);
    return (__u16)(q->used_idx - word - 1) < (__u16)(q->used_idx - before);
}

static int one_request(struct vmm_disk *disk)
{
    struct vmm_disk_queue *q = &disk->queue;
    struct chain *chain = &disk->chain;
    struct cursor last;
    __u64 written;
    __u16 head;
    __u8 status;

    if (ring_read(disk, q->avail + 4 + 2 * (q->last_avail % q->size), &head) || walk(disk, chain, head))
        return -1;
    q->last_avail++;
    if (chain->read_size < sizeof(struct virtio_blk_outhdr) || !chain->write_size)
        return breaks(disk, "a request without a header to read, or without a byte for the status");
    status = (__u8)perform(disk, chain, &written);
    last = writable(chain);
    skip(&last, chain->write_size - 1);
    move(disk, last, &status, 1, 1);
    return push(disk, chain->head, written + 1);
}

/* Somebody else wants the lock, or the end of the thread. */
static int wanted(struct vmm_disk *disk)
{
    return __atomic_load_n(&disk->waiting, __ATOMIC_ACQUIRE) || __atomic_load_n(&disk->stopped, __ATOMIC_ACQUIRE);
}

/* What waits now and, unless `once`, what comes meanwhile. Under the lock. 0: there is more, and it is somebody else's
 * turn.
 *
 * A driver that negotiated EVENT_IDX is not asked to kick while requests are served (`once` 0): its event is set when
 * there is none left. Any other is served what waits at its kick. */
static int serve(struct vmm_disk *disk, int once, int give_way)
{
    while (disk->running) {
        int count = available(disk, once);

        if (!count && !once)
            count = available(disk, 1);
        if (count <= 0)
            break;
        while (count-- && !one_request(disk)) {
            int wants = wants_interrupt(disk);

            if (wants > 0)
                interrupt(disk, VIRTIO_MMIO_INT_VRING);
            if (wants < 0 || disk->error)
                break;
            if (give_way && wanted(disk))
                return 0;
        }
        if (once || disk->error)
            break;
    }
    return 1;
}

static void enter(struct vmm_disk *disk)
{
    pthread_mutex_lock(&disk->gate);
    pthread_mutex_lock(&disk->lock);
    pthread_mutex_unlock(&disk->gate);
}

/* From another thread: after the request that is under way. */
static void interrupt_thread(struct vmm_disk *disk)
{
    __atomic_fetch_add(&disk->waiting, 1, __ATOMIC_ACQ_REL);
    enter(disk);
    __atomic_fetch_sub(&disk->waiting, 1, __ATOMIC_ACQ_REL);
}

static void leave(struct vmm_disk *disk)
{
    pthread_mutex_unlock(&disk->lock);
}

/* -- what Python calls */

struct vmm_disk *vmm_disk_new(const struct vmm_disk_setup *setup, struct vmm_acked *acked)
{
    struct vmm_disk *disk = calloc(1, sizeof *disk);

    if (disk) {
        disk->setup = *setup;
        disk->acked = acked;
        pthread_mutex_init(&disk->gate, NULL);
        pthread_mutex_init(&disk->lock, NULL);
    }
    return disk;
}

/* Nobody may be inside. */
void vmm_disk_free(struct vmm_disk *disk)
{
    free(disk->slots);
    free(disk);
}

/* Guest memory is this from now on. Memory that is no longer in it is not touched after this has returned. */
int vmm_disk_memory(struct vmm_disk *disk, const struct vmm_disk_slot *slots, __u32 count)
{
    struct vmm_disk_slot *old, *new = malloc(count * sizeof *new + 1);

    if (!new)
        return -ENOMEM;
    memcpy(new, slots, count * sizeof *new);
    interrupt_thread(disk);
    old = disk->slots;
    disk->slots = new;
    disk->slot_count = count;
    leave(disk);
    free(old);
    return 0;
}

/* Serve this queue; what waits in it waits for a kick. */
int vmm_disk_begin(struct vmm_disk *disk, const struct vmm_disk_queue *queue, struct vmm_disk_mode mode)
{
    if (!queue->size || queue->size > VMM_DISK_ENTRIES)
        return -EINVAL;
    interrupt_thread(disk);
    disk->queue = *queue;
    disk->mode = mode;
    disk->running = 1;
    leave(disk);
    return 0;
}

void vmm_disk_set_mode(struct vmm_disk *disk, struct vmm_disk_mode mode)
{
    interrupt_thread(disk);
    disk->mode = mode;
    leave(disk);
}

/* No request is under way when this returns, and none is taken any more. What was broken is forgotten. */
void vmm_disk_end(struct vmm_disk *disk, struct vmm_disk_queue *queue)
{
    interrupt_thread(disk);
    disk->running = 0;
    *queue = disk->queue;
    __atomic_store_n(&disk->broken, 0, __ATOMIC_RELEASE);
    leave(disk);
}

/* Serve what waits now, on this thread; where the queue stands after it. */
void vmm_disk_settle(struct vmm_disk *disk, struct vmm_disk_queue *queue)
{
    interrupt_thread(disk);
    serve(disk, 1, 0);
    *queue = disk->queue;
    leave(disk);
}

/* The thread: serve at every kick until vmm_disk_stop, and then 0; or an errno, and vmm_disk_failed says of what. The lower
 * half of the eventfd's number counts a guest's kicks, the upper one ours. */
int vmm_disk_live(struct vmm_disk *disk)
{
    int error = 0;

    while (!error) {
        __u64 kicks;
        ssize_t got = read(disk->setup.kick, &kicks, sizeof kicks);
        int done;

        if (__atomic_load_n(&disk->stopped, __ATOMIC_ACQUIRE))
            return 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof kicks) {
            fails(disk, "waiting for a kick: read of an eventfd");
            return -disk->error;
        }
        __atomic_fetch_add(&disk->counts.kicks, (__u32)kicks, __ATOMIC_RELAXED);
        do {
            enter(disk);
            done = serve(disk, !disk->queue.event_idx, 1);
            error = disk->error;
            leave(disk);
            if (__atomic_load_n(&disk->stopped, __ATOMIC_ACQUIRE))
                return 0;
        } while (!done && !error);
    }
    return -error;
}

int vmm_disk_stop(struct vmm_disk *disk)
{
    __u64 one = 1ULL << 32;

    __atomic_store_n(&disk->stopped, 1, __ATOMIC_RELEASE);
    return write(disk->setup.kick, &one, sizeof one) < 0 ? -errno : 0;
}

/* 1, and the words, if the driver broke a rule since vmm_disk_begin. */
int vmm_disk_broken(struct vmm_disk *disk, char *why)
{
    if (!__atomic_load_n(&disk->broken, __ATOMIC_ACQUIRE))
        return 0;
    memcpy(why, disk->why, VMM_DISK_WHY);
    return 1;
}

/* What vmm_disk_live came back from. */
const char *vmm_disk_failed(struct vmm_disk *disk)
{
    return disk->doing ? disk->doing : "";
}

void vmm_disk_counted(struct vmm_disk *disk, struct vmm_disk_counts *counts)
{
    counts->kicks = __atomic_load_n(&disk->counts.kicks, __ATOMIC_RELAXED);
    counts->interrupts = __atomic_load_n(&disk->counts.interrupts, __ATOMIC_RELAXED);
    counts->flushes = __atomic_load_n(&disk->counts.flushes, __ATOMIC_RELAXED);
}
