/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The C beside the binding. It knows ioctl, signals and timers; it decides nothing about a guest.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/userfaultfd.h>
#include <linux/version.h>
#include <asm/kvm_para.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "pyvmm drives KVM on x86-64 only"
#endif

#define PAGE_BYTES 4096

/* Newer than the 6.1 header of Debian 12: structures and requests; plain numbers are guarded by cffi_build.py. */
#ifndef KVM_SET_USER_MEMORY_REGION2 /* Linux 6.8 */
struct kvm_userspace_memory_region2 {
    __u32 slot;
    __u32 flags;
    __u64 guest_phys_addr;
    __u64 memory_size;
    __u64 userspace_addr;
    __u64 guest_memfd_offset;
    __u32 guest_memfd;
    __u32 pad1;
    __u64 pad2[14];
};
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#endif
#ifndef KVM_MEM_GUEST_MEMFD /* Linux 6.8 */
#define KVM_MEM_GUEST_MEMFD (1UL << 2)
#endif
#ifndef KVM_CREATE_GUEST_MEMFD /* Linux 6.8 */
struct kvm_create_guest_memfd {
    __u64 size;
    __u64 flags;
    __u64 reserved[6];
};
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

#ifndef USERFAULTFD_IOC_NEW /* Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY /* Linux 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif

/* The unnamed members of kvm_run and kvm_vcpu_events, given names that cffi can hold. */
#define MEMBER(type, member) __typeof__(((struct type *)0)->member)
typedef MEMBER(kvm_run, hw) vmm_run_hw;
typedef MEMBER(kvm_run, fail_entry) vmm_run_fail_entry;
typedef MEMBER(kvm_run, ex) vmm_run_ex;
typedef MEMBER(kvm_run, io) vmm_run_io;
typedef MEMBER(kvm_run, debug) vmm_run_debug;
typedef MEMBER(kvm_run, mmio) vmm_run_mmio;
typedef MEMBER(kvm_run, hypercall) vmm_run_hypercall;
typedef MEMBER(kvm_run, tpr_access) vmm_run_tpr_access;
typedef MEMBER(kvm_run, internal) vmm_run_internal;
typedef MEMBER(kvm_run, emulation_failure) vmm_run_emulation_failure;
typedef MEMBER(kvm_run, system_event) vmm_run_system_event;
typedef MEMBER(kvm_run, eoi) vmm_run_eoi;
typedef MEMBER(kvm_run, msr) vmm_run_msr;
typedef MEMBER(kvm_run, notify) vmm_run_notify;
typedef MEMBER(kvm_run, s) vmm_run_sync;
/* Linux 6.8 names it memory_fault; the layout is that of the kernel document, section 5 (kvm_run). */
typedef struct {
    __u64 flags;
    __u64 gpa;
    __u64 size;
} vmm_run_memory_fault;
typedef struct kvm_irq_routing_irqchip vmm_route_irqchip;
typedef struct kvm_irq_routing_msi vmm_route_msi;
typedef MEMBER(kvm_irq_routing_entry, u) vmm_route_union;
typedef MEMBER(kvm_vcpu_events, exception) vmm_events_exception;
typedef MEMBER(kvm_vcpu_events, interrupt) vmm_events_interrupt;
typedef MEMBER(kvm_vcpu_events, nmi) vmm_events_nmi;
typedef MEMBER(kvm_vcpu_events, smi) vmm_events_smi;
typedef MEMBER(kvm_vcpu_events, triple_fault) vmm_events_triple_fault;

int vmm_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* Counts the ioctls from Python that are more than a question: who knows what a vCPU has (_snapshot.c) knows it until then. */
static __u64 told_elsewhere;

int vmm_ioctl(int fd, unsigned long request, void *argument)
{
    int result;

    if (_IOC_DIR(request) != _IOC_READ)
        __atomic_fetch_add(&told_elsewhere, 1, __ATOMIC_RELAXED);
    result = ioctl(fd, request, argument);

    return result < 0 ? -errno : result;
}

int vmm_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    int result;

    __atomic_fetch_add(&told_elsewhere, 1, __ATOMIC_RELAXED);
    result = ioctl(fd, request, argument);

    return result < 0 ? -errno : result;
}

/* Takes the pages away from all that map them (KVM is told by its MMU notifier), and gives them back. */
int vmm_refault(void *address, size_t size)
{
    if (mprotect(address, size, PROT_NONE) || mprotect(address, size, PROT_READ | PROT_WRITE))
        return -errno;
    return 0;
}

/* Numbers that count up, as tables of pages and gates are made of. */
void vmm_counted_up(__u64 *to, __u64 first, __u64 step, __u32 count)
{
    for (__u32 i = 0; i < count; i++)
        to[i] = first + step * i;
}

/* Of all ioctls the one that a device calls per interrupt: its struct is not worth making in Python. */
int vmm_signal_msi(int fd, __u64 address, __u32 data)
{
    struct kvm_msi msi = {.address_lo = (__u32)address, .address_hi = (__u32)(address >> 32), .data = data};

    return vmm_ioctl(fd, KVM_SIGNAL_MSI, &msi);
}

/* Every kvm_run that is mapped, so that a child by fork does not share it: there, writes of ours would reach the vCPU of
 * the parent. It gets a page of its own in place of each, and KVM_RUN is EIO to it anyhow. */
struct mapped_run {
    struct mapped_run *next;
    void *run;
    size_t size;
};

static struct mapped_run *mapped_runs;
static pthread_mutex_t mapped_runs_lock = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void)
{
    pthread_mutex_lock(&mapped_runs_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mapped_runs_lock);
}

static void after_fork_in_child(void)
{
    for (struct mapped_run *each = mapped_runs; each; each = each->next)
        mmap(each->run, each->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    pthread_mutex_unlock(&mapped_runs_lock);
}

/* struct kvm_run and the pages behind it; NULL with *ERROR set. The mapping keeps the vCPU alive, as a descriptor does. */
void *vmm_map_run(int vcpu_fd, size_t size, int *error)
{
    static int watched; /* pthread_once would do, but its version of glibc 2.34 runs on nothing older */
    struct mapped_run *new = malloc(sizeof *new);
    void *run = new ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0) : MAP_FAILED;

    *error = errno;
    if (run == MAP_FAILED) {
        free(new);
        return NULL;
    }
    *new = (struct mapped_run){.run = run, .size = size};
    pthread_mutex_lock(&mapped_runs_lock);
    if (!watched) {
        pthread_atfork(before_fork, after_fork, after_fork_in_child);
        watched = 1;
    }
    new->next = mapped_runs;
    mapped_runs = new;
    pthread_mutex_unlock(&mapped_runs_lock);
    return run;
}

void vmm_unmap_run(void *run, size_t size)
{
    struct mapped_run **at, *gone = NULL;

    pthread_mutex_lock(&mapped_runs_lock);
    for (at = &mapped_runs; *at; at = &(*at)->next)
        if ((*at)->run == run) {
            gone = *at;
            *at = gone->next;
            break;
        }
    munmap(run, size);
    pthread_mutex_unlock(&mapped_runs_lock);
    free(gone);
}

/* userfaultfd(2) has no wrapper in libc. */
int vmm_userfaultfd(int flags)
{
    int fd = (int)syscall(SYS_userfaultfd, flags);

    return fd < 0 ? -errno : fd;
}

/* Take one message, whose packed struct cffi cannot hold: 1 for a page fault, 0 for any other event. */
int vmm_userfaultfd_read(int fd, __u64 *address, __u64 *flags)
{
    struct uffd_msg message;
    ssize_t size = read(fd, &message, sizeof message);

    if (size < 0)
        return -errno;
    if (size != sizeof message)
        return -EIO;
    *address = message.arg.pagefault.address;
    *flags = message.arg.pagefault.flags;
    return message.event == UFFD_EVENT_PAGEFAULT;
}

int vmm_run(int vcpu_fd)
{
    return ioctl(vcpu_fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

/* The kvm_run that this thread is about to hand to KVM_RUN, so that the signal can mark it: immediate_exit set
 * by the handler makes a kick that lands just before the ioctl as good as one that lands inside it. */
static __thread struct kvm_run *volatile bound_run;

static int kick_signal(void)
{
    return SIGRTMIN + 5;
}

static void on_kick(int signal_number)
{
    struct kvm_run *run = bound_run;

    (void)signal_number;
    if (run)
        run->immediate_exit = 1;
}

int vmm_kick_install(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_kick; /* no SA_RESTART: KVM_RUN has to return */
    sigemptyset(&action.sa_mask);
    return sigaction(kick_signal(), &action, NULL) < 0 ? -errno : 0;
}

int vmm_thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

int vmm_kick(int thread_id)
{
    return syscall(SYS_tgkill, getpid(), thread_id, kick_signal()) < 0 ? -errno : 0;
}

/* What the calling thread has bound: a handler of one guest may run another, and has to put this back. */
void *vmm_run_bound(void)
{
    return bound_run;
}

/* Bind RUN (or NULL) to the calling thread and, for RUN, open its signal mask for the kick. */
void vmm_run_bind(void *run)
{
    sigset_t set;

    bound_run = run;
    if (!run)
        return;
    sigemptyset(&set);
    sigaddset(&set, kick_signal());
    sigprocmask(SIG_UNBLOCK, &set, NULL); /* of this thread alone on Linux, as pthread_sigmask, which is glibc 2.32's */
}

/* A timer whose signal goes to the calling thread, and to no other. By the kernel's own calls and number, timer_create(2):
 * the functions of glibc 2.34 have a version of their own, and a wheel that needs it runs on nothing older. */
int vmm_timer_start(void **timer, long long first_ns, long long interval_ns)
{
    struct itimerspec when = {
        .it_interval = {interval_ns / 1000000000, interval_ns % 1000000000},
        .it_value = {first_ns / 1000000000, first_ns % 1000000000},
    };
    struct sigevent event;
    int id;

    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kick_signal();
#ifdef sigev_notify_thread_id
    event.sigev_notify_thread_id = vmm_thread_id();
#else
    event._sigev_un._tid = vmm_thread_id();
#endif
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) < 0)
        return -errno;
    if (syscall(SYS_timer_settime, id, 0, &when, NULL) < 0) {
        int error = errno;

        syscall(SYS_timer_delete, id);
        return -error;
    }
    *timer = (void *)(intptr_t)id;
    return 0;
}

int vmm_timer_delete(void *timer)
{
    return syscall(SYS_timer_delete, (int)(intptr_t)timer) < 0 ? -errno : 0;
}
