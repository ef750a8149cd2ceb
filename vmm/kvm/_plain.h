/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of plain machines (_plain.c) share; it is the cdef too.
 */
/* Bytes for guest memory stand behind one of these. */
struct vmm_piece { __u64 gpa, size; };

struct vmm_plain {
    int kvm, vm, vcpu; /* descriptors; -1: not open */
    int run_size, spaces; /* bytes of kvm_run; sets of memslots that the VM has */
    struct kvm_run *run;
    void *timer, *before; /* what the thread of the run had bound */
    int thread; /* the kernel's id of the thread that runs it, or 0 */
    int pid; /* of the process that has made it */
    __u8 open, begun, timed;
};
#define VMM_UNBEGUN 14 /* of vmm_plain_run, in place of what vmm_core_serve gives: it cannot run here */
