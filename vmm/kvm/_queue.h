/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of split virtqueues (_queue.c) share; it is the cdef too.
 */
#define VMM_WHY 192     /* bytes of a reason */
#define VMM_ENTRIES 256 /* of a queue that C serves, at most */

/* Guest memory as a device reaches it; stretches do not overlap. `touched`, where somebody wants to know which pages were
 * written: a byte for each page of the stretch, and one that says that any was. */
struct vmm_stretch { __u64 gpa, size, hva; __u32 readonly; __u8 *touched, *marked; };

/* A virtqueue, as vmm/machine/virtio/queue.py has it: what the driver said, and how far the rings are used. */
struct vmm_queue {
    __u64 desc, avail, used;
    __u32 size;
    __u16 last_avail, used_idx, told;
    __u8 indirect, event_idx;
};
