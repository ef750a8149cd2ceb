/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The C floor: what KVM itself costs, with nothing between the ioctl and the clock. It runs the very guest that pyvmm
 * runs: `pyvmm bench` writes memory image, registers, CPUID and the VM's set-up to a file (struct guest below).
 *
 *   floor batch GUEST       a round: from one OUT to the stamp port to the next, no other exit looked at; a second vCPU,
 *                           where the guest has one, runs on a thread of its own, and so does who waits for an ioeventfd
 *   floor console GUEST     the same, taking the bytes of the console port
 *   floor serial GUEST      the same, as a serial port that sends under THRE's interrupt: IIR and LSR are answered, a
 *                           byte is taken, and the line moved by KVM_IRQ_LINE, down and up for each
 *   floor touch GUEST       the same, with the pages of the range `touch` dropped before each
 *   floor uffd GUEST        the same, each of those pages supplied by a thread that reads a userfaultfd
 *   floor lifecycle GUEST   a round: create VM, memory and vCPU, run to the first HLT, close
 *   floor reset GUEST MSRS  a round: the state taken at the start put back after a run to the first HLT, by the calls
 *                           that it takes, registers by kvm_run (KVM_CAP_SYNC_REGS), and the pages of KVM's dirty log;
 *                           shadow pages are thrown away where KVM's statistics say that some were made or changed.
 *                           `floor rerun GUEST MSRS`: the run as well. MSRS are the numbers of those that are put back,
 *                           with commas
 *   floor disk GUEST FILE BASE   a round: from stamp to stamp, with a virtio disk whose registers lie at BASE and that a
 *                           thread serves: eventfd, ring, preadv, irqfd
 *   floor net GUEST FD BASE      the same with a network card over the datagram socket FD, a thread each way
 *   floor echo FD           sends back each message of the socket, for good
 *   floor work GUEST        a round: SLICE of both vCPUs' work, each on a thread; the answer is stamps a second
 *   floor irqfd GUEST       a round: eventfd write until the handler of the halted guest does its OUT
 *   floor kick GUEST        the same by KVM_SIGNAL_MSI
 *   floor spawn COMMAND...  a round: start the command, wait for its end; three numbers: ns, peak KiB, exit status
 *
 * Each line on standard input is a number of rounds to do; the answer is one line with a number for each, in ns. So
 * the rounds of this program and of pyvmm can take turns. Errors: one line on stderr, status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <asm/kvm_para.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_CPUID 256
#define MAX_CPUS 2
#define MAGIC 0x34726f6f6c66 /* "floor4" */
enum { SPLIT = 1, KERNEL }; /* of guest.irqchip */

/* What a vCPU starts with; its APIC id is its place. */
struct cpu {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct {
        uint32_t nent, padding;
        struct kvm_cpuid_entry2 entries[MAX_CPUID];
    } cpuid;
};

/* vmm/bench/image.py writes it. 0 means: none. A u32 at answer_address counts what came by the ioeventfd. */
struct guest {
    uint64_t magic, memory_size, image_offset, image_size, cpu_count;
    uint64_t irqchip, msi_address, msi_data;
    uint64_t stamp_port, console_port, ioeventfd_port, ioeventfd_address, answer_address, coalesced_port;
    uint64_t denied_msr, exit_hypercalls;
    uint64_t touch_base, touch_size;
    uint64_t serial_port, serial_gsi;
    struct cpu cpus[MAX_CPUS];
};

struct vm {
    int kvm, vm, vcpu, second, event;
    struct kvm_run *run;
    struct kvm_coalesced_mmio_ring *ring;
    size_t run_size;
    char *memory;
};

static struct guest guest;
static char *image;
static struct piece { uint64_t at; size_t size; } *pieces;
static size_t piece_count;
static char taken[1 << 20];
static size_t taken_length;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int call(int fd, unsigned long request, void *argument, const char *what)
{
    int result = ioctl(fd, request, argument);

    if (result < 0)
        die(what);
    return result;
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* What the guest's memory begins with. Pages of zeros stay untouched, as they do in pyvmm; to look for them is no part of
 * making a VM. */
static void find_pieces(void)
{
    static const char zeros[4096];

    pieces = malloc((guest.image_size / 4096 + 1) * sizeof *pieces);
    if (!pieces)
        die("memory");
    for (uint64_t at = 0; at < guest.image_size; at += 4096) {
        size_t size = guest.image_size - at < 4096 ? (size_t)(guest.image_size - at) : 4096;

        if (!memcmp(image + at, zeros, size))
            continue;
        if (piece_count && pieces[piece_count - 1].at + pieces[piece_count - 1].size == at)
            pieces[piece_count - 1].size += size;
        else
            pieces[piece_count++] = (struct piece){at, size};
    }
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (!file || fread(&guest, sizeof guest, 1, file) != 1 || guest.magic != MAGIC || guest.cpu_count > MAX_CPUS ||
        fseek(file, (long)guest.image_offset, SEEK_SET) != 0)
        die(path);
    image = malloc(guest.image_size);
    if (!image || fread(image, 1, guest.image_size, file) != guest.image_size)
        die(path);
    fclose(file);
    find_pieces();
}

static void set_up(struct vm *m)
{
    if (guest.irqchip == KERNEL)
        call(m->vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
    if (guest.irqchip == SPLIT) {
        struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

        call(m->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_SPLIT_IRQCHIP");
    }
    if (guest.denied_msr) {
        __u8 none = 0;
        struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR, .args = {KVM_MSR_EXIT_REASON_FILTER}};
        struct kvm_msr_filter filter = {.ranges = {{.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                                    .nmsrs = 1,
                                                    .base = (uint32_t)guest.denied_msr,
                                                    .bitmap = &none}}};

        call(m->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_X86_USER_SPACE_MSR");
        call(m->vm, KVM_X86_SET_MSR_FILTER, &filter, "KVM_X86_SET_MSR_FILTER");
    }
    if (guest.exit_hypercalls) {
        struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_HYPERCALL, .args = {guest.exit_hypercalls}};

        call(m->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_EXIT_HYPERCALL");
    }
    if (guest.ioeventfd_port || guest.ioeventfd_address) {
        struct kvm_ioeventfd event = {.addr = guest.ioeventfd_address, .len = 4, .fd = eventfd(0, EFD_CLOEXEC)};

        if (guest.ioeventfd_port) {
            event.addr = guest.ioeventfd_port;
            event.len = 1;
            event.flags = KVM_IOEVENTFD_FLAG_PIO;
        }
        m->event = event.fd;
        call(m->vm, KVM_IOEVENTFD, &event, "KVM_IOEVENTFD");
    }
    if (guest.coalesced_port) {
        struct kvm_coalesced_mmio_zone zone = {.addr = guest.coalesced_port, .size = 1, .pio = 1};
        int page =
            call(m->kvm, KVM_CHECK_EXTENSION, (void *)(uintptr_t)KVM_CAP_COALESCED_MMIO, "KVM_CAP_COALESCED_MMIO");

        call(m->vm, KVM_REGISTER_COALESCED_MMIO, &zone, "KVM_REGISTER_COALESCED_MMIO");
        m->ring = (void *)((char *)m->run + (size_t)page * 4096);
    }
}

static void start(int vcpu, struct cpu *cpu)
{
    call(vcpu, KVM_SET_SREGS, &cpu->sregs, "KVM_SET_SREGS");
    call(vcpu, KVM_SET_REGS, &cpu->regs, "KVM_SET_REGS");
}

static void create(struct vm *m)
{
    struct kvm_userspace_memory_region region = {0};

    memset(m, 0, sizeof *m);
    m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->kvm < 0)
        die("/dev/kvm");
    m->vm = call(m->kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
    m->memory = mmap(NULL, guest.memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->memory == MAP_FAILED)
        die("mmap");
    region.memory_size = guest.memory_size;
    region.userspace_addr = (uintptr_t)m->memory;
    call(m->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
    if (guest.irqchip || guest.denied_msr)
        set_up(m); /* before the first vCPU */
    m->vcpu = call(m->vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
    m->run_size = (size_t)call(m->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
    m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
    if (m->run == MAP_FAILED)
        die("mmap of kvm_run");
    if (!guest.irqchip && !guest.denied_msr)
        set_up(m);
    call(m->vcpu, KVM_SET_CPUID2, &guest.cpus[0].cpuid, "KVM_SET_CPUID2");
    for (size_t i = 0; i < piece_count; i++)
        memcpy(m->memory + pieces[i].at, image + pieces[i].at, pieces[i].size);
    start(m->vcpu, &guest.cpus[0]);
}

static void destroy(struct vm *m)
{
    munmap(m->run, m->run_size);
    close(m->vcpu);
    close(m->vm);
    munmap(m->memory, guest.memory_size);
    close(m->kvm);
}

static void enter(struct vm *m)
{
    while (ioctl(m->vcpu, KVM_RUN, 0) < 0)
        if (errno != EINTR)
            die("KVM_RUN");
}

static int at_stamp(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_IO && run->io.port == guest.stamp_port;
}

static void check_alive(const struct kvm_run *run)
{
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
    case KVM_EXIT_MMIO:
    case KVM_EXIT_HLT:
    case KVM_EXIT_HYPERCALL:
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        return;
    }
    fprintf(stderr, "floor: the guest ended with exit reason %u\n", run->exit_reason);
    exit(1);
}

static void take(const void *data, size_t bytes)
{
    if (taken_length + bytes > sizeof taken)
        taken_length = 0;
    memcpy(taken + taken_length, data, bytes);
    taken_length += bytes;
}

static void drain(struct kvm_coalesced_mmio_ring *ring)
{
    while (ring->first != ring->last) {
        take(ring->coalesced_mmio[ring->first].data, 1);
        ring->first = (ring->first + 1) % ((4096 - sizeof *ring) / sizeof ring->coalesced_mmio[0]);
    }
}

static void to_stamp(struct vm *m, int console)
{
    do {
        enter(m);
        if (m->ring)
            drain(m->ring);
        if (console && m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == guest.console_port)
            take((char *)m->run + m->run->io.data_offset, (size_t)m->run->io.size * m->run->io.count);
    } while (!at_stamp(m->run));
}

/* A 16550A whose transmitter is always empty. IIR: 2 with THRE's interrupt, else 1; LSR: 0x60, THRE and TEMT. */
static void drive(struct vm *m, uint32_t level)
{
    struct kvm_irq_level line = {.irq = (uint32_t)guest.serial_gsi, .level = level};
    static uint32_t now_at;

    if (level != now_at)
        call(m->vm, KVM_IRQ_LINE, &line, "KVM_IRQ_LINE");
    now_at = level;
}

static void serve_serial(struct vm *m, uint64_t offset, uint8_t *data)
{
    static int pending;

    if (m->run->io.direction == KVM_EXIT_IO_OUT && offset == 0) {
        drive(m, 0);
        take(data, 1);
        drive(m, 1);
        pending = 1;
    } else if (m->run->io.direction == KVM_EXIT_IO_IN && offset == 2) {
        *data = pending ? 2 : 1;
        drive(m, 0);
        pending = 0;
    } else if (m->run->io.direction == KVM_EXIT_IO_IN && offset == 5)
        *data = 0x60;
}

static void serial_to_stamp(struct vm *m)
{
    for (;;) {
        enter(m);
        if (at_stamp(m->run))
            return;
        check_alive(m->run);
        if (m->run->exit_reason == KVM_EXIT_IO && m->run->io.port - guest.serial_port < 8)
            serve_serial(m, m->run->io.port - guest.serial_port, (uint8_t *)m->run + m->run->io.data_offset);
    }
}

/* The thread behind `floor uffd`: every page that is missed is zero. */
static void *supply(void *argument)
{
    int fd = *(int *)argument;
    struct uffd_msg message;

    while (read(fd, &message, sizeof message) == sizeof message) {
        struct uffdio_zeropage zero = {.range = {message.arg.pagefault.address & -4096ULL, 4096}};

        if (ioctl(fd, UFFDIO_ZEROPAGE, &zero) < 0 && errno != EEXIST)
            die("UFFDIO_ZEROPAGE");
    }
    return NULL;
}

/* Who measures onto the first CPU that it may use, the thread that it wakes, or that wakes it, onto the last. */
static void apart(pthread_t other)
{
    cpu_set_t may, one;
    int first = 0, last = CPU_SETSIZE - 1;

    if (sched_getaffinity(0, sizeof may, &may))
        die("sched_getaffinity");
    while (!CPU_ISSET(first, &may))
        first++;
    while (!CPU_ISSET(last, &may))
        last--;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    errno = pthread_setaffinity_np(other, sizeof one, &one);
    if (errno)
        die("pthread_setaffinity_np");
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    if (sched_setaffinity(0, sizeof one, &one))
        die("sched_setaffinity");
}

static void hold_back(struct vm *m)
{
    static int fd;
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {
        .range = {(uintptr_t)m->memory + guest.touch_base, guest.touch_size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    pthread_t thread;
    int control = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    fd = control >= 0 ? ioctl(control, USERFAULTFD_IOC_NEW, O_CLOEXEC) : (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0)
        die("userfaultfd");
    call(fd, UFFDIO_API, &api, "UFFDIO_API");
    call(fd, UFFDIO_REGISTER, &range, "UFFDIO_REGISTER");
    pthread_create(&thread, NULL, supply, &fd);
    apart(thread);
}

static long next_rounds(void)
{
    long count;

    fflush(stdout);
    return scanf("%ld", &count) == 1 && count > 0 ? count : 0;
}

static void serials(void)
{
    struct vm m;
    long count;

    create(&m);
    while ((count = next_rounds())) {
        serial_to_stamp(&m);
        for (long i = 0; i < count; i++) {
            int64_t begin = now();

            serial_to_stamp(&m);
            printf("%lld ", (long long)(now() - begin));
        }
        putchar('\n');
    }
}

/* The second vCPU: what it does is between the two; no exit of it is looked at, but it must have none that ends it. */
static void *second_thread(void *argument)
{
    struct vm *m = argument;
    struct kvm_run *run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->second, 0);

    if (run == MAP_FAILED)
        die("mmap of kvm_run");
    for (;;) {
        while (ioctl(m->second, KVM_RUN, 0) < 0)
            if (errno != EINTR && errno != EAGAIN)
                die("KVM_RUN of the second vCPU");
        check_alive(run);
    }
    return NULL;
}

static void add_second(struct vm *m)
{
    struct kvm_mp_state runnable = {KVM_MP_STATE_RUNNABLE};

    m->second = call(m->vm, KVM_CREATE_VCPU, (void *)1, "KVM_CREATE_VCPU");
    call(m->second, KVM_SET_CPUID2, &guest.cpus[1].cpuid, "KVM_SET_CPUID2");
    if (guest.irqchip)
        call(m->second, KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE");
    start(m->second, &guest.cpus[1]);
}

/* Who waits for the ioeventfd, and tells the guest by its memory. */
static void *answer_thread(void *argument)
{
    struct vm *m = argument;
    uint32_t *counter = (uint32_t *)(m->memory + guest.answer_address);
    uint64_t value;

    while (read(m->event, &value, sizeof value) == sizeof value)
        __atomic_fetch_add(counter, 1, __ATOMIC_RELEASE);
    die("eventfd");
    return NULL;
}

static void batches(int console, int touch, int uffd)
{
    struct vm m;
    pthread_t thread;
    long count;

    create(&m);
    if (uffd)
        hold_back(&m);
    if (guest.cpu_count > 1) {
        add_second(&m);
        pthread_create(&thread, NULL, second_thread, &m);
    }
    if (guest.answer_address) {
        pthread_create(&thread, NULL, answer_thread, &m);
        apart(thread);
    }
    while ((count = next_rounds())) {
        to_stamp(&m, console);
        for (long i = 0; i < count; i++) {
            int64_t begin;

            if (touch && madvise(m.memory + guest.touch_base, guest.touch_size, MADV_DONTNEED))
                die("madvise");
            begin = now();
            to_stamp(&m, console);
            printf("%lld ", (long long)(now() - begin));
        }
        check_alive(m.run);
        putchar('\n');
    }
    exit(0); /* other threads wait for good */
}

/* Two vCPUs that have nothing to do with each other. */
#define SLICE 150000000LL /* ns */
struct worker {
    int vcpu;
    struct kvm_run *run;
    int64_t end;
    long stamps;
};

static void *work(void *argument)
{
    struct worker *worker = argument;

    for (worker->stamps = 0; now() < worker->end; worker->stamps++) {
        while (ioctl(worker->vcpu, KVM_RUN, 0) < 0)
            if (errno != EINTR)
                die("KVM_RUN");
        if (!at_stamp(worker->run))
            die("a guest that works");
    }
    return NULL;
}

static void works(void)
{
    struct worker workers[2];
    struct vm m;
    long count;

    create(&m);
    add_second(&m);
    workers[0] = (struct worker){.vcpu = m.vcpu, .run = m.run};
    workers[1] = (struct worker){
        .vcpu = m.second, .run = mmap(NULL, m.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m.second, 0)};
    if (workers[1].run == MAP_FAILED)
        die("mmap of kvm_run");
    while ((count = next_rounds())) {
        for (long i = 0; i < count; i++) {
            int64_t begin = now();
            pthread_t thread;

            workers[0].end = workers[1].end = begin + SLICE;
            pthread_create(&thread, NULL, work, &workers[1]);
            work(&workers[0]);
            pthread_join(thread, NULL);
            printf("%f ", (double)(workers[0].stamps + workers[1].stamps) * 1e9 / (double)(now() - begin));
        }
        putchar('\n');
    }
}

static void lifecycle(void)
{
    long count;

    while ((count = next_rounds())) {
        for (long i = 0; i < count; i++) {
            int64_t begin = now();
            struct vm m;

            create(&m);
            enter(&m);
            if (m.run->exit_reason != KVM_EXIT_HLT)
                check_alive(m.run);
            destroy(&m);
            printf("%lld ", (long long)(now() - begin));
        }
        putchar('\n');
    }
}

#define SYNCED (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* What a vCPU is, in the structures of KVM's calls, and a copy of the memory. */
static struct {
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_clock_data clock;
    struct { struct kvm_msrs head; struct kvm_msr_entry entries[1024]; } msrs;
    char *xsave, *nested, *nested_now, *memory;
    uint64_t *log;
    int spaces, is_nested, is_sregs2, is_xcrs, xsave2;
    int vm_stats, vcpu_stats;
    off_t places[4]; /* of the VM's mmu_cache_miss and mmu_unsync, of the vCPU's tlb_flush and invlpg */
    uint64_t shadows, flushed, flushed_one;
} kept;

static int offers(const struct vm *m, int capability)
{
    return ioctl(m->vm, KVM_CHECK_EXTENSION, capability);
}

/* KVM_GET_MSRS or KVM_SET_MSRS of all that are kept, as many by one call as KVM takes. */
static void move_msrs(const struct vm *m, unsigned long request)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entries[255]; } part = {0};

    for (uint32_t at = 0; at < kept.msrs.head.nmsrs; at += part.head.nmsrs) {
        uint32_t left = kept.msrs.head.nmsrs - at;

        part.head.nmsrs = left < 255 ? left : 255;
        memcpy(part.entries, kept.msrs.entries + at, part.head.nmsrs * sizeof *part.entries);
        if (call(m->vcpu, request, &part, "MSRs") != (int)part.head.nmsrs)
            die("MSRs");
        memcpy(kept.msrs.entries + at, part.entries, part.head.nmsrs * sizeof *part.entries);
    }
}

/* Where one of KVM's statistics lies in FD; 0: it has none of that name. */
static off_t place_of(int fd, const char *name)
{
    struct kvm_stats_header header;
    union { struct kvm_stats_desc is; char bytes[256]; } one;

    if (fd < 0 || pread(fd, &header, sizeof header, 0) != sizeof header)
        return 0;
    for (uint32_t i = 0; i < header.num_desc; i++) {
        size_t size = sizeof one.is + header.name_size;

        if (size > sizeof one || pread(fd, &one, size, (off_t)(header.desc_offset + i * size)) != (ssize_t)size)
            return 0;
        if (!strcmp(one.bytes + sizeof one.is, name))
            return (off_t)(header.data_offset + one.is.offset);
    }
    return 0;
}

/* Two of them, at PLACES, by one call. */
static void counted(int fd, const off_t *places, uint64_t *values)
{
    off_t from = places[0] < places[1] ? places[0] : places[1];
    uint64_t between[64];
    size_t size = (size_t)(places[0] + places[1] - 2 * from) + sizeof *between;

    if (size > sizeof between || pread(fd, between, size, from) != (ssize_t)size)
        die("statistics");
    values[0] = between[(size_t)(places[0] - from) / sizeof *between];
    values[1] = between[(size_t)(places[1] - from) / sizeof *between];
}

/* Whether KVM may hold what it made of page tables that the guest has changed: all is thrown away then. */
static void throw_away(const struct vm *m)
{
    int old = 1;

    if (kept.places[0] && kept.places[1] && kept.places[2] && kept.places[3]) {
        uint64_t shadows[2], flushed[2];

        counted(kept.vm_stats, kept.places, shadows);
        old = shadows[0] != kept.shadows || shadows[1];
        if (shadows[0]) {
            counted(kept.vcpu_stats, kept.places + 2, flushed);
            old |= flushed[0] > kept.flushed + 1 || flushed[1] != kept.flushed_one;
            kept.flushed = flushed[0];
            kept.flushed_one = flushed[1];
        }
        kept.shadows = shadows[0];
    }
    if (old && (mprotect(m->memory, guest.memory_size, PROT_NONE) ||
                mprotect(m->memory, guest.memory_size, PROT_READ | PROT_WRITE)))
        die("mprotect");
}

static void keep(struct vm *m, char *msrs)
{
    struct kvm_userspace_memory_region region = {.memory_size = guest.memory_size, .flags = KVM_MEM_LOG_DIRTY_PAGES};
    static const uint32_t ended[] = {MSR_KVM_ASYNC_PF_EN, MSR_KVM_PV_EOI_EN}; /* 0 before their old value */
    struct { struct kvm_msrs head; struct kvm_msr_entry entries[2]; } zeroed = {0};
    int size = offers(m, KVM_CAP_XSAVE2), synced = offers(m, KVM_CAP_SYNC_REGS);

    if ((synced & SYNCED) == SYNCED)
        m->run->kvm_valid_regs = SYNCED;
    kept.vm_stats = ioctl(m->vm, KVM_GET_STATS_FD, NULL);
    kept.vcpu_stats = ioctl(m->vcpu, KVM_GET_STATS_FD, NULL);
    kept.places[0] = place_of(kept.vm_stats, "mmu_cache_miss");
    kept.places[1] = place_of(kept.vm_stats, "mmu_unsync");
    kept.places[2] = place_of(kept.vcpu_stats, "tlb_flush");
    kept.places[3] = place_of(kept.vcpu_stats, "invlpg");
    kept.spaces = offers(m, KVM_CAP_MULTI_ADDRESS_SPACE) > 1 ? offers(m, KVM_CAP_MULTI_ADDRESS_SPACE) : 1;
    kept.is_nested = offers(m, KVM_CAP_NESTED_STATE);
    kept.is_sregs2 = offers(m, KVM_CAP_SREGS2);
    kept.is_xcrs = offers(m, KVM_CAP_XCRS);
    kept.xsave2 = size > 4096;
    kept.xsave = calloc(1, kept.xsave2 ? (size_t)size : 4096);
    kept.nested = calloc(1, (size_t)kept.is_nested + 1);
    kept.nested_now = calloc(1, (size_t)kept.is_nested + 1);
    kept.memory = malloc(guest.memory_size);
    kept.log = calloc(guest.memory_size / 4096 / 64 + 1, 8);
    if (!kept.xsave || !kept.nested || !kept.nested_now || !kept.memory || !kept.log)
        die("memory");
    region.userspace_addr = (uintptr_t)m->memory;
    for (int space = 0; space < kept.spaces; space++) {
        region.slot = (uint32_t)space << 16;
        call(m->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
    }
    memcpy(kept.memory, m->memory, guest.memory_size);
    call(m->vcpu, KVM_GET_REGS, &kept.regs, "KVM_GET_REGS");
    call(m->vcpu, kept.is_sregs2 ? KVM_GET_SREGS2 : KVM_GET_SREGS, &kept.sregs, "KVM_GET_SREGS2");
    if (kept.is_xcrs)
        call(m->vcpu, KVM_GET_XCRS, &kept.xcrs, "KVM_GET_XCRS");
    call(m->vcpu, kept.xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, kept.xsave, "KVM_GET_XSAVE");
    call(m->vcpu, KVM_GET_DEBUGREGS, &kept.debugregs, "KVM_GET_DEBUGREGS");
    call(m->vcpu, KVM_GET_VCPU_EVENTS, &kept.events, "KVM_GET_VCPU_EVENTS");
    for (char *word = strtok(msrs, ","); word && kept.msrs.head.nmsrs < 1020; word = strtok(NULL, ",")) {
        uint32_t index = (uint32_t)strtoul(word, NULL, 10);

        for (int i = 0; i < 2; i++)
            if (index == ended[i])
                zeroed.entries[zeroed.head.nmsrs++].index = index;
        kept.msrs.entries[kept.msrs.head.nmsrs++].index = index;
    }
    move_msrs(m, KVM_GET_MSRS);
    memmove(kept.msrs.entries + zeroed.head.nmsrs, kept.msrs.entries, kept.msrs.head.nmsrs * sizeof *kept.msrs.entries);
    memcpy(kept.msrs.entries, zeroed.entries, zeroed.head.nmsrs * sizeof *zeroed.entries);
    kept.msrs.head.nmsrs += zeroed.head.nmsrs;
    if (kept.is_nested) {
        ((struct kvm_nested_state *)kept.nested)->size = (uint32_t)kept.is_nested;
        call(m->vcpu, KVM_GET_NESTED_STATE, kept.nested, "KVM_GET_NESTED_STATE");
    }
    call(m->vm, KVM_GET_CLOCK, &kept.clock, "KVM_GET_CLOCK");
    kept.clock.flags = 0;
}

static void put_back(struct vm *m)
{
    struct kvm_nested_state *before = (void *)kept.nested, *now = (void *)kept.nested_now;
    const struct kvm_sync_regs *left = &m->run->s.regs;
    int synced = m->run->kvm_valid_regs != 0, nested, same;
    long long put = 0;

    if (kept.is_nested) {
        now->size = (uint32_t)kept.is_nested;
        call(m->vcpu, KVM_GET_NESTED_STATE, now, "KVM_GET_NESTED_STATE");
    }
    nested = kept.is_nested && memcmp(before, now, before->size);
    same = synced && !nested && !(kept.is_sregs2 && kept.sregs.flags) &&
           !memcmp(&left->sregs, &kept.sregs, offsetof(struct kvm_sregs, interrupt_bitmap)) &&
           !memcmp(&left->events, &kept.events, sizeof kept.events);
    if (nested)
        call(m->vcpu, KVM_SET_NESTED_STATE, kept.nested, "KVM_SET_NESTED_STATE");
    if (!same)
        call(m->vcpu, kept.is_sregs2 ? KVM_SET_SREGS2 : KVM_SET_SREGS, &kept.sregs, "KVM_SET_SREGS2");
    m->run->cr8 = kept.sregs.cr8;
    if (kept.is_xcrs)
        call(m->vcpu, KVM_SET_XCRS, &kept.xcrs, "KVM_SET_XCRS");
    call(m->vcpu, KVM_SET_XSAVE, kept.xsave, "KVM_SET_XSAVE");
    if (synced) {
        m->run->s.regs.regs = kept.regs;
        m->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
    } else {
        call(m->vcpu, KVM_SET_REGS, &kept.regs, "KVM_SET_REGS");
    }
    move_msrs(m, KVM_SET_MSRS);
    call(m->vcpu, KVM_SET_DEBUGREGS, &kept.debugregs, "KVM_SET_DEBUGREGS");
    if (nested)
        call(m->vcpu, KVM_SET_NESTED_STATE, kept.nested, "KVM_SET_NESTED_STATE");
    if (!same)
        call(m->vcpu, KVM_SET_VCPU_EVENTS, &kept.events, "KVM_SET_VCPU_EVENTS");
    for (int space = 0; space < kept.spaces; space++) {
        struct kvm_dirty_log log = {.slot = (uint32_t)space << 16, .dirty_bitmap = kept.log};

        call(m->vm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
        for (uint64_t word = 0; word < (guest.memory_size / 4096 + 63) / 64; word++)
            for (uint64_t bits = kept.log[word]; bits; bits &= bits - 1) {
                uint64_t at = (word * 64 + (uint64_t)__builtin_ctzll(bits)) * 4096;

                memcpy(m->memory + at, kept.memory + at, 4096);
                put++;
            }
    }
    if (put)
        throw_away(m);
    call(m->vm, KVM_SET_CLOCK, &kept.clock, "KVM_SET_CLOCK");
}

static void resets(char *msrs, int with_run)
{
    struct vm m;
    long count;

    create(&m);
    keep(&m, msrs);
    put_back(&m);
    while ((count = next_rounds())) {
        for (long i = 0; i < count; i++) {
            int64_t begin = now();

            enter(&m);
            if (m.run->exit_reason != KVM_EXIT_HLT)
                check_alive(m.run);
            if (!with_run)
                begin = now();
            put_back(&m);
            printf("%lld ", (long long)(now() - begin));
        }
        putchar('\n');
    }
}

/* The vCPU halts; another thread wakes it and waits for its handler, whose first OUT is the exit that is timed, and whose
 * second signals the ioeventfd. */
static struct vm woken;
static volatile int64_t handled_at;
static int done_event;

static void *vcpu_thread(void *unused)
{
    (void)unused;
    for (;;) {
        enter(&woken);
        handled_at = now();
        check_alive(woken.run);
    }
    return NULL;
}

static void wakes(int use_irqfd)
{
    struct kvm_msi msi = {.address_lo = (uint32_t)guest.msi_address,
                          .address_hi = (uint32_t)(guest.msi_address >> 32),
                          .data = (uint32_t)guest.msi_data};
    int irq_event = eventfd(0, EFD_CLOEXEC);
    pthread_t thread;
    uint64_t value;
    long count;

    create(&woken);
    done_event = woken.event;
    if (use_irqfd) {
        struct {
            struct kvm_irq_routing head;
            struct kvm_irq_routing_entry entry;
        } routing = {.head = {.nr = 1},
                     .entry = {.gsi = 1,
                               .type = KVM_IRQ_ROUTING_MSI,
                               .u.msi = {.address_lo = msi.address_lo, .address_hi = msi.address_hi, .data = msi.data}}};
        struct kvm_irqfd irqfd = {.fd = (uint32_t)irq_event, .gsi = 1};

        call(woken.vm, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
        call(woken.vm, KVM_IRQFD, &irqfd, "KVM_IRQFD");
    }
    pthread_create(&thread, NULL, vcpu_thread, NULL);
    apart(thread);
    if (read(done_event, &value, sizeof value) < 0) /* the guest has set itself up */
        die("eventfd");
    while ((count = next_rounds())) {
        for (long i = 0; i < count; i++) {
            struct timespec pause = {0, 200000};
            int64_t begin;

            nanosleep(&pause, NULL); /* let it reach HLT */
            begin = now();
            value = 1;
            if (use_irqfd) {
                if (write(irq_event, &value, sizeof value) < 0)
                    die("eventfd");
            } else {
                call(woken.vm, KVM_SIGNAL_MSI, &msi, "KVM_SIGNAL_MSI");
            }
            if (read(done_event, &value, sizeof value) < 0)
                die("eventfd");
            printf("%lld ", (long long)(handled_at - begin));
        }
        putchar('\n');
    }
    exit(0); /* the vCPU thread is in KVM_RUN for good */
}

/* The least disk: what a driver of virtio-mmio writes to a register it reads there again; a request is a header, one
 * buffer, a status, and asks for a read. Nothing is checked. */
static struct {
    struct vm m;
    uint32_t registers[VIRTIO_MMIO_CONFIG / 4];
    uint64_t base;
    int file, kick, irq;
} disk;

static void signal_event(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof one) < 0)
        die("eventfd");
}

static uint64_t disk_area(uint32_t reg)
{
    return disk.registers[reg / 4] | (uint64_t)disk.registers[reg / 4 + 1] << 32;
}

static void *disk_thread(void *unused)
{
    char *memory = disk.m.memory;
    uint16_t last = 0;
    uint64_t value;

    while (read(disk.kick, &value, sizeof value) == sizeof value) {
        uint32_t size = disk.registers[VIRTIO_MMIO_QUEUE_NUM / 4];
        struct vring_desc *table = (void *)(memory + disk_area(VIRTIO_MMIO_QUEUE_DESC_LOW));
        struct vring_avail *avail = (void *)(memory + disk_area(VIRTIO_MMIO_QUEUE_AVAIL_LOW));
        struct vring_used *used = (void *)(memory + disk_area(VIRTIO_MMIO_QUEUE_USED_LOW));
        uint16_t *avail_event = (void *)&used->ring[size];

        for (;;) {
            struct vring_desc *desc;
            struct virtio_blk_outhdr *header;

            if (last == __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE)) {
                __atomic_store_n(avail_event, last, __ATOMIC_SEQ_CST);
                __atomic_thread_fence(__ATOMIC_SEQ_CST);
                if (last == __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE))
                    break;
            }
            desc = &table[avail->ring[last % size]];
            header = (void *)(memory + desc->addr);
            if (pread(disk.file, memory + desc[1].addr, desc[1].len, (off_t)header->sector * 512) != (ssize_t)desc[1].len)
                die("pread");
            memory[desc[2].addr] = VIRTIO_BLK_S_OK;
            used->ring[last % size] = (struct vring_used_elem){(uint32_t)(desc - table), desc[1].len + 1};
            __atomic_store_n(&used->idx, ++last, __ATOMIC_RELEASE);
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (avail->ring[size] != (uint16_t)(last - 1))
                continue; /* used_event */
            __atomic_fetch_or(&disk.registers[VIRTIO_MMIO_INTERRUPT_STATUS / 4], 1, __ATOMIC_SEQ_CST);
            signal_event(disk.irq);
        }
    }
    (void)unused;
    die("eventfd");
    return NULL;
}

static void disk_register(struct kvm_run *run)
{
    uint64_t offset = run->mmio.phys_addr - disk.base;
    uint32_t *reg = &disk.registers[offset / 4], value;

    if (run->exit_reason != KVM_EXIT_MMIO || offset >= sizeof disk.registers)
        return;
    memcpy(&value, run->mmio.data, sizeof value);
    if (!run->mmio.is_write)
        memcpy(run->mmio.data, reg, sizeof *reg);
    else if (offset == VIRTIO_MMIO_INTERRUPT_ACK)
        __atomic_fetch_and(&disk.registers[VIRTIO_MMIO_INTERRUPT_STATUS / 4], ~value, __ATOMIC_SEQ_CST);
    else
        *reg = value;
}

static void disks(const char *path, const char *base)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry;
    } routing = {.head = {.nr = 1}, .entry = {.gsi = 1, .type = KVM_IRQ_ROUTING_MSI}};
    struct kvm_ioeventfd kick = {.len = 4, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
    struct kvm_irqfd irq = {.gsi = 1};
    pthread_t thread;
    long count;

    create(&disk.m);
    disk.base = strtoull(base, NULL, 0);
    disk.registers[VIRTIO_MMIO_DEVICE_ID / 4] = 2;
    disk.file = open(path, O_RDONLY | O_CLOEXEC);
    disk.kick = eventfd(0, EFD_CLOEXEC);
    disk.irq = eventfd(0, EFD_CLOEXEC);
    if (disk.file < 0)
        die(path);
    routing.entry.u.msi.address_lo = (uint32_t)guest.msi_address;
    routing.entry.u.msi.address_hi = (uint32_t)(guest.msi_address >> 32);
    routing.entry.u.msi.data = (uint32_t)guest.msi_data;
    call(disk.m.vm, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
    irq.fd = (uint32_t)disk.irq;
    call(disk.m.vm, KVM_IRQFD, &irq, "KVM_IRQFD");
    kick.addr = disk.base + VIRTIO_MMIO_QUEUE_NOTIFY;
    kick.fd = disk.kick;
    call(disk.m.vm, KVM_IOEVENTFD, &kick, "KVM_IOEVENTFD");
    pthread_create(&thread, NULL, disk_thread, NULL);
    apart(thread);
    while ((count = next_rounds())) {
        for (long i = -1; i < count; i++) {
            int64_t begin = now();

            do {
                enter(&disk.m);
                check_alive(disk.m.run);
                disk_register(disk.m.run);
            } while (!at_stamp(disk.m.run));
            if (i >= 0)
                printf("%lld ", (long long)(now() - begin));
        }
        putchar('\n');
    }
    exit(0); /* the thread waits for good */
}

/* The least network card: both queues, a thread each way; a packet is one buffer, and what is received fits. Nothing is
 * checked. The driver says with QUEUE_READY where a queue lies. */
static struct {
    struct vm m;
    uint32_t registers[VIRTIO_MMIO_CONFIG / 4];
    struct {
        struct vring_desc *table;
        struct vring_avail *avail;
        struct vring_used *used;
        uint32_t size;
        volatile int ready;
    } queues[2];
    uint64_t base;
    int sock, kicks[2], irq;
} net;

#define NET_HEADER 12

static char *net_buffer(int queue, uint16_t index, struct vring_desc **desc)
{
    uint16_t head = net.queues[queue].avail->ring[index % net.queues[queue].size];

    *desc = &net.queues[queue].table[head];
    return net.m.memory + (*desc)->addr + NET_HEADER;
}

static void net_used(int queue, uint16_t index, struct vring_desc *desc, uint32_t written)
{
    struct vring_used *used = net.queues[queue].used;
    uint32_t size = net.queues[queue].size;

    used->ring[index % size] = (struct vring_used_elem){(uint32_t)(desc - net.queues[queue].table), written};
    __atomic_store_n(&used->idx, (uint16_t)(index + 1), __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (net.queues[queue].avail->ring[size] != index)
        return; /* used_event */
    __atomic_fetch_or(&net.registers[VIRTIO_MMIO_INTERRUPT_STATUS / 4], 1, __ATOMIC_SEQ_CST);
    signal_event(net.irq);
}

static int net_waits(int queue, uint16_t last)
{
    struct vring_avail *avail = net.queues[queue].avail;
    uint16_t *avail_event = (void *)&net.queues[queue].used->ring[net.queues[queue].size];

    if (last != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE))
        return 1;
    __atomic_store_n(avail_event, last, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return last != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE);
}

static void *net_receive(void *unused)
{
    struct vring_desc *desc;
    uint16_t last = 0;
    uint64_t value;

    for (;;) {
        char *buffer;
        ssize_t size;

        while (!net.queues[0].ready || !net_waits(0, last))
            if (read(net.kicks[0], &value, sizeof value) < 0)
                die("eventfd");
        buffer = net_buffer(0, last, &desc);
        size = recv(net.sock, buffer, desc->len - NET_HEADER, 0);
        if (size < 0)
            die("recv");
        memset(buffer - NET_HEADER, 0, NET_HEADER);
        buffer[-2] = 1; /* num_buffers */
        net_used(0, last++, desc, (uint32_t)size + NET_HEADER);
    }
    (void)unused;
    return NULL;
}

static void *net_transmit(void *unused)
{
    struct vring_desc *desc;
    uint16_t last = 0;
    uint64_t value;

    while (read(net.kicks[1], &value, sizeof value) == sizeof value)
        while (net.queues[1].ready && net_waits(1, last)) {
            char *buffer = net_buffer(1, last, &desc);

            if (send(net.sock, buffer, desc->len - NET_HEADER, 0) < 0)
                die("send");
            net_used(1, last++, desc, 0);
        }
    (void)unused;
    die("eventfd");
    return NULL;
}

static char *net_area(uint32_t reg)
{
    return net.m.memory + (net.registers[reg / 4] | (uint64_t)net.registers[reg / 4 + 1] << 32);
}

static void net_register(struct kvm_run *run)
{
    uint64_t offset = run->mmio.phys_addr - net.base;
    uint32_t *reg = &net.registers[offset / 4], value;
    int queue = net.registers[VIRTIO_MMIO_QUEUE_SEL / 4] & 1;

    if (run->exit_reason != KVM_EXIT_MMIO || offset >= sizeof net.registers)
        return;
    memcpy(&value, run->mmio.data, sizeof value);
    if (!run->mmio.is_write) {
        memcpy(run->mmio.data, reg, sizeof *reg);
    } else if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
        __atomic_fetch_and(&net.registers[VIRTIO_MMIO_INTERRUPT_STATUS / 4], ~value, __ATOMIC_SEQ_CST);
    } else {
        *reg = value;
        if (offset == VIRTIO_MMIO_QUEUE_READY) {
            net.queues[queue].table = (void *)net_area(VIRTIO_MMIO_QUEUE_DESC_LOW);
            net.queues[queue].avail = (void *)net_area(VIRTIO_MMIO_QUEUE_AVAIL_LOW);
            net.queues[queue].used = (void *)net_area(VIRTIO_MMIO_QUEUE_USED_LOW);
            net.queues[queue].size = net.registers[VIRTIO_MMIO_QUEUE_NUM / 4];
            net.queues[queue].ready = 1;
        }
    }
}

static void nets(const char *sock, const char *base)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry;
    } routing = {.head = {.nr = 1}, .entry = {.gsi = 1, .type = KVM_IRQ_ROUTING_MSI}};
    struct kvm_irqfd irq = {.gsi = 1};
    pthread_t thread;
    long count;

    create(&net.m);
    net.base = strtoull(base, NULL, 0);
    net.sock = atoi(sock);
    net.registers[VIRTIO_MMIO_DEVICE_ID / 4] = 1;
    net.irq = eventfd(0, EFD_CLOEXEC);
    routing.entry.u.msi.address_lo = (uint32_t)guest.msi_address;
    routing.entry.u.msi.address_hi = (uint32_t)(guest.msi_address >> 32);
    routing.entry.u.msi.data = (uint32_t)guest.msi_data;
    call(net.m.vm, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
    irq.fd = (uint32_t)net.irq;
    call(net.m.vm, KVM_IRQFD, &irq, "KVM_IRQFD");
    for (int i = 0; i < 2; i++) {
        struct kvm_ioeventfd kick = {.len = 4, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH, .datamatch = (uint64_t)i};

        net.kicks[i] = eventfd(0, EFD_CLOEXEC);
        kick.addr = net.base + VIRTIO_MMIO_QUEUE_NOTIFY;
        kick.fd = net.kicks[i];
        call(net.m.vm, KVM_IOEVENTFD, &kick, "KVM_IOEVENTFD");
    }
    pthread_create(&thread, NULL, net_receive, NULL);
    pthread_create(&thread, NULL, net_transmit, NULL);
    while ((count = next_rounds())) {
        for (long i = -1; i < count; i++) {
            int64_t begin = now();

            do {
                enter(&net.m);
                check_alive(net.m.run);
                net_register(net.m.run);
            } while (!at_stamp(net.m.run));
            if (i >= 0)
                printf("%lld ", (long long)(now() - begin));
        }
        putchar('\n');
    }
    exit(0); /* the threads wait for good */
}

static void echoes(int sock)
{
    static char message[1 << 16];
    ssize_t size;

    while ((size = recv(sock, message, sizeof message, 0)) > 0)
        if (send(sock, message, (size_t)size, 0) < 0)
            break;
}

/* Started from here, a process has no large parent whose memory would count as its peak. */
static volatile int failed; /* the errno of a child that could not be started */

static pid_t launch(char **argv, int null)
{
    pid_t child = vfork();

    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive this program */
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        execvp(argv[0], argv);
        failed = errno;
        _exit(127);
    }
    return child;
}

static void spawns(char **argv)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    long count;

    if (null < 0)
        die("/dev/null");
    while ((count = next_rounds())) {
        for (long i = 0; i < count; i++) {
            struct rusage usage;
            int64_t begin = now();
            pid_t child;
            int status;

            child = launch(argv, null);
            if (child < 0 || wait4(child, &status, 0, &usage) < 0)
                die(argv[0]);
            if ((errno = failed))
                die(argv[0]);
            printf("%lld %ld %d ", (long long)(now() - begin), usage.ru_maxrss,
                   WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        }
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nor does this one outlive who asks it */

    if (!strcmp(mode, "spawn")) {
        spawns(argv + 2);
        return 0;
    }
    if (!strcmp(mode, "echo")) {
        echoes(atoi(argv[2]));
        return 0;
    }
    if (argc >= 3)
        load(argv[2]);
    if (!strcmp(mode, "batch") || !strcmp(mode, "console"))
        batches(!strcmp(mode, "console"), 0, 0);
    else if (!strcmp(mode, "serial"))
        serials();
    else if (!strcmp(mode, "touch") || !strcmp(mode, "uffd"))
        batches(0, 1, !strcmp(mode, "uffd"));
    else if (!strcmp(mode, "work"))
        works();
    else if (!strcmp(mode, "lifecycle"))
        lifecycle();
    else if ((!strcmp(mode, "reset") || !strcmp(mode, "rerun")) && argc == 4)
        resets(argv[3], !strcmp(mode, "rerun"));
    else if (!strcmp(mode, "disk") && argc == 5)
        disks(argv[3], argv[4]);
    else if (!strcmp(mode, "net") && argc == 5)
        nets(argv[3], argv[4]);
    else if (!strcmp(mode, "irqfd") || !strcmp(mode, "kick"))
        wakes(!strcmp(mode, "irqfd"));
    else {
        fprintf(stderr, "usage: floor batch|console|serial|touch|uffd|work|lifecycle|irqfd|kick GUEST, floor reset|rerun GUEST MSRS, floor disk GUEST FILE BASE, "
                        "floor net GUEST FD BASE, floor echo FD, floor spawn COMMAND...\n");
        return 2;
    }
    return 0;
}
