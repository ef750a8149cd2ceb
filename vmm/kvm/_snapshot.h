/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of snapshots (_snapshot.c) share; it is the cdef too.
 */
#define VMM_SAVED_REGS 0 /* the parts, in the order that a file has them; those of a vCPU come first */
#define VMM_SAVED_SREGS 1
#define VMM_SAVED_XSAVE 2
#define VMM_SAVED_XCRS 3
#define VMM_SAVED_DEBUGREGS 4
#define VMM_SAVED_EVENTS 5
#define VMM_SAVED_MSRS 6
#define VMM_SAVED_LAPIC 7
#define VMM_SAVED_MP_STATE 8
#define VMM_SAVED_NESTED 9
#define VMM_SAVED_CHIPS 10
#define VMM_SAVED_PIT 11
#define VMM_SAVED_CLOCK 12

/* Where KVM counts (KVM_GET_STATS_FD): a descriptor, or -1, and the places of two numbers of 64 bits. Of a VM the shadow
 * pages that were made, and those that are out of step; of a vCPU the flushes of its TLB, and of one address of it. */
struct vmm_saved_stats {
    int fd;
    __u64 first, second;
};

/* What a VM has: descriptor; how many vCPUs; bytes of an XSAVE area (0: only KVM_GET_FPU) and of a nested state (0: none);
 * MSRs that are asked for; whether there are the others; MSRs that are made 0 before they are put back. */
struct vmm_saved_shape {
    int vm;
    __u32 vcpus, msrs, xsave_bytes, nested_bytes;
    __u32 zeroed[2];
    __u8 xsave2, sregs2, xcrs, lapic, chips, pit;
    __u8 synced; /* registers, special registers and events can be in kvm_run (KVM_CAP_SYNC_REGS) */
    struct vmm_saved_stats stats;
};

/* How a machine is put back: with its registers set now, or by the next KVM_RUN, which also has left those of before in
 * kvm_run: then what is as it was is not set. */
#define VMM_PUT_NOW 0
#define VMM_PUT_BY_RUN 1

/* A memslot: its number and in how many spaces it is, its bytes as they are and as they were, a byte for each page that
 * says whether one of us wrote it, and one that says whether any is so marked. */
struct vmm_saved_slot {
    __u32 number, spaces;
    __u64 size, now, then;
    __u8 *touched, *marked;
};
