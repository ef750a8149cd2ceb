/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The C floor: what KVM itself costs, with nothing between the ioctl and the count. It runs the very guest that pyvmm
 * runs: `pyvmm bench` writes memory image, registers and CPUID to a file (struct header below) and this loads it.
 *
 *   floor exits GUEST N        run until N exits of any kind came; print ns per exit
 *   floor end GUEST            run until an OUT to the exit port; print total ns, exits
 *   floor console GUEST        the same, taking the bytes of port 0xe9
 *   floor coalesced GUEST      the same, with port 0xe9 coalesced (KVM_CAP_COALESCED_PIO)
 *   floor lifecycle GUEST N    N times: create VM, memory, vCPU; run to the first HLT; close; print ns each
 *   floor irqfd GUEST N        N times: eventfd write until the guest's OUT from its handler; print ns each (median)
 *   floor kick GUEST N         N times: KVM_SIGNAL_MSI until the halted guest's OUT; print ns each (median)
 *
 * Output: one line of numbers. Errors: one line on stderr, status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXIT_PORT 0xf4
#define CONSOLE_PORT 0xe9
#define MAX_CPUID 256

struct guest {
    uint64_t magic, memory_size, irqchip, image_offset, image_size, cpuid_count, msi_address, msi_data;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct {
        uint32_t nent, padding;
        struct kvm_cpuid_entry2 entries[MAX_CPUID];
    } cpuid;
};

struct vm {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    size_t run_size;
    void *memory;
};

static struct guest guest;
static void *image;

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

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (!file || fread(&guest, sizeof guest, 1, file) != 1 || guest.magic != 0x726f6f6c66 ||
        fseek(file, (long)guest.image_offset, SEEK_SET) != 0)
        die(path);
    image = malloc(guest.image_size);
    if (!image || fread(image, 1, guest.image_size, file) != guest.image_size)
        die(path);
    fclose(file);
    guest.cpuid.nent = (uint32_t)guest.cpuid_count;
}

static void create(struct vm *m)
{
    struct kvm_userspace_memory_region region = {0};

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
    if (guest.irqchip) {
        struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

        call(m->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_SPLIT_IRQCHIP");
    }
    m->vcpu = call(m->vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
    m->run_size = (size_t)call(m->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
    m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
    if (m->run == MAP_FAILED)
        die("mmap of kvm_run");
    call(m->vcpu, KVM_SET_CPUID2, &guest.cpuid, "KVM_SET_CPUID2");
    /* Pages of zeros stay untouched, as they do in pyvmm. */
    for (uint64_t at = 0; at < guest.image_size; at += 4096) {
        static const char zeros[4096];

        if (memcmp((char *)image + at, zeros, 4096))
            memcpy((char *)m->memory + at, (char *)image + at, 4096);
    }
    call(m->vcpu, KVM_SET_SREGS, &guest.sregs, "KVM_SET_SREGS");
    call(m->vcpu, KVM_SET_REGS, &guest.regs, "KVM_SET_REGS");
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

static int at_exit_port(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_IO && run->io.port == EXIT_PORT;
}

static void check_alive(const struct kvm_run *run)
{
    if (run->exit_reason != KVM_EXIT_IO && run->exit_reason != KVM_EXIT_MMIO && run->exit_reason != KVM_EXIT_HLT) {
        fprintf(stderr, "floor: the guest ended with exit reason %u\n", run->exit_reason);
        exit(1);
    }
}

static void run_exits(long count)
{
    struct vm m;
    int64_t begin;

    create(&m);
    enter(&m); /* the first entry builds what KVM builds lazily */
    begin = now();
    for (long i = 0; i < count; i++)
        enter(&m);
    begin = now() - begin;
    check_alive(m.run);
    printf("%.1f %ld\n", (double)begin / (double)count, count);
}

static void run_to_end(int console, int coalesced)
{
    static char taken[64 << 20];
    struct kvm_coalesced_mmio_ring *ring = NULL;
    size_t length = 0;
    long exits = 0;
    struct vm m;
    int64_t begin;

    create(&m);
    if (coalesced) {
        struct kvm_coalesced_mmio_zone zone = {.addr = CONSOLE_PORT, .size = 1, .pio = 1};
        int page = call(m.kvm, KVM_CHECK_EXTENSION, (void *)(uintptr_t)KVM_CAP_COALESCED_MMIO, "KVM_CAP_COALESCED_MMIO");

        call(m.vm, KVM_REGISTER_COALESCED_MMIO, &zone, "KVM_REGISTER_COALESCED_MMIO");
        ring = (void *)((char *)m.run + (size_t)page * 4096);
    }
    begin = now();
    for (;;) {
        enter(&m);
        exits++;
        while (ring && ring->first != ring->last) {
            taken[length++ % sizeof taken] = (char)ring->coalesced_mmio[ring->first].data[0];
            ring->first = (ring->first + 1) % ((4096 - sizeof *ring) / sizeof ring->coalesced_mmio[0]);
        }
        if (at_exit_port(m.run))
            break;
        check_alive(m.run);
        if (console && m.run->exit_reason == KVM_EXIT_IO && m.run->io.port == CONSOLE_PORT) {
            size_t bytes = (size_t)m.run->io.size * m.run->io.count;

            memcpy(taken + length % (sizeof taken - 4096), (char *)m.run + m.run->io.data_offset, bytes);
            length += bytes;
        }
    }
    printf("%lld %ld %zu\n", (long long)(now() - begin), exits, length);
}

static void lifecycle(long count)
{
    int64_t begin = now();

    for (long i = 0; i < count; i++) {
        struct vm m;

        create(&m);
        enter(&m);
        if (m.run->exit_reason != KVM_EXIT_HLT)
            check_alive(m.run);
        destroy(&m);
    }
    printf("%.1f %ld\n", (double)(now() - begin) / (double)count, count);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* The vCPU halts; another thread wakes it and waits for the OUT of its handler. Both ends use one eventfd pair. */
static struct vm woken;
static volatile int64_t handled_at;
static int ready_event, done_event;

static void *vcpu_thread(void *unused)
{
    uint64_t one = 1;

    (void)unused;
    for (;;) {
        enter(&woken);
        handled_at = now();
        if (at_exit_port(woken.run))
            return NULL;
        check_alive(woken.run);
        if (write(done_event, &one, sizeof one) < 0)
            die("eventfd");
    }
}

static void wakes(long count, int use_irqfd)
{
    int64_t *times = calloc((size_t)count, sizeof *times);
    struct kvm_msi msi = {.address_lo = (uint32_t)guest.msi_address,
                          .address_hi = (uint32_t)(guest.msi_address >> 32),
                          .data = (uint32_t)guest.msi_data};
    int irq_event = eventfd(0, EFD_CLOEXEC);
    pthread_t thread;
    uint64_t value;

    create(&woken);
    ready_event = eventfd(0, EFD_CLOEXEC);
    done_event = eventfd(0, EFD_CLOEXEC);
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
    if (read(done_event, &value, sizeof value) < 0) /* the guest has set itself up */
        die("eventfd");
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
        times[i] = handled_at - begin;
    }
    qsort(times, (size_t)count, sizeof *times, compare);
    printf("%lld %ld\n", (long long)times[count / 2], count);
    exit(0); /* the vCPU thread is in KVM_RUN for good */
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    long count = argc > 3 ? strtol(argv[3], NULL, 0) : 1;

    if (argc < 3 || count < 1) {
        fprintf(stderr, "usage: floor exits|end|console|coalesced|lifecycle|irqfd|kick GUEST [N]\n");
        return 2;
    }
    load(argv[2]);
    if (!strcmp(mode, "exits"))
        run_exits(count);
    else if (!strcmp(mode, "end") || !strcmp(mode, "console") || !strcmp(mode, "coalesced"))
        run_to_end(!strcmp(mode, "console"), !strcmp(mode, "coalesced"));
    else if (!strcmp(mode, "lifecycle"))
        lifecycle(count);
    else if (!strcmp(mode, "irqfd") || !strcmp(mode, "kick"))
        wakes(count, !strcmp(mode, "irqfd"));
    else
        return 2;
    return 0;
}
