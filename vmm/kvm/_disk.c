/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A virtio disk served in C, by a thread that needs no Python: from a kick (an eventfd) to the used ring and the interrupt
 * (another one). Queues and memory are _queue.c's. The readable model is vmm/machine/virtio/{blk,disk}.py: this makes no
 * decision that they do not make too, in the same order and with the same words, and a test compares used rings, memory
 * and file.
 */
#include <linux/falloc.h>
#include <linux/virtio_blk.h>

#define DISK_SECTOR 512
#define ZEROES 65536

struct vmm_disk {
    struct vmm_plane plane;
    struct vmm_disk_setup setup;
    struct queue queue;
    struct vmm_disk_mode mode;
    __u64 flushes;
    struct chain chain;
    struct segment segments[MAX_SEGMENTS];
};

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
    __atomic_fetch_add(&disk->flushes, 1, __ATOMIC_RELAXED);
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
        int count = pieces(&disk->plane, cursor, size - *done, list);
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
    move(&disk->plane, cursor, ranges, size, 0);
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

    move(&disk->plane, readable(chain), &header, sizeof header, 0);
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
        move(&disk->plane, writable(chain), disk->setup.serial, *written, 1);
        return VIRTIO_BLK_S_OK;
    }
    return VIRTIO_BLK_S_UNSUPP;
}

static int one_request(struct vmm_disk *disk)
{
    struct queue *q = &disk->queue;
    struct chain *chain = &disk->chain;
    struct cursor last;
    __u64 written;
    __u8 status;

    if (pop(q, chain))
        return -1;
    if (chain->read_size < sizeof(struct virtio_blk_outhdr) || !chain->write_size)
        return breaks(q, "a request without a header to read, or without a byte for the status");
    status = (__u8)perform(disk, chain, &written);
    last = writable(chain);
    skip(&last, chain->write_size - 1);
    move(&disk->plane, last, &status, 1, 1);
    return push(q, chain->head, written + 1) || announce(q) ? -1 : 0;
}

/* What waits now and, unless `once`, what comes meanwhile. Under the lock. 0: there is more, and it is somebody else's
 * turn.
 *
 * A driver that negotiated EVENT_IDX is not asked to kick while requests are served (`once` 0): its event is set when
 * there is none left. Any other is served what waits at its kick. */
static int serve(struct vmm_disk *disk, int once, int give_way)
{
    struct queue *q = &disk->queue;

    while (runs(q)) {
        int count = available(q, once);

        if (!count && !once)
            count = available(q, 1);
        if (count <= 0)
            break;
        while (count-- && !one_request(disk)) {
            if (notify(q))
                break;
            if (give_way && wanted(&disk->plane))
                return 0;
        }
        if (once || disk->plane.error)
            break;
    }
    return 1;
}

/* -- what Python calls */

struct vmm_disk *vmm_disk_new(const struct vmm_disk_setup *setup, struct vmm_acked *acked)
{
    struct vmm_disk *disk = calloc(1, sizeof *disk);

    if (disk) {
        disk->setup = *setup;
        disk->chain.segments = disk->segments;
        disk->queue.plane = &disk->plane;
        plane_init(&disk->plane, acked, setup->irq);
    }
    return disk;
}

/* Nobody may be inside. */
void vmm_disk_free(struct vmm_disk *disk)
{
    free(disk->plane.stretches);
    free(disk);
}

struct vmm_plane *vmm_disk_plane(struct vmm_disk *disk)
{
    return &disk->plane;
}

/* Serve this queue; what waits in it waits for a kick. */
int vmm_disk_begin(struct vmm_disk *disk, const struct vmm_queue *ring, struct vmm_disk_mode mode)
{
    if (!ring->size || ring->size > VMM_ENTRIES)
        return -EINVAL;
    interrupt_thread(&disk->plane);
    queue_begin(&disk->queue, ring);
    disk->mode = mode;
    leave(&disk->plane);
    return 0;
}

void vmm_disk_set_mode(struct vmm_disk *disk, struct vmm_disk_mode mode)
{
    interrupt_thread(&disk->plane);
    disk->mode = mode;
    leave(&disk->plane);
}

/* No request is under way when this returns, and none is taken any more. What was broken is forgotten. */
void vmm_disk_end(struct vmm_disk *disk, struct vmm_queue *ring)
{
    interrupt_thread(&disk->plane);
    queue_end(&disk->queue, ring);
    leave(&disk->plane);
}

/* Serve what waits now, on this thread; where the queue stands after it. */
void vmm_disk_settle(struct vmm_disk *disk, struct vmm_queue *ring)
{
    interrupt_thread(&disk->plane);
    serve(disk, 1, 0);
    *ring = disk->queue.ring;
    leave(&disk->plane);
}

/* The thread: serve at every kick until vmm_disk_stop, and then 0; or an errno, and vmm_plane_failed says of what. The
 * lower half of the eventfd's number counts a guest's kicks, the upper one ours. */
int vmm_disk_live(struct vmm_disk *disk)
{
    struct vmm_plane *plane = &disk->plane;
    int error = 0;

    while (!error) {
        __u64 kicks;
        ssize_t got = read(disk->setup.kick, &kicks, sizeof kicks);
        int done;

        if (__atomic_load_n(&plane->stopped, __ATOMIC_ACQUIRE))
            return 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof kicks) {
            fails(plane, "waiting for a kick: read of an eventfd");
            return -plane->error;
        }
        __atomic_fetch_add(&plane->kicks, (__u32)kicks, __ATOMIC_RELAXED);
        do {
            enter(plane);
            done = serve(disk, !disk->queue.ring.event_idx, 1);
            error = plane->error;
            leave(plane);
            if (__atomic_load_n(&plane->stopped, __ATOMIC_ACQUIRE))
                return 0;
        } while (!done && !error);
    }
    return -error;
}

int vmm_disk_stop(struct vmm_disk *disk)
{
    __u64 one = 1ULL << 32;

    __atomic_store_n(&disk->plane.stopped, 1, __ATOMIC_RELEASE);
    return write(disk->setup.kick, &one, sizeof one) < 0 ? -errno : 0;
}

__u64 vmm_disk_flushes(struct vmm_disk *disk)
{
    return __atomic_load_n(&disk->flushes, __ATOMIC_RELAXED);
}
