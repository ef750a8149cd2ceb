/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of plain machines (_plain.c). Numbers below 0 are an errno.
 */
int vmm_plain_make(struct vmm_plain *plain, void *memory, __u64 size);
int vmm_plain_start(struct vmm_plain *plain, struct kvm_sregs *sregs, struct kvm_regs *regs);
int vmm_plain_begin(struct vmm_plain *plain, long long first_ns, long long interval_ns);
void vmm_plain_end(struct vmm_plain *plain);
void vmm_plain_close(struct vmm_plain *plain);
