/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python calls of the C of virtio network cards (_net.c). Numbers below 0 are an errno.
 */
struct vmm_net;

struct vmm_net *vmm_net_new(const struct vmm_net_setup *setup, struct vmm_acked *acked);
void vmm_net_free(struct vmm_net *net);
struct vmm_plane *vmm_net_plane(struct vmm_net *net);
int vmm_net_begin(struct vmm_net *net, __u32 number, const struct vmm_queue *ring, int mergeable);
void vmm_net_end(struct vmm_net *net, __u32 number, struct vmm_queue *ring);
void vmm_net_settle(struct vmm_net *net, __u32 number, struct vmm_queue *ring);
void vmm_net_started(struct vmm_net *net);
void vmm_net_reset(struct vmm_net *net);
void vmm_net_restored(struct vmm_net *net, const char *packet, __u32 size);
__u32 vmm_net_waiting(struct vmm_net *net, char *packet);
void vmm_net_set_filter(struct vmm_net *net, const struct vmm_net_filter *passing);
void vmm_net_set_pulled(struct vmm_net *net, int pulled);
int vmm_net_gone(struct vmm_net *net, struct vmm_net_said *why);
void vmm_net_dropped(struct vmm_net *net, struct vmm_net_said *why);
void vmm_net_lose(struct vmm_net *net, const char *why);
int vmm_net_wants(struct vmm_net *net);
void vmm_net_counted(struct vmm_net *net, struct vmm_net_counts *counts);
int vmm_net_live(struct vmm_net *net);
int vmm_net_stop(struct vmm_net *net);
