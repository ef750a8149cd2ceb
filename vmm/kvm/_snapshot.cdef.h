/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of snapshots (_snapshot.c). Numbers below 0 are an errno.
 */
struct vmm_saved;

struct vmm_saved *vmm_saved_new(const struct vmm_saved_shape *shape, const int *vcpus, struct kvm_run **runs,
                                const struct vmm_saved_stats *stats, const struct vmm_saved_slot *slots, __u32 slot_count);
void vmm_saved_free(struct vmm_saved *saved);
const char *vmm_saved_failed(struct vmm_saved *saved);
void *vmm_saved_part(struct vmm_saved *saved, int part, __u32 index, __u64 *size);
int vmm_saved_take(struct vmm_saved *saved, const __u32 *msrs);
int vmm_saved_begin(struct vmm_saved *new, struct vmm_saved *old);
long long vmm_saved_put(struct vmm_saved *saved, int how);
void vmm_saved_sync(struct vmm_saved *saved, int on);
__u64 vmm_copy_touched(void *to, const void *from, __u64 size, int pagemap);
