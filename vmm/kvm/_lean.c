/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The C core of the exit loop. It finishes what needs no Python (console bytes, counters, words behind ports, MMIO
 * addresses and MSRs) and hands on everything else, with the common exits already taken apart. It makes no decision that
 * vmm/machine/run/handle.py does not make too: Machine(fast=False) takes that way for every exit, and a test compares.
 */
/* What is common lies together, so that an exit fetches few lines of code: KVM's own way has pushed them out of the
 * first cache. */
#define USUALLY(condition) __builtin_expect(!!(condition), 1)
#define RARELY(condition) __builtin_expect(!!(condition), 0)
#define COLD __attribute__((cold, noinline))

#define VMM_RING ((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

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

/* What is written by one access, beside it and for Python. */
static void remember_value(struct vmm_core *core, struct vmm_seen *seen, __u64 value)
{
    core->value = value;
    memcpy(seen->data, &value, sizeof value);
}

/* The bytes of an exit, beside it. */
static void remember_data(struct vmm_core *core, struct vmm_seen *seen, const void *data, size_t length)
{
    memcpy(length <= sizeof seen->data ? seen->data : core->long_data[seen - core->recent], data, length);
}

static void lock(struct vmm_finish *finish)
{
    while (__atomic_test_and_set(&finish->lock, __ATOMIC_ACQUIRE))
        ;
}

static void unlock(struct vmm_finish *finish)
{
    __atomic_clear(&finish->lock, __ATOMIC_RELEASE);
}

/* How many more bytes may wait; Python may have lowered the limit below what waits already. Under the lock. */
static __u32 room_left(const struct vmm_finish *finish)
{
    return finish->sink_room > finish->sink_length ? finish->sink_room - finish->sink_length : 0;
}

/* Bytes for the console; 0 if there is no room, and then none are taken. Several vCPUs may write at once. */
static __attribute__((noinline)) int to_sink(struct vmm_finish *finish, const __u8 *data, __u32 length)
{
    int fits;

    lock(finish);
    fits = length <= room_left(finish);
    if (fits) {
        memcpy(finish->sink + finish->sink_length, data, length);
        finish->sink_length += length;
    }
    unlock(finish);
    return fits;
}

/* Console bytes that KVM has collected (KVM_CAP_COALESCED_PIO), while there is room for them; under the lock. The ring
 * is the VM's: whichever vCPU comes out first takes them, and all were written before its own exit. */
static __u32 from_ring(struct vmm_finish *finish, __u8 *to, __u32 room)
{
    struct kvm_coalesced_mmio_ring *ring = finish->ring;
    __u32 length = 0, first;

    while (ring && (first = ring->first) != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
        struct kvm_coalesced_mmio *one = &ring->coalesced_mmio[first];

        if (one->pio && one->phys_addr == finish->sink_port) {
            if (one->len > room - length)
                break;
            memcpy(to + length, one->data, one->len);
            length += one->len;
        } else if (finish->ring_shared) {
            break; /* a device's: Python takes it out, in its turn */
        }
        __atomic_store_n(&ring->first, (first + 1) % VMM_RING, __ATOMIC_RELEASE);
    }
    return length;
}

/* Move all that has been collected to `to`, of VMM_STAGING bytes and 8 for each place in the ring; how many bytes. */
int vmm_drain(struct vmm_finish *finish, __u8 *to)
{
    __u32 length;

    lock(finish);
    length = finish->sink_length;
    memcpy(to, finish->sink, length);
    finish->sink_room = room_left(finish);
    finish->sink_length = 0;
    length += from_ring(finish, to + length, 8 * VMM_RING);
    unlock(finish);
    return (int)length;
}

/* The word at this address. A handful of words is looked through faster than a table of 64 Ki ports is kept. */
static struct vmm_slot *slot_at(struct vmm_slot *slots, __u32 count, __u64 address)
{
    for (__u32 i = 0; i < count; i++)
        if (slots[i].address == address)
            return &slots[i];
    return NULL;
}

static COLD __u64 clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (__u64)now.tv_sec * 1000000000 + (__u64)now.tv_nsec;
}

/* `count` writes to a word, of which this is the last value. */
static inline void write_word(struct vmm_slot *slot, __u64 value, __u32 count)
{
    if (RARELY(slot->timed))
        __atomic_store_n(&slot->written_at, clock_now(), __ATOMIC_RELAXED);
    __atomic_store_n(&slot->value, value, __ATOMIC_RELAXED);
    __atomic_fetch_add(&slot->writes, count, __ATOMIC_RELEASE);
}

/* Of the sizes that there nearly always are, each has an instruction of its own. */
static __u64 load(const void *from, __u32 size)
{
    const struct { __u16 two; } __attribute__((packed)) *two = from;
    const struct { __u32 four; } __attribute__((packed)) *four = from;
    __u64 value = 0;

    switch (size) {
    case 1:
        return *(const __u8 *)from;
    case 2:
        return two->two;
    case 4:
        return four->four;
    }
    memcpy(&value, from, size);
    return value;
}

/* What Python gets: which access it is, in one number that it can look up. */
static long long key_of(int code, __u32 size, __u64 address)
{
    return (long long)(address << 8 | size << 4 | (__u32)code);
}

/* A read for Python, which puts the answer into `reply`: one fixed place, that it need not look up. */
static long long ask(struct vmm_core *core, int code, __u32 size, __u64 address, void *answer)
{
    core->answer = answer;
    core->reply[0] = 0;
    return key_of(code, size, address);
}

static __attribute__((noinline)) int transmitter_access(struct vmm_finish *finish, __u32 port, int out, __u8 *data);

/* Whether it is an access to a serial port that sends under THRE's interrupt, and all of it is done. */
static inline int to_transmitter(struct vmm_finish *finish, const struct kvm_run *run, __u8 *data)
{
    if (USUALLY((run->io.port & -VMM_UART_SIZE) != finish->sends.port) || run->io.size != 1 || run->io.count != 1)
        return 0;
    return transmitter_access(finish, run->io.port, run->io.direction == KVM_EXIT_IO_OUT, data);
}

/* VMM_FINISHED, or the key for Python. */
static long long port_exit(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    struct vmm_finish *finish = core->finish;
    __u8 *data = (__u8 *)run + run->io.data_offset;
    __u32 size = run->io.size, count = run->io.count, port = run->io.port;
    struct vmm_slot *slot = slot_at(finish->ports, finish->port_count, port);

    if (run->io.direction == KVM_EXIT_IO_OUT) {
        struct vmm_seen *seen = remember(core, VMM_PORT_OUT, port, size, count);

        core->counts[VMM_PORT_OUT]++;
        if (USUALLY(count == 1))
            remember_value(core, seen, load(data, size));
        else
            remember_data(core, seen, data, (size_t)size * count);
        if ((port == finish->sink_port || (port == finish->uart_port && size == 1)) && to_sink(finish, data, size * count))
            return VMM_FINISHED;
        if (to_transmitter(finish, run, data))
            return VMM_FINISHED;
        if (slot) {
            write_word(slot, load(data + (size_t)size * (count - 1), size), count);
            return VMM_FINISHED;
        }
    } else {
        core->counts[VMM_PORT_IN]++;
        remember(core, VMM_PORT_IN, port, size, count);
        if (port == finish->uart_port + VMM_UART_LSR && size == 1) {
            memset(data, VMM_UART_READY, count);
            return VMM_FINISHED;
        }
        if (to_transmitter(finish, run, data))
            return VMM_FINISHED;
        if (slot) {
            for (__u32 i = 0; i < count; i++)
                memcpy(data + (size_t)size * i, &slot->value, size);
            __atomic_fetch_add(&slot->reads, count, __ATOMIC_RELAXED);
            return VMM_FINISHED;
        }
    }
    if (RARELY(count != 1))
        return VMM_DECODE; /* string I/O that nobody finishes here */
    if (run->io.direction != KVM_EXIT_IO_OUT)
        return ask(core, VMM_PORT_IN, size, port, data);
    return key_of(VMM_PORT_OUT, size, port);
}

void vmm_acked_raise(struct vmm_acked *acked, __u32 bits)
{
    __atomic_fetch_or(&acked->bits, bits, __ATOMIC_SEQ_CST);
}

void vmm_acked_take(struct vmm_acked *acked, __u32 bits)
{
    __atomic_fetch_and(&acked->bits, ~bits, __ATOMIC_SEQ_CST);
}

/* Serve a device's register of what happened, or the one behind it; 0 if this is none. */
static int acked_access(struct vmm_finish *finish, __u64 address, int write, __u8 *data)
{
    __u32 count = __atomic_load_n(&finish->acked_count, __ATOMIC_ACQUIRE), bits;

    for (__u32 i = 0; i < count; i++) {
        struct vmm_acked *acked = finish->acked[i];

        if (address != acked->address + (write ? sizeof bits : 0))
            continue;
        if (write) {
            memcpy(&bits, data, sizeof bits);
            vmm_acked_take(acked, bits);
        } else {
            bits = __atomic_load_n(&acked->bits, __ATOMIC_SEQ_CST);
            memcpy(data, &bits, sizeof bits);
        }
        return 1;
    }
    return 0;
}

static long long mmio_exit(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    struct vmm_finish *finish = core->finish;
    __u64 address = run->mmio.phys_addr;
    __u32 size = run->mmio.len > 8 ? 8 : run->mmio.len;
    int write = run->mmio.is_write;
    struct vmm_seen *seen = remember(core, write ? VMM_MMIO_WRITE : VMM_MMIO_READ, address, size, 1);
    struct vmm_slot *slot;

    if (write) {
        core->counts[VMM_MMIO_WRITE]++;
        remember_value(core, seen, load(run->mmio.data, size));
    } else {
        core->counts[VMM_MMIO_READ]++;
    }
    slot = slot_at(finish->mmio, finish->mmio_count, address);
    if (slot && write) {
        write_word(slot, core->value, 1);
        return VMM_FINISHED;
    }
    if (slot) {
        memcpy(run->mmio.data, &slot->value, size);
        __atomic_fetch_add(&slot->reads, 1, __ATOMIC_RELAXED);
        return VMM_FINISHED;
    }
    if (finish->acked_count && size == sizeof(__u32) && acked_access(finish, address, write, run->mmio.data))
        return VMM_FINISHED;
    if (!write)
        return ask(core, VMM_MMIO_READ, size, address, run->mmio.data);
    return key_of(VMM_MMIO_WRITE, size, address);
}

/* An MSR that a filter, or KVM's own refusal, hands over. KVM has set msr.error to 0: whoever serves it may refuse. */
static long long msr_exit(struct vmm_core *core, int code)
{
    struct kvm_run *run = core->run;
    struct vmm_finish *finish = core->finish;
    __u32 index = run->msr.index;
    struct vmm_seen *seen = remember(core, (__u32)code, index, sizeof core->value, 1);
    struct vmm_slot *slot = slot_at(finish->msrs, finish->msr_count, index);

    core->counts[code]++;
    seen->reason = run->msr.reason;
    remember_value(core, seen, run->msr.data);
    if (slot && code == VMM_MSR_WRITE) {
        write_word(slot, core->value, 1);
        return VMM_FINISHED;
    }
    if (slot) {
        run->msr.data = __atomic_load_n(&slot->value, __ATOMIC_RELAXED);
        __atomic_fetch_add(&slot->reads, 1, __ATOMIC_RELAXED);
        return VMM_FINISHED;
    }
    if (code == VMM_MSR_READ)
        return ask(core, code, sizeof core->value, index, &run->msr.data);
    return key_of(code, sizeof core->value, index);
}

/* A hypercall that KVM passes on (KVM_CAP_EXIT_HYPERCALL). */
static COLD long long hypercall_exit(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    __u64 number = run->hypercall.nr;
    struct vmm_seen *seen;

    if (number > UINT32_MAX)
        return VMM_DECODE; /* no number that there is, and none that a key can hold */
    core->counts[VMM_HYPERCALL]++;
    seen = remember(core, VMM_HYPERCALL, number, sizeof run->hypercall.args[0], 6);
    seen->reason = run->hypercall.longmode;
    remember_data(core, seen, run->hypercall.args, sizeof run->hypercall.args);
    return ask(core, VMM_HYPERCALL, sizeof run->hypercall.ret, number, &run->hypercall.ret);
}

/* Console bytes come first: who serves this access may look at them, or end the run. */
static long long after_output(struct vmm_core *core, long long code)
{
    struct vmm_finish *finish = core->finish;

    if (USUALLY(!finish->sink_length && (!finish->ring || finish->ring->first == finish->ring->last)))
        return code;
    core->held = code;
    return VMM_OUTPUT;
}

static COLD void collect(struct vmm_finish *finish)
{
    lock(finish);
    finish->sink_length += from_ring(finish, finish->sink + finish->sink_length, room_left(finish));
    unlock(finish);
}

/* Before a run: no exit taken yet. */
void vmm_core_reset(struct vmm_core *core)
{
    core->sequence = core->kept = 0;
    memset(core->counts, 0, sizeof core->counts);
}

/* ioctl(KVM_RUN) without libc around it: 0 or more, or -errno. */
static inline long run_guest(int fd)
{
    long result = SYS_ioctl;

    __asm__ volatile("syscall" : "+a"(result) : "D"((long)fd), "S"((long)KVM_RUN), "d"(0L) : "rcx", "r11", "memory");
    return result;
}

/* KVM_RUN until something is Python's to handle: its key. A kick (immediate_exit) ends it too, so it never runs on
 * unseen. */
static long long core_run(struct vmm_core *core)
{
    struct kvm_run *run = core->run;
    long long code = core->held;

    if (RARELY(code != VMM_FINISHED)) {
        core->held = VMM_FINISHED;
        return after_output(core, code);
    }
    if (core->answer) {
        memcpy(core->answer, core->reply, sizeof core->reply);
        core->answer = NULL;
    }
    do {
        long result = run_guest(core->fd);

        core->error = RARELY(result < 0) ? (int)-result : 0;
        if (RARELY(core->finish->ring))
            collect(core->finish);
        if (RARELY(result < 0)) {
            run->immediate_exit = 0;
            if (core->error != EINTR && core->error != EAGAIN)
                return after_output(core, VMM_DECODE);
            core->counts[VMM_INTERRUPTED]++;
            return after_output(core, VMM_INTERRUPTED);
        }
        core->sequence++;
        if (run->exit_reason == KVM_EXIT_IO)
            code = port_exit(core);
        else if (run->exit_reason == KVM_EXIT_MMIO)
            code = mmio_exit(core);
        else if (run->exit_reason == KVM_EXIT_X86_RDMSR)
            code = msr_exit(core, VMM_MSR_READ);
        else if (run->exit_reason == KVM_EXIT_X86_WRMSR)
            code = msr_exit(core, VMM_MSR_WRITE);
        else if (run->exit_reason == KVM_EXIT_HYPERCALL)
            code = hypercall_exit(core);
        else
            code = VMM_DECODE;
    } while (code == VMM_FINISHED);
    return after_output(core, code);
}

void vmm_finish_init(struct vmm_finish *finish)
{
    memset(finish, 0, offsetof(struct vmm_finish, sink));
    finish->sink_port = finish->uart_port = finish->sends.port = VMM_NO_PORT;
}

void vmm_core_init(struct vmm_core *core, int fd, struct kvm_run *run, struct vmm_finish *finish)
{
    memset(core, 0, offsetof(struct vmm_core, recent));
    core->fd = fd;
    core->run = run;
    core->finish = finish;
    core->held = VMM_FINISHED;
}
