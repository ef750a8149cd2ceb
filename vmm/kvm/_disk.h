/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of virtio disks (_disk.c) share; it is the cdef too.
 */
#define VMM_DISK_WHY 160
#define VMM_DISK_ID 20
#define VMM_DISK_ENTRIES 256 /* of its queue, at most */

/* Guest memory as a device reaches it; slots do not overlap. */
struct vmm_disk_slot { __u64 gpa, size, hva; __u32 readonly; };

/* A virtqueue, as vmm/machine/virtio/queue.py has it: what the driver said, and how far the rings are used. */
struct vmm_disk_queue {
    __u64 desc, avail, used;
    __u32 size;
    __u16 last_avail, used_idx, told;
    __u8 indirect, event_idx;
};

/* What a disk is. The descriptors stay Python's: the file, the eventfd of kicks, and that of interrupts (-1: none). */
struct vmm_disk_setup {
    int file, kick, irq;
    __u64 capacity;
    __u32 readonly, max_ranges, max_discard, max_zeroes;
    __u8 serial[VMM_DISK_ID];
};

/* How the device works for a driver: which requests it may make, and whether its data may wait for a flush. */
struct vmm_disk_mode { __u8 writeback, discard, zeroes; };

struct vmm_disk_counts { __u64 kicks, interrupts, flushes; };
