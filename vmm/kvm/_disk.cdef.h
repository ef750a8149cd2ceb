/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of virtio disks (_disk.c). Numbers below 0 are an errno.
 */
struct vmm_disk;

struct vmm_disk *vmm_disk_new(const struct vmm_disk_setup *setup, struct vmm_acked *acked);
void vmm_disk_free(struct vmm_disk *disk);
struct vmm_plane *vmm_disk_plane(struct vmm_disk *disk);
int vmm_disk_begin(struct vmm_disk *disk, const struct vmm_queue *ring, struct vmm_disk_mode mode);
void vmm_disk_set_mode(struct vmm_disk *disk, struct vmm_disk_mode mode);
void vmm_disk_end(struct vmm_disk *disk, struct vmm_queue *ring);
void vmm_disk_settle(struct vmm_disk *disk, struct vmm_queue *ring);
int vmm_disk_live(struct vmm_disk *disk);
int vmm_disk_stop(struct vmm_disk *disk);
__u64 vmm_disk_flushes(struct vmm_disk *disk);
int vmm_fallocate(int file, int mode, long long offset, long long size);
