/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of split virtqueues (_queue.c). Numbers below 0 are an errno.
 */
struct vmm_plane;

int vmm_plane_memory(struct vmm_plane *plane, const struct vmm_stretch *stretches, __u32 count);
int vmm_plane_broken(struct vmm_plane *plane, char *why);
const char *vmm_plane_failed(struct vmm_plane *plane);
void vmm_plane_counted(struct vmm_plane *plane, __u64 *kicks, __u64 *interrupts);
