/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python sees of the C core of the exit loop (_core.c). These structures are ours, so they are complete here.
 */
#define VMM_DECODE 0      /* an exit (or a failed KVM_RUN: `error`) for Python to decode from kvm_run */
#define VMM_PORT_OUT 1    /* one element: address, size, value */
#define VMM_PORT_IN 2     /* one element: address, size; the answer goes to answer[0] */
#define VMM_MMIO_WRITE 3
#define VMM_MMIO_READ 4
#define VMM_INTERRUPTED 5 /* EINTR or EAGAIN, in `error` */

#define VMM_ACTION_PYTHON 0
#define VMM_ACTION_SINK 1
#define VMM_ACTION_SLOT 2 /* and above: slot number = action - VMM_ACTION_SLOT */
#define VMM_SLOTS 64
#define VMM_MMIO_SLOTS 16
#define VMM_RECENT 10

struct vmm_slot { __u64 reads, writes, value, address; };

/* One per machine, shared by its vCPUs. */
struct vmm_finish {
    __u8 action[65536];
    struct vmm_slot slots[64];
    struct vmm_slot mmio[16];
    __u32 mmio_count;
    __u8 lock;
    __u8 *sink;
    __u32 sink_length, sink_room;
};

/* One exit, as much of it as a post-mortem shows. `kind` is a VMM_* code above. */
struct vmm_seen { __u64 sequence, address; __u32 kind, size, count; __u8 data[4096]; };

/* One per vCPU. */
struct vmm_core {
    int fd;
    struct kvm_run *run;
    struct vmm_finish *finish;
    int error;
    __u32 size;
    __u64 address, value;
    __u64 *answer;
    __u64 sequence, kept;
    __u64 interrupted, port_in, port_out, mmio_read, mmio_write;
    struct vmm_seen recent[10];
};

int vmm_core_run(struct vmm_core *core);
int vmm_drain(struct vmm_finish *finish, __u8 *to);
