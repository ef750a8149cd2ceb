/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A virtio network card whose frames go between its queues and a descriptor in C, by one thread that needs no Python.
 * Queues and memory are _queue.c's; commands, the configuration space and what a tap is told stay Python's. The readable
 * model is vmm/machine/virtio/net_frames.py and links/: this makes no decision that they do not make too, and the tests
 * of the model run with both.
 *
 * Nothing here ever waits for the other end of the link: a frame without a buffer waits in `packet`, and the rest with
 * the link; what the link does not take stays in the guest's queue.
 */
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define NET_HDR ((__u32)sizeof(struct virtio_net_hdr_mrg_rxbuf))
#define NET_MOST 65553        /* bytes of a frame: an IP packet of 65535, Ethernet's header, a VLAN tag */
#define NET_CHUNK (1 << 18)   /* bytes that are asked of a stream at once */
#define NET_LENGTH 4          /* bytes of the length before a frame of a stream */
#define NET_SEND (MSG_DONTWAIT | MSG_NOSIGNAL)
#define NET_KICKS 3
#define NET_WAKE NET_KICKS
#define NET_LINK (NET_WAKE + 1)
#define NET_EVENTS (NET_LINK + 1)

enum { RECEIVE, TRANSMIT, CONTROL };

struct vmm_net {
    struct vmm_plane plane;
    struct vmm_net_setup setup;
    struct queue queues[2];
    int epoll, polled; /* EPOLL* of the link, as epoll has it; -1: it is not there */
    struct vmm_net_filter passing;
    int mergeable, pulled, lost, told;
    int wants_input, has_more; /* of the link; or it has more, and had its turn */
    int blocked, to_send;      /* a packet waits for the link; or the queue has more, and had its turn */
    __u32 waiting; /* bytes of the packet that waits for a buffer, 0: none */
    struct vmm_net_said gone, dropped;
    struct vmm_net_counts counts;
    __u32 in_at, in_end, out_at, out_end; /* of a stream: what has come in `in`, and what is left to send of `out` */
    struct chain chains[VMM_ENTRIES];
    /* Each of a chain's segments has a byte at least, and chains are taken until there is room for a packet: that
     * many before the last one. */
    struct segment segments[NET_HDR + NET_MOST + MAX_SEGMENTS];
    __u8 packet[NET_HDR + NET_MOST + 1], sent[NET_HDR + NET_MOST];
    __u8 out[NET_LENGTH + NET_MOST], in[NET_CHUNK + NET_LENGTH + NET_MOST];
};

/* -- what is lost */

__attribute__((format(printf, 3, 4))) static void says(struct vmm_net_said *said, int error, const char *form, ...)
{
    va_list rest;

    va_start(rest, form);
    vsnprintf(said->text, sizeof said->text, form, rest);
    va_end(rest);
    said->error = error;
}

/* Nothing comes or goes over the link from here on; `gone` says why. */
static void lose(struct vmm_net *net)
{
    net->wants_input = net->has_more = 0;
    __atomic_store_n(&net->lost, 1, __ATOMIC_RELEASE);
}

static int link_up(const struct vmm_net *net)
{
    return !net->lost && !net->pulled;
}

static void lost_while(struct vmm_net *net, const char *doing)
{
    says(&net->gone, errno, "%s: %s", net->setup.name, doing);
    lose(net);
}

#define COUNT(net, what, n) ((net)->counts.what += (__u64)(n)) /* under the lock */

/* -- the link: nothing waits */

static int not_now(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* The next frame of a stream, into `packet`: its size, -1: there is none, -2: look again. */
static int cut(struct vmm_net *net)
{
    __u32 have = net->in_end - net->in_at, size;
    __u8 *at = net->in + net->in_at;

    if (have < NET_LENGTH)
        return -1;
    size = (__u32)at[0] << 24 | (__u32)at[1] << 16 | (__u32)at[2] << 8 | at[3];
    if (size > net->setup.most) { /* nobody can say where the next one begins */
        says(&net->gone, 0, "%s: a frame of %u bytes is announced; %u is the most", net->setup.name, size, net->setup.most);
        lose(net);
        return -1;
    }
    if (have < NET_LENGTH + size)
        return -1;
    memcpy(net->packet + NET_HDR, at + NET_LENGTH, size);
    net->in_at += NET_LENGTH + size;
    return (int)size;
}

static int receive_stream(struct vmm_net *net)
{
    ssize_t got;
    int size = cut(net);

    if (size >= 0 || net->lost)
        return size;
    memmove(net->in, net->in + net->in_at, net->in_end - net->in_at);
    net->in_end -= net->in_at;
    net->in_at = 0;
    do
        got = recv(net->setup.link, net->in + net->in_end, NET_CHUNK, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        net->in_end += (__u32)got;
        size = cut(net);
        return size < 0 && !net->lost ? -2 : size;
    }
    if (!got) {
        if (net->in_end)
            says(&net->gone, 0, "%s: the other end has closed it, in the middle of a frame (%u bytes of it)",
                 net->setup.name, net->in_end);
        else
            says(&net->gone, 0, "%s: the other end has closed it", net->setup.name);
        lose(net);
    } else if (!not_now()) {
        lost_while(net, "receiving");
    }
    return -1;
}

/* The next packet, into `packet`; its size, 0: there is none. */
static __u32 next_packet(struct vmm_net *net)
{
    __u8 *frame = net->packet + NET_HDR;
    ssize_t got;

    memset(net->packet, 0, NET_HDR);
    if (net->setup.kind == VMM_NET_STREAM) {
        while ((got = receive_stream(net)) == -2)
            ;
        return got < 0 ? 0 : NET_HDR + (__u32)got;
    }
    do {
        if (net->setup.kind == VMM_NET_TAP)
            got = read(net->setup.link, net->packet, NET_HDR + net->setup.most);
        else if (net->setup.kind == VMM_NET_BARE_TAP)
            got = read(net->setup.link, frame, net->setup.most);
        else
            got = recv(net->setup.link, frame, net->setup.most + 1, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        if (!not_now())
            lost_while(net, "receiving");
        return 0;
    }
    if (!got && net->setup.kind == VMM_NET_SEQPACKET) {
        says(&net->gone, 0, "%s: the other end has closed it", net->setup.name);
        lose(net);
        return 0;
    }
    if (net->setup.kind != VMM_NET_TAP)
        return NET_HDR + (__u32)got;
    return got < (ssize_t)NET_HDR ? NET_HDR : (__u32)got;
}

/* Has the link given on all that it took? */
static int flushed(struct vmm_net *net)
{
    while (net->out_at < net->out_end) {
        ssize_t done = send(net->setup.link, net->out + net->out_at, net->out_end - net->out_at, NET_SEND);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            if (not_now())
                return 0;
            lost_while(net, "sending");
            net->out_at = net->out_end;
            return 1;
        }
        net->out_at += (__u32)done;
        if (net->out_at < net->out_end)
            return 0;
    }
    return 1;
}

static int wants_room(const struct vmm_net *net)
{
    return !net->lost && (net->blocked || net->out_at < net->out_end);
}

static void drop_sent(struct vmm_net *net)
{
    COUNT(net, tx_dropped, 1);
}

/* An error of this one packet, not of the link. */
static int of_a_packet(const struct vmm_net *net)
{
    if (net->setup.kind > VMM_NET_BARE_TAP)
        return net->setup.kind != VMM_NET_STREAM && errno == EMSGSIZE;
    return errno == EIO || errno == EINVAL || errno == EMSGSIZE || errno == ENOMEM || errno == ENOBUFS;
}

/* What a stream did not take of a frame waits in `out`. The driver may write meanwhile: these are its bytes of now. */
static void keep_rest(struct vmm_net *net, const __u8 *length, struct cursor frame, __u32 size, __u32 done)
{
    memcpy(net->out, length, NET_LENGTH);
    move(&net->plane, frame, net->out + NET_LENGTH, size, 0);
    net->out_at = done;
    net->out_end = NET_LENGTH + size;
}

/* Give a packet of `size` bytes of frame to the link. 0: it takes nothing now. One that it can never take is dropped. */
static int send_packet(struct vmm_net *net, const struct chain *chain, __u32 size)
{
    int kind = net->setup.kind, stream = kind == VMM_NET_STREAM, count;
    __u8 length[NET_LENGTH] = {(__u8)(size >> 24), (__u8)(size >> 16), (__u8)(size >> 8), (__u8)size}, header[NET_HDR];
    struct cursor frame = readable(chain), from = frame;
    struct iovec list[1 + PIECES] = {{length, NET_LENGTH}};
    struct msghdr message = {.msg_iov = list};
    __u32 whole = size;
    ssize_t done;

    move(&net->plane, frame, header, NET_HDR, 0);
    skip(&frame, NET_HDR);
    if (kind == VMM_NET_TAP)
        whole += NET_HDR;
    else
        from = frame;
    if (kind != VMM_NET_TAP && (header[0] || header[1])) {
        says(&net->dropped, 0, "a header that asks for an offload, which was not offered");
        drop_sent(net);
        return 1;
    }
    if (stream && !flushed(net))
        return 0;
    if (net->lost) {
        net->dropped = net->gone;
        drop_sent(net);
        return 1;
    }
    count = pieces(&net->plane, from, whole, list + stream);
    done = 0;
    for (int i = 0; i < count; i++)
        done += (ssize_t)list[stream + i].iov_len;
    if (done < (ssize_t)whole) { /* in more pieces than go into one call */
        move(&net->plane, from, net->sent, whole, 0);
        list[stream] = (struct iovec){net->sent, whole};
        count = 1;
    }
    message.msg_iovlen = (size_t)(stream + count);
    do {
        if (kind <= VMM_NET_BARE_TAP)
            done = writev(net->setup.link, list, count);
        else
            done = sendmsg(net->setup.link, &message, NET_SEND);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        if (not_now())
            return 0;
        if (!of_a_packet(net)) {
            lost_while(net, "sending");
            net->dropped = net->gone;
        } else if (kind <= VMM_NET_BARE_TAP) {
            says(&net->dropped, errno, "%s: sending", net->setup.name);
        } else {
            says(&net->dropped, 0, "%s does not take %u bytes in a message", net->setup.name, size);
        }
        drop_sent(net);
        return 1;
    }
    if (stream && done < (ssize_t)(NET_LENGTH + size))
        keep_rest(net, length, frame, size, (__u32)done);
    COUNT(net, tx_frames, 1);
    COUNT(net, tx_bytes, size);
    return 1;
}

/* -- from the link to the guest */

static int among(const __u8 *mac, __u8 known[][ETH_ALEN], __u32 count)
{
    for (__u32 i = 0; i < count; i++)
        if (!memcmp(mac, known[i], ETH_ALEN))
            return 1;
    return 0;
}

/* Does the driver want a frame for this address? (5.1.6.5.1, .2) */
static int passes(struct vmm_net_filter *passing, const __u8 *to)
{
    static const __u8 broadcast[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const __u8 *modes = passing->modes;

    if (modes[VIRTIO_NET_CTRL_RX_PROMISC])
        return 1;
    if (!memcmp(to, broadcast, ETH_ALEN))
        return !modes[VIRTIO_NET_CTRL_RX_NOBCAST];
    if (to[0] & 1) {
        if (modes[VIRTIO_NET_CTRL_RX_NOMULTI])
            return 0;
        return modes[VIRTIO_NET_CTRL_RX_ALLMULTI] || passing->every_multicast ||
               among(to, passing->multicasts, passing->multicast);
    }
    if (modes[VIRTIO_NET_CTRL_RX_NOUNI])
        return 0;
    return modes[VIRTIO_NET_CTRL_RX_ALLUNI] || !memcmp(to, passing->mac, ETH_ALEN) || passing->every_unicast ||
           among(to, passing->unicasts, passing->unicast);
}

static int is_for_guest(struct vmm_net *net, __u32 size)
{
    if (net->pulled) {
        says(&net->dropped, 0, "the cable is pulled");
    } else if (size < ETH_HLEN) {
        says(&net->dropped, 0, "a frame of %u bytes from the link: no Ethernet header", size);
    } else if (size > net->setup.most) {
        says(&net->dropped, 0, "a frame of more than %u bytes from the link", net->setup.most);
    } else if (!passes(&net->passing, net->packet + NET_HDR)) {
        COUNT(net, rx_filtered, 1);
        return 0;
    } else {
        return 1;
    }
    COUNT(net, rx_dropped, 1);
    return 0;
}

/* Put `packet` into the guest's buffers. 0: there are too few by now, and a kick will say of more; -1: a rule is broken.
 * One that can never fit is dropped. */
static int deliver(struct vmm_net *net, __u32 size)
{
    struct queue *q = &net->queues[RECEIVE];
    struct segment *free_segments = net->segments;
    struct virtio_net_hdr_mrg_rxbuf *header = (void *)net->packet;
    __u64 room = 0;
    __u32 count = 0, done = 0;
    int left = available(q, 0);

    while (room < size && (net->mergeable || !count) && count < q->ring.size) {
        struct chain *chain = &net->chains[count];

        if (left < 0)
            return -1;
        if (!left && (left = available(q, 1)) <= 0) {
            if (left < 0)
                return -1;
            break;
        }
        left--;
        chain->segments = free_segments;
        if (pop(q, chain))
            return -1;
        if (chain->readable || chain->write_size < NET_HDR)
            return breaks(q,
                          "a buffer to receive into has %llu bytes to read and room for %llu; the header alone takes %u",
                          chain->read_size, chain->write_size, NET_HDR);
        free_segments += chain->count;
        room += chain->write_size;
        count++;
    }
    if (left < 0)
        return -1;
    if (room < size) {
        q->ring.last_avail -= (__u16)count;
        if (!count || (net->mergeable && count < q->ring.size))
            return 0;
        says(&net->dropped, 0, "a frame of %u bytes, and the guest's buffers have room for %llu", size - NET_HDR, room);
        COUNT(net, rx_dropped, 1);
        return 1;
    }
    header->num_buffers = (__u16)(net->mergeable ? count : 1);
    for (__u32 i = 0; i < count; i++) {
        struct chain *chain = &net->chains[i];
        __u32 piece = chain->write_size < size - done ? (__u32)chain->write_size : size - done;

        move(&net->plane, writable(chain), net->packet + done, piece, 1);
        if (push(q, chain->head, piece))
            return -1;
        done += piece;
    }
    if (announce(q))
        return -1;
    COUNT(net, rx_frames, 1);
    COUNT(net, rx_bytes, size - NET_HDR);
    return 1;
}

/* Deliver what is there. At most as many packets as the ring is long: the rest is for the next call. */
static void receive(struct vmm_net *net, int give_way)
{
    struct queue *q = &net->queues[RECEIVE];
    __u32 turn = 0;

    if (!runs(q) || available(q, 0) < 0) /* also where nothing is there to deliver: a ring that is broken is to be told */
        return;
    if (net->wants_input || net->has_more)
        return; /* the link has nothing now, or the thread is about to look */
    for (; turn < q->ring.size; turn++) {
        __u32 waited = net->waiting, size = waited ? waited : net->lost ? 0 : next_packet(net);
        int done = 1;

        if (!size) {
            net->wants_input = !net->lost;
            break;
        }
        net->waiting = 0;
        if (is_for_guest(net, size - NET_HDR))
            done = deliver(net, size);
        if (done < 0)
            return;
        if (!done) {
            net->waiting = size; /* until the driver kicks */
            COUNT(net, rx_waits, !waited);
            break;
        }
        if (q->ring.event_idx && notify(q))
            return;
        if (give_way && wanted(&net->plane)) {
            turn = q->ring.size;
            break;
        }
    }
    net->has_more = turn == q->ring.size;
    notify(q);
}

/* -- from the guest to the link */

static int is_to_send(struct vmm_net *net, __u64 size)
{
    if (net->lost)
        net->dropped = net->gone;
    else if (net->pulled)
        says(&net->dropped, 0, "the cable is pulled");
    else if (size < ETH_HLEN || size > net->setup.most)
        says(&net->dropped, 0, "a frame of %llu bytes from the guest; %d to %u", size, ETH_HLEN, net->setup.most);
    else
        return 1;
    drop_sent(net);
    return 0;
}

/* One packet of the queue. 0: it is done; 1: the link takes nothing now; -1: a rule is broken. */
static int one_packet(struct vmm_net *net)
{
    struct queue *q = &net->queues[TRANSMIT];
    struct chain *chain = &net->chains[0];
    __u64 size;

    chain->segments = net->segments;
    if (pop(q, chain))
        return -1;
    if (chain->count > chain->readable || chain->read_size < NET_HDR)
        return breaks(q, "a packet of %llu bytes with room to write %llu; the header takes %u", chain->read_size,
                      chain->write_size, NET_HDR);
    size = chain->read_size - NET_HDR;
    if (is_to_send(net, size) && !send_packet(net, chain, (__u32)size)) {
        q->ring.last_avail--;
        COUNT(net, tx_waits, 1);
        net->blocked = 1;
        return 1;
    }
    return push(q, chain->head, 0) || announce(q) || (q->ring.event_idx && notify(q)) ? -1 : 0;
}

/* Send what waits and, unless `once`, what comes meanwhile: until the link takes no more, and at most as many packets as
 * the ring is long. */
static void transmit(struct vmm_net *net, int once, int give_way)
{
    struct queue *q = &net->queues[TRANSMIT];
    __u32 turn = 0;
    int count, done = 0;

    net->to_send = 0;
    if (!runs(q))
        return;
    if (net->blocked) {
        available(q, 1);
        return; /* the thread is about to look */
    }
    for (;;) {
        count = available(q, once);
        if (!count && !once)
            count = available(q, 1); /* there is none left: the driver is to say what it adds */
        if (count <= 0)
            break;
        for (; count > 0 && !done; count--) {
            if (turn == q->ring.size || (turn && give_way && wanted(&net->plane))) {
                net->to_send = done = 1;
                break;
            }
            done = one_packet(net);
            turn++;
        }
        if (once || done)
            break;
    }
    if (count >= 0 && done >= 0 && !notify(q))
        flushed(net);
}

/* -- the thread */

static int watch(struct vmm_net *net, int fd, int number, __u32 events)
{
    struct epoll_event event = {.events = events, .data = {.u32 = (__u32)number}};

    return epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Poll the link for what is wanted of it, and for nothing else: what has hung up would be ready without end. */
static void watch_link(struct vmm_net *net)
{
    int wants = net->lost ? 0 : (net->wants_input ? EPOLLIN : 0) | (wants_room(net) ? EPOLLOUT : 0);
    struct epoll_event event = {.events = (__u32)wants, .data = {.u32 = NET_LINK}};

    /* While input alone is wanted or not, it stays as it is: each event of an edge is one more look, and no more. */
    if (wants == net->polled || (!wants && net->polled == EPOLLIN && !net->lost))
        return;
    if (wants == EPOLLIN)
        event.events |= EPOLLET;
    if (!wants && net->polled >= 0)
        epoll_ctl(net->epoll, EPOLL_CTL_DEL, net->setup.link, &event);
    else if (wants && epoll_ctl(net->epoll, net->polled >= 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, net->setup.link, &event) < 0)
        fails(&net->plane, "waiting for a link: epoll_ctl");
    net->polled = wants ? wants : -1;
}

static __u64 taken(int fd)
{
    __u64 value = 0;

    return read(fd, &value, sizeof value) == sizeof value ? value : 0;
}

/* What came. Under the lock. */
static int look(struct vmm_net *net, __u32 came, __u32 link)
{
    int report = 0;

    /* A wish is over with the look: only a queue that can go on wishes again. So a device that its driver has stopped, or
     * broken, is looked at once and then left alone. */
    if (net->has_more || (net->wants_input && link & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        net->wants_input = net->has_more = 0;
        receive(net, 1);
    } else if (came & 1 << RECEIVE) {
        receive(net, 1);
    }
    if (net->blocked && (link & (EPOLLOUT | EPOLLHUP | EPOLLERR) || !link_up(net))) {
        net->blocked = 0;
        came |= 1 << TRANSMIT;
    } else if (link & EPOLLOUT) {
        flushed(net);
    }
    if (came & 1 << TRANSMIT || net->to_send)
        transmit(net, !net->queues[TRANSMIT].ring.event_idx, 1);
    if (came & 1 << CONTROL)
        report |= VMM_NET_COMMAND;
    if (net->lost && !net->told) {
        net->told = 1;
        report |= VMM_NET_CHANGED;
    }
    return report;
}

/* The thread: serve until there is something for Python to do, and then VMM_NET_*; 0 after vmm_net_stop; or an errno, and
 * vmm_plane_failed says of what. */
int vmm_net_live(struct vmm_net *net)
{
    struct vmm_plane *plane = &net->plane;

    for (;;) {
        struct epoll_event events[NET_EVENTS];
        int count, more, report, error;
        __u32 came = 0, link = 0;

        enter(plane);
        watch_link(net);
        more = net->has_more || net->to_send || (net->blocked && !link_up(net));
        leave(plane);
        count = epoll_wait(net->epoll, events, NET_EVENTS, more ? 0 : -1);
        if (__atomic_load_n(&plane->stopped, __ATOMIC_ACQUIRE))
            return 0;
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            fails(plane, "waiting for a kick: epoll_wait");
            return -plane->error;
        }
        for (int i = 0; i < count; i++) {
            __u32 number = events[i].data.u32;

            if (number == NET_LINK)
                link = events[i].events;
            else
                came |= 1U << number;
        }
        if (came & 1 << NET_WAKE && taken(net->setup.wake) >> 32)
            came |= 1 << RECEIVE | 1 << TRANSMIT; /* a queue was kicked by an exit */
        enter(plane);
        COUNT(net, turns, 1);
        report = look(net, came, link);
        error = plane->error;
        leave(plane);
        if (error)
            return -error;
        if (report)
            return report;
    }
}

/* -- what Python calls */

void vmm_net_free(struct vmm_net *net)
{
    if (net->epoll >= 0)
        close(net->epoll);
    free(net->plane.stretches);
    free(net);
}

/* NULL: errno says why. */
struct vmm_net *vmm_net_new(const struct vmm_net_setup *setup, struct vmm_acked *acked)
{
    struct vmm_net *net = calloc(1, sizeof *net); /* large, and untouched costs nothing */
    int failed;

    if (!net)
        return NULL;
    net->setup = *setup;
    if (net->setup.most > NET_MOST)
        net->setup.most = NET_MOST;
    net->polled = -1;
    plane_init(&net->plane, acked, setup->irq);
    for (__u32 i = 0; i < 2; i++) {
        net->queues[i].plane = &net->plane;
        net->queues[i].number = i;
    }
    net->epoll = epoll_create1(EPOLL_CLOEXEC);
    failed = net->epoll < 0 || watch(net, setup->wake, NET_WAKE, EPOLLIN) < 0;
    /* Every signal of an eventfd is an edge: nobody has to read it, and its number is the count of them (vmm_net_counted). */
    for (int i = 0; i < NET_KICKS && !failed; i++)
        failed = watch(net, setup->kicks[i], i, EPOLLIN | EPOLLET) < 0;
    if (failed) {
        failed = errno;
        vmm_net_free(net);
        errno = failed;
        return NULL;
    }
    return net;
}

struct vmm_plane *vmm_net_plane(struct vmm_net *net)
{
    return &net->plane;
}

/* Let the thread look at its wishes again and, if `queues`, at both queues. */
static void wake(struct vmm_net *net, int queues)
{
    __u64 one = queues ? 1ULL << 32 : 1;

    if (write(net->setup.wake, &one, sizeof one) < 0 && errno != EAGAIN)
        fails(&net->plane, "waking a thread: write to an eventfd");
}

int vmm_net_begin(struct vmm_net *net, __u32 number, const struct vmm_queue *ring, int mergeable)
{
    if (!ring->size || ring->size > VMM_ENTRIES || number > TRANSMIT)
        return -EINVAL;
    interrupt_thread(&net->plane);
    queue_begin(&net->queues[number], ring);
    net->mergeable = mergeable;
    leave(&net->plane);
    return 0;
}

/* No frame of this queue is under way when this returns, and none is taken any more. */
void vmm_net_end(struct vmm_net *net, __u32 number, struct vmm_queue *ring)
{
    interrupt_thread(&net->plane);
    queue_end(&net->queues[number], ring);
    leave(&net->plane);
}

/* As after a kick, on this thread; where the queue stands after it. */
void vmm_net_settle(struct vmm_net *net, __u32 number, struct vmm_queue *ring)
{
    interrupt_thread(&net->plane);
    if (number == TRANSMIT)
        transmit(net, 1, 0);
    else
        receive(net, 0);
    *ring = net->queues[number].ring;
    leave(&net->plane);
    wake(net, 0);
}

/* The driver is up. Buffers that it gave before need no kick. */
void vmm_net_started(struct vmm_net *net)
{
    interrupt_thread(&net->plane);
    net->has_more = net->waiting != 0; /* it may have come before the buffers did */
    net->wants_input = !net->waiting && !net->lost;
    net->polled = net->polled == EPOLLIN ? EPOLLOUT : net->polled; /* an edge that has been is to come again */
    leave(&net->plane);
    wake(net, 0);
}

/* A packet that waited is lost with the buffers that it waited for. */
void vmm_net_reset(struct vmm_net *net)
{
    interrupt_thread(&net->plane);
    net->wants_input = net->has_more = net->blocked = net->to_send = 0;
    if (net->waiting) {
        net->waiting = 0;
        says(&net->dropped, 0, "the driver was reset");
        COUNT(net, rx_dropped, 1);
    }
    leave(&net->plane);
}

/* A state was put back, in which this packet waited. What waited then has no kick any more. */
void vmm_net_restored(struct vmm_net *net, const char *packet, __u32 size)
{
    if (size > sizeof net->packet)
        size = sizeof net->packet;
    interrupt_thread(&net->plane);
    net->waiting = size;
    memcpy(net->packet, packet, size);
    net->has_more = size != 0;
    net->wants_input = !size && !net->lost;
    net->blocked = !net->lost; /* packets in the guest's queue, for the link */
    leave(&net->plane);
    wake(net, 0);
}

/* The packet that waits for a buffer; its size, 0: none does. There is room for the longest. */
__u32 vmm_net_waiting(struct vmm_net *net, char *packet)
{
    __u32 size;

    interrupt_thread(&net->plane);
    size = net->waiting;
    memcpy(packet, net->packet, size);
    leave(&net->plane);
    return size;
}

void vmm_net_set_filter(struct vmm_net *net, const struct vmm_net_filter *passing)
{
    interrupt_thread(&net->plane);
    net->passing = *passing;
    if (net->passing.unicast > VMM_NET_ADDRESSES)
        net->passing.unicast = VMM_NET_ADDRESSES;
    if (net->passing.multicast > VMM_NET_ADDRESSES)
        net->passing.multicast = VMM_NET_ADDRESSES;
    leave(&net->plane);
}

void vmm_net_set_pulled(struct vmm_net *net, int pulled)
{
    interrupt_thread(&net->plane);
    net->pulled = pulled;
    leave(&net->plane);
    wake(net, 0);
}

/* 1, and why, if there is no link any more. */
int vmm_net_gone(struct vmm_net *net, struct vmm_net_said *why)
{
    if (!__atomic_load_n(&net->lost, __ATOMIC_ACQUIRE))
        return 0;
    interrupt_thread(&net->plane);
    *why = net->gone;
    leave(&net->plane);
    return 1;
}

void vmm_net_dropped(struct vmm_net *net, struct vmm_net_said *why)
{
    interrupt_thread(&net->plane);
    *why = net->dropped;
    leave(&net->plane);
}

/* Python has found that the link is no more. */
void vmm_net_lose(struct vmm_net *net, const char *why)
{
    interrupt_thread(&net->plane);
    if (!net->lost) {
        says(&net->gone, 0, "%s", why);
        net->told = 1;
        lose(net);
    }
    leave(&net->plane);
    wake(net, 0);
}

/* What is wanted of the link: 1 input, 2 room, 4 to be looked at again. */
int vmm_net_wants(struct vmm_net *net)
{
    int wants;

    interrupt_thread(&net->plane);
    wants = (net->wants_input ? 1 : 0) | (wants_room(net) ? 2 : 0) | (net->has_more ? 4 : 0);
    leave(&net->plane);
    return wants;
}

void vmm_net_counted(struct vmm_net *net, struct vmm_net_counts *counts)
{
    __u64 kicks = 0;

    interrupt_thread(&net->plane);
    for (int i = 0; i < CONTROL; i++)
        kicks += taken(net->setup.kicks[i]);
    net->plane.kicks += kicks;
    *counts = net->counts;
    leave(&net->plane);
    if (kicks)
        wake(net, 1); /* epoll forgets an edge whose eventfd is 0 again before it was told */
}

int vmm_net_stop(struct vmm_net *net)
{
    __u64 one = 1;

    __atomic_store_n(&net->plane.stopped, 1, __ATOMIC_RELEASE);
    return write(net->setup.wake, &one, sizeof one) < 0 ? -errno : 0;
}
