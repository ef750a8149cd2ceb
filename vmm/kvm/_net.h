/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What Python and the C of virtio network cards (_net.c) share; it is the cdef too.
 */
#define VMM_NET_NAME 192
#define VMM_NET_SAID 256
#define VMM_NET_ADDRESSES 256 /* of each kind in a filter */
#define VMM_NET_MODES 6       /* VIRTIO_NET_CTRL_RX_*, from 0 */

/* What a link is. */
#define VMM_NET_TAP 0       /* each frame has its header of 12 bytes */
#define VMM_NET_BARE_TAP 1  /* none has */
#define VMM_NET_SEQPACKET 2 /* a message is a frame, an empty one the end */
#define VMM_NET_DATAGRAM 3  /* a message is a frame */
#define VMM_NET_STREAM 4    /* 32 bits of length before each frame, big endian */

/* What vmm_net_live comes back with, for Python to do. */
#define VMM_NET_COMMAND 1 /* the control queue was kicked */
#define VMM_NET_CHANGED 2 /* the link is gone */

/* A card. The descriptors stay Python's: the link, the eventfds of each queue's kicks, of ours, and that of interrupts
 * (-1: none). `most` are the bytes of the longest frame. */
struct vmm_net_setup {
    int link, kind, wake, irq, kicks[3];
    __u32 most;
    char name[VMM_NET_NAME];
};

/* Which frames the driver wants; more addresses than there is room for: all of that kind. */
struct vmm_net_filter {
    __u8 mac[6], modes[VMM_NET_MODES];
    __u32 unicast, multicast; /* how many addresses */
    __u8 every_unicast, every_multicast;
    __u8 unicasts[VMM_NET_ADDRESSES][6], multicasts[VMM_NET_ADDRESSES][6];
};

/* Words, and an errno behind them (0: none). */
struct vmm_net_said { char text[VMM_NET_SAID]; int error; };

struct vmm_net_counts {
    __u64 rx_frames, rx_bytes, tx_frames, tx_bytes, rx_dropped, tx_dropped, rx_filtered, rx_waits, tx_waits;
    __u64 turns; /* of the thread */
};
