/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A driver's transmitter: THRE's interrupt is on and is the only one that there can be, so a write to THR is a byte for the
 * console and an edge of the line, and a read of IIR takes the interrupt away. vmm/machine/devices/uart16550.py says the
 * same in Python (`_send_next`, `_value`), and has every other access.
 */
/* Whoever has it is inside KVM for a moment, and may have been put off its CPU there. */
static void lock_transmitter(struct vmm_transmitter *sends)
{
    while (__atomic_test_and_set(&sends->lock, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void unlock_transmitter(struct vmm_transmitter *sends)
{
    __atomic_clear(&sends->lock, __ATOMIC_RELEASE);
}

/* Whether the line is there now. What KVM refuses is Python's to try again, and to tell. */
static int drive(struct vmm_transmitter *sends, int level)
{
    struct kvm_irq_level line = {.irq = sends->gsi, .level = (__u32)level};

    if (sends->level == level)
        return 1;
    if (sends->fd >= 0 && ioctl(sends->fd, KVM_IRQ_LINE, &line) < 0) {
        __atomic_store_n(&sends->port, VMM_NO_PORT, __ATOMIC_RELAXED);
        return 0;
    }
    sends->level = (__u8)level;
    return 1;
}

/* A byte for THR. The two edges are there even where no time lies between: a controller is told by the second. */
static int send_byte(struct vmm_finish *finish, struct vmm_transmitter *sends, const __u8 *data)
{
    if (!drive(sends, 0))
        return 0;
    sends->event = 0;
    if (!to_sink(finish, data, 1))
        return 0;
    sends->event = 1;
    drive(sends, 1);
    return 1;
}

static int read_iir(struct vmm_transmitter *sends, __u8 *data)
{
    *data = sends->event ? sends->pending : sends->idle;
    sends->event = 0;
    drive(sends, 0);
    return 1;
}

/* An access of one byte to one of its registers; 0: it is Python's. */
static __attribute__((noinline)) int transmitter_access(struct vmm_finish *finish, __u32 port, int out, __u8 *data)
{
    struct vmm_transmitter *sends = &finish->sends;
    int served = 0;

    lock_transmitter(sends);
    if (out && port == sends->port)
        served = send_byte(finish, sends, data);
    else if (!out && port == sends->port + VMM_UART_IIR)
        served = read_iir(sends, data);
    else if (!out && port == sends->port + VMM_UART_LSR) {
        *data = VMM_UART_READY;
        served = 1;
    }
    unlock_transmitter(sends);
    return served;
}

/* The core serves it from here on. */
void vmm_transmitter_lend(struct vmm_finish *finish, const struct vmm_transmitter *as)
{
    struct vmm_transmitter *sends = &finish->sends;

    lock_transmitter(sends);
    sends->event = as->event;
    sends->level = as->level;
    sends->pending = as->pending;
    sends->idle = as->idle;
    sends->fd = as->fd;
    sends->gsi = as->gsi;
    __atomic_store_n(&sends->port, as->port, __ATOMIC_RELAXED);
    unlock_transmitter(sends);
}

/* It is Python's again: bit 0 the event, bit 1 the line. */
int vmm_transmitter_take(struct vmm_finish *finish)
{
    struct vmm_transmitter *sends = &finish->sends;
    int state;

    lock_transmitter(sends);
    __atomic_store_n(&sends->port, VMM_NO_PORT, __ATOMIC_RELAXED);
    state = sends->event | sends->level << 1;
    unlock_transmitter(sends);
    return state;
}
