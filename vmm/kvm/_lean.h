/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the C core of the exit loop (_lean.c, _serve.c) and Python share: the codes and the structures, for the compiler
 * and for cffi alike. They are ours, so they are complete here.
 */
/* What vmm_core_serve gives: a key, address << 8 | size << 4 | one of these. Size and address only where they say so. */
#define VMM_DECODE 0      /* an exit (or a failed KVM_RUN: `error`) for Python to decode from kvm_run */
#define VMM_PORT_OUT 1    /* one element: address, size, and its value in `value` */
#define VMM_PORT_IN 2     /* one element: address, size; the answer goes to `reply` */
#define VMM_MMIO_WRITE 3  /* as VMM_PORT_OUT */
#define VMM_MMIO_READ 4   /* as VMM_PORT_IN */
#define VMM_INTERRUPTED 5 /* EINTR or EAGAIN, in `error` */
#define VMM_OUTPUT 6      /* console output waits; ask again for what else there is */
#define VMM_MSR_READ 7    /* the index as address; the answer goes to `reply`, a refusal to kvm_run */
#define VMM_MSR_WRITE 8   /* the index as address, its value in `value` */
#define VMM_HYPERCALL 9   /* the number as address, the arguments in kvm_run; the answer goes to `reply` */
#define VMM_CODES 10
/* These are no exits, and come without an address. Inside the core: all of this exit is done. As `held`: there is none. */
#define VMM_FINISHED -1
#define VMM_RAISED 10     /* a handler has raised: what, is in `told` */
#define VMM_ANSWERED 11   /* the handler of the read `key` answered what only Python can judge: both are in `told` */
#define VMM_ATTENTION 12  /* all is served; somebody wants Python to look */
#define VMM_HALTED 13     /* of vmm_core_round alone: KVM_EXIT_HLT */

#define VMM_NO_PORT 0x10000
#define VMM_SLOTS 64
#define VMM_MMIO_SLOTS 16
#define VMM_MSR_SLOTS 16
#define VMM_ACKED 32
#define VMM_RECENT 10
#define VMM_STAGING 16384 /* bytes of console output that wait for Python at most */

/* `written_at` is when it was written last, by CLOCK_MONOTONIC in ns, where it is `timed`. */
struct vmm_slot { __u64 reads, writes, value, address, timed, written_at; };

/* An interrupt that is sent again and again: a message, *FD the VM's (-1: closed), or at address 0 an eventfd's write. */
struct vmm_signal { const int *fd; __u64 address; __u32 data, timed; };

/* A device's register of what happened, 4 bytes, and the one behind it, whose writer takes these bits back. */
struct vmm_acked { __u64 address; __u32 bits; };

/* One per machine, shared by its vCPUs. */
struct vmm_finish {
    __u32 sink_port, port_count, mmio_count, msr_count;
    __u32 sink_length, sink_room;
    __u32 uart_port; /* of a UART that only sends: bytes to it are console output, and its LSR says so; VMM_NO_PORT */
    struct vmm_transmitter sends; /* the same UART under THRE's interrupt (_transmitter.c) */
    struct kvm_coalesced_mmio_ring *ring; /* of the VM, or NULL: nothing is coalesced */
    __u64 changes; /* of who serves what: Python counts them, and what _serve.c knows from before is void */
    __u8 ring_shared; /* others than the console's bytes come there too, and wait for Python */
    __u8 lock;
    struct vmm_slot ports[VMM_SLOTS];
    struct vmm_slot mmio[VMM_MMIO_SLOTS];
    __u32 acked_count;
    struct vmm_acked *acked[VMM_ACKED];
    struct vmm_slot *msrs; /* made with the first of them: a machine has none as a rule */
    __u8 sink[VMM_STAGING];
};

/* One exit, as much of it as a post-mortem shows. `kind` is a VMM_* code above, `reason` that of an MSR exit. A line of
 * the cache each, for every exit writes one; what does not fit (string I/O) is in `long_data`, at the same place. */
#define VMM_SEEN_DATA 32
struct vmm_seen { __u64 sequence, address; __u32 kind, size, count, reason; __u8 data[VMM_SEEN_DATA]; };

/* One per vCPU. */
struct vmm_core {
    int fd;
    struct kvm_run *run;
    struct vmm_finish *finish;
    int error;
    long long held; /* the key that VMM_OUTPUT came before, or VMM_FINISHED */
    __u64 value;
    /* Of Python, for _serve.c: dicts of key -> handler, as a tuple (who, function, fixed arguments...), and a list for
     * what VMM_RAISED and VMM_ANSWERED tell. They are borrowed: lean.py holds them for as long as the core may run. */
    void *writers, *refusing, *readers, *told;
    long long key; /* of VMM_ANSWERED */
    int attention; /* Python sets it where it wants to look before the guest runs on */
    __u64 reply[1];
    __u64 *answer; /* where `reply` goes before the next KVM_RUN; NULL: nowhere */
    __u64 sequence, kept; /* exits so far; those of them in `recent` */
    __u64 counts[VMM_CODES]; /* by code; not those that Python decodes */
    struct vmm_seen recent[VMM_RECENT];
    __u8 long_data[VMM_RECENT][4096];
};
