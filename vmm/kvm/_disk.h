/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of virtio disks (_disk.c) share; it is the cdef too.
 */
#define VMM_DISK_ID 20

/* What a disk is. The descriptors stay Python's: the file, the eventfd of kicks, and that of interrupts (-1: none). */
struct vmm_disk_setup {
    int file, kick, irq;
    __u64 capacity;
    __u32 readonly, max_ranges, max_discard, max_zeroes;
    __u8 serial[VMM_DISK_ID];
};

/* How the device works for a driver: which requests it may make, and whether its data may wait for a flush. */
struct vmm_disk_mode { __u8 writeback, discard, zeroes; };
