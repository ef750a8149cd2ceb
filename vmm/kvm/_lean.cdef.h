/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C core of the exit loop (_lean.c, _serve.c), beside what _lean.h shares with it.
 */
#define VMM_RING ... /* places in the kernel's ring of coalesced writes */

/* Both structures come uncleared: their large arrays hold nothing beyond what a count says, and stay untouched. */
void vmm_finish_init(struct vmm_finish *finish);
void vmm_core_init(struct vmm_core *core, int fd, struct kvm_run *run, struct vmm_finish *finish);
long long vmm_core_serve(struct vmm_core *core);
long long vmm_core_round(struct vmm_core *core);
long long vmm_collected(struct vmm_finish *finish, void *writers, void *told);
int vmm_supply(int fd, __u64 address, const void *data, __u64 size, __u64 mode);
long long vmm_serve_faults(const int *fd, int end, void *who, void *kind, void *told);
void vmm_signaller(void *self, void *told);
void vmm_core_reset(struct vmm_core *core);
void vmm_transmitter_lend(struct vmm_finish *finish, const struct vmm_transmitter *as);
int vmm_transmitter_take(struct vmm_finish *finish);
int vmm_drain(struct vmm_finish *finish, __u8 *to);
void vmm_acked_raise(struct vmm_acked *acked, __u32 bits);
void vmm_acked_take(struct vmm_acked *acked, __u32 bits);
