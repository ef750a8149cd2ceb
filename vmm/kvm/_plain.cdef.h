/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of plain machines (_plain.c). Numbers below 0 are an errno.
 */
int vmm_plain_make(struct vmm_plain *plain, struct vmm_core *core, struct vmm_finish *finish, __u32 console,
                   void *memory, __u64 size, void *cpuid);
int vmm_plain_load(struct vmm_plain *plain, void *memory, __u64 size, const void *image, __u64 length, __u64 base,
                   const void *code, __u64 code_size, const void *sregs, const void *regs);
long long vmm_plain_run(struct vmm_plain *plain, struct vmm_core *core, __u64 room, double first, double interval);
void vmm_plain_end(struct vmm_plain *plain);
void vmm_plain_close(struct vmm_plain *plain);
