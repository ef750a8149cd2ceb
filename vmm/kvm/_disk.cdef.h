/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of virtio disks (_disk.c). Numbers below 0 are an errno.
 */
struct vmm_disk;

struct vmm_disk *vmm_disk_new(const struct vmm_disk_setup *setup, struct vmm_acked *acked);
void vmm_disk_free(struct vmm_disk *disk);
int vmm_disk_memory(struct vmm_disk *disk, const struct vmm_disk_slot *slots, __u32 count);
int vmm_disk_begin(struct vmm_disk *disk, const struct vmm_disk_queue *queue, struct vmm_disk_mode mode);
void vmm_disk_set_mode(struct vmm_disk *disk, struct vmm_disk_mode mode);
void vmm_disk_end(struct vmm_disk *disk, struct vmm_disk_queue *queue);
void vmm_disk_settle(struct vmm_disk *disk, struct vmm_disk_queue *queue);
int vmm_disk_live(struct vmm_disk *disk);
int vmm_disk_stop(struct vmm_disk *disk);
int vmm_disk_broken(struct vmm_disk *disk, char *why);
const char *vmm_disk_failed(struct vmm_disk *disk);
void vmm_disk_counted(struct vmm_disk *disk, struct vmm_disk_counts *counts);
int vmm_fallocate(int file, int mode, long long offset, long long size);
