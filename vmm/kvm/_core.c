/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The C core of the exit loop. It finishes what needs no Python (console bytes, counters, words behind ports and MMIO
 * addresses) and hands on everything else, with the common exits already taken apart. It makes no decision that
 * vmm/machine/loop.py does not make too: Machine(fast=False) takes that way for every exit, and a test compares.
 */
#define VMM_FINISHED (-1)
#define VMM_DECODE 0
#define VMM_PORT_OUT 1
#define VMM_PORT_IN 2
#define VMM_MMIO_WRITE 3
#define VMM_MMIO_READ 4
#define VMM_INTERRUPTED 5

#define VMM_ACTION_PYTHON 0
#define VMM_ACTION_SINK 1
#define VMM_ACTION_SLOT 2
#define VMM_SLOTS 64
#define VMM_MMIO_SLOTS 16
#define VMM_RECENT 10

struct vmm_slot {
    __u64 reads, writes, value, address;
};

struct vmm_finish {
    __u8 action[65536];
    struct vmm_slot slots[VMM_SLOTS];
    struct vmm_slot mmio[VMM_MMIO_SLOTS];
    __u32 mmio_count;
    __u8 lock;
    __u8 *sink;
    __u32 sink_length, sink_room;
};

struct vmm_seen {
    __u64 sequence, address;
    __u32 kind;
    __u32 size, count;
    __u8 data[4096];
};

struct vmm_core {
    int fd;
    struct kvm_run *run;
    struct vmm_finish *finish;
    int error;
    __u32 size;
    __u64 address, value;
    __u64 *answer;
    __u64 sequence, kept; /* exits so far; those of them in `recent` */
    __u64 interrupted, port_in, port_out, mmio_read, mmio_write;
    struct vmm_seen recent[VMM_RECENT];
};

static struct vmm_seen *remember(struct vmm_core *core, __u32 kind, __u64 address, __u32 size, __u32 count)
{
    struct vmm_seen *seen = &core->recent[core->kept++ % VMM_RECENT];

    seen->sequence = core->sequence;
    seen->kind = kind;
    seen->address = address;
    seen->size = size;
    seen->count = count;
    return seen;
}

/* Bytes for the console; 0 if there is no room, and then none are taken. Several vCPUs may write at once. */
static int to_sink(struct vmm_finish *finish, const __u8 *data, __u32 length)
{
    int fits;

    while (__atomic_test_and_set(&finish->lock, __ATOMIC_ACQUIRE))
        ;
    fits = length <= finish->sink_room - finish->sink_length;
    if (fits) {
        memcpy(finish->sink + finish->sink_length, data, length);
        finish->sink_length += length;
    }
    __atomic_clear(&finish->lock, __ATOMIC_RELEASE);
    return fits;
}

/* Move what has been collected to `to` (of at least sink_room bytes); how many bytes. */
int vmm_drain(struct vmm_finish *finish, __u8 *to)
{
    __u32 length;

    while (__atomic_test_and_set(&finish->lock, __ATOMIC_ACQUIRE))
        ;
    length = finish->sink_length;
    memcpy(to, finish->sink, length);
    finish->sink_length = 0;
    finish->sink_room -= length;
    __atomic_clear(&finish->lock, __ATOMIC_RELEASE);
    return (int)length;
}

static __u64 load(const void *from, __u32 size)
{
    __u64 value = 0;

    memcpy(&value, from, size);
    return value;
}

/* VMM_FINISHED, or the code for Python. */
static int port_exit(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    struct vmm_finish *finish = core->finish;
    __u8 *data = (__u8 *)run + run->io.data_offset;
    __u32 size = run->io.size, count = run->io.count, port = run->io.port;
    __u8 action = finish->action[port];
    struct vmm_slot *slot = &finish->slots[(action - VMM_ACTION_SLOT) & (VMM_SLOTS - 1)];

    if (run->io.direction == KVM_EXIT_IO_OUT) {
        core->port_out++;
        memcpy(remember(core, VMM_PORT_OUT, port, size, count)->data, data, (size_t)size * count);
        if (action == VMM_ACTION_SINK && to_sink(finish, data, size * count))
            return VMM_FINISHED;
        if (action >= VMM_ACTION_SLOT) {
            __atomic_fetch_add(&slot->writes, count, __ATOMIC_RELAXED);
            __atomic_store_n(&slot->value, load(data + (size_t)size * (count - 1), size), __ATOMIC_RELAXED);
            return VMM_FINISHED;
        }
    } else {
        core->port_in++;
        remember(core, VMM_PORT_IN, port, size, count);
        if (action >= VMM_ACTION_SLOT) {
            for (__u32 i = 0; i < count; i++)
                memcpy(data + (size_t)size * i, &slot->value, size);
            __atomic_fetch_add(&slot->reads, count, __ATOMIC_RELAXED);
            return VMM_FINISHED;
        }
    }
    if (count != 1)
        return VMM_DECODE; /* string I/O that nobody finishes here */
    core->address = port;
    core->size = size;
    core->answer = (__u64 *)data;
    if (run->io.direction != KVM_EXIT_IO_OUT)
        return VMM_PORT_IN;
    core->value = load(data, size);
    return VMM_PORT_OUT;
}

static int mmio_exit(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    struct vmm_finish *finish = core->finish;
    __u64 address = run->mmio.phys_addr;
    __u32 size = run->mmio.len > 8 ? 8 : run->mmio.len;
    int write = run->mmio.is_write;
    struct vmm_seen *seen = remember(core, write ? VMM_MMIO_WRITE : VMM_MMIO_READ, address, size, 1);

    if (write) {
        core->mmio_write++;
        memcpy(seen->data, run->mmio.data, size);
    } else {
        core->mmio_read++;
    }
    for (__u32 i = 0; i < finish->mmio_count; i++) {
        struct vmm_slot *slot = &finish->mmio[i];

        if (slot->address != address)
            continue;
        if (write) {
            __atomic_store_n(&slot->value, load(run->mmio.data, size), __ATOMIC_RELAXED);
            __atomic_fetch_add(&slot->writes, 1, __ATOMIC_RELAXED);
        } else {
            memcpy(run->mmio.data, &slot->value, size);
            __atomic_fetch_add(&slot->reads, 1, __ATOMIC_RELAXED);
        }
        return VMM_FINISHED;
    }
    core->address = address;
    core->size = size;
    core->answer = (__u64 *)run->mmio.data;
    if (!write)
        return VMM_MMIO_READ;
    core->value = load(run->mmio.data, size);
    return VMM_MMIO_WRITE;
}

/* KVM_RUN until something is Python's to handle. A kick (immediate_exit) ends it too, so it never runs on unseen. */
int vmm_core_run(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    int code;

    do {
        if (ioctl(core->fd, KVM_RUN, 0) < 0) {
            core->error = errno;
            run->immediate_exit = 0;
            if (core->error != EINTR && core->error != EAGAIN)
                return VMM_DECODE;
            core->interrupted++;
            return VMM_INTERRUPTED;
        }
        core->error = 0;
        core->sequence++;
        if (run->exit_reason == KVM_EXIT_IO)
            code = port_exit(core);
        else if (run->exit_reason == KVM_EXIT_MMIO)
            code = mmio_exit(core);
        else
            return VMM_DECODE;
    } while (code == VMM_FINISHED);
    return code;
}
