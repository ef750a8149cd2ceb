/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The start, a run's frame and the end of a VM in its plainest shape (one vCPU, one memslot, no interrupt controller), in
 * one call each: from Python they are some hundred, each of which meets cold caches behind KVM's ioctls. Rows lifecycle
 * and hello of the bench show it. It reports nothing: where a call fails, all is given back, and who asked takes the way
 * of one ioctl at a time (system.py, vm.py, vcpu.py), which says which call it was and why.
 */
static void close_one(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Give all of it back, in the one safe order: the vCPU lives as long as its mapping, and the VM's memory is the caller's
 * to unmap afterwards. Idempotent; one of zeros has nothing. */
void vmm_plain_close(struct vmm_plain *plain)
{
    if (!plain->open)
        return;
    plain->open = 0;
    if (plain->run) {
        if (bound_run == plain->run)
            bound_run = NULL;
        vmm_unmap_run(plain->run, plain->run_size);
    }
    plain->run = NULL;
    close_one(plain->vcpu);
    close_one(plain->vm);
    close_one(plain->kvm);
    plain->kvm = plain->vm = plain->vcpu = -1;
}

/* Put each piece into SIZE bytes of memory: a struct vmm_piece, and its bytes. 0, or -EFAULT for what is no memory. */
static int put_pieces(__u8 *memory, __u64 size, const __u8 *image, __u64 length)
{
    struct vmm_piece piece;

    for (; length; image += piece.size, length -= piece.size) {
        if (length < sizeof piece)
            return -EFAULT;
        memcpy(&piece, image, sizeof piece);
        image += sizeof piece;
        length -= sizeof piece;
        if (piece.size > length || piece.size > size || piece.gpa > size - piece.size)
            return -EFAULT;
        memcpy(memory + piece.gpa, image, piece.size);
    }
    return 0;
}

/* What KVM answers to each plain machine alike, the first of a process has asked: a call for a vCPU takes as long as
 * loading it does (row lifecycle). `first` is a vCPU of theirs as it was made. Several may ask at once, and hear the same. */
static struct {
    int has_sizes, run_size, spaces;
    int has_first;
    struct kvm_sregs first;
} answers;

static int known(const int *has)
{
    return __atomic_load_n(has, __ATOMIC_ACQUIRE);
}

static void know(int *has)
{
    __atomic_store_n(has, 1, __ATOMIC_RELEASE);
}

/* Bytes of kvm_run, and sets of memslots; this is the KVM whose header we know. 0 or -errno. */
static int ask_sizes(int kvm, int vm)
{
    int size, spaces;

    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return -EINVAL;
    if ((size = vmm_ioctl_value(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)) <= 0)
        return -EINVAL;
    /* A vCPU in SMM has an address space of its own, with the same memory in it. */
    spaces = vmm_ioctl_value(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);
    answers.run_size = size;
    answers.spaces = spaces < 1 ? 1 : spaces;
    know(&answers.has_sizes);
    return 0;
}

static int made(struct vmm_plain *plain, void *memory, __u64 size, void *cpuid)
{
    struct kvm_userspace_memory_region region = {.memory_size = size, .userspace_addr = (uintptr_t)memory};
    int error;

    if ((plain->kvm = vmm_open("/dev/kvm", O_RDWR)) < 0)
        return plain->kvm;
    if ((plain->vm = vmm_ioctl_value(plain->kvm, KVM_CREATE_VM, 0)) < 0)
        return plain->vm;
    if (!known(&answers.has_sizes) && (error = ask_sizes(plain->kvm, plain->vm)) < 0)
        return error;
    plain->run_size = answers.run_size;
    plain->spaces = answers.spaces;
    for (int space = 0; space < plain->spaces; space++) {
        region.slot = (__u32)space << 16;
        if ((error = vmm_ioctl(plain->vm, KVM_SET_USER_MEMORY_REGION, &region)) < 0)
            return error;
    }
    if ((plain->vcpu = vmm_ioctl_value(plain->vm, KVM_CREATE_VCPU, 0)) < 0)
        return plain->vcpu;
    plain->run = vmm_map_run(plain->vcpu, (size_t)plain->run_size, &error);
    if (!plain->run)
        return -error;
    return cpuid ? vmm_ioctl(plain->vcpu, KVM_SET_CPUID2, cpuid) : 0;
}

/* A VM over SIZE bytes at MEMORY, and its vCPU, whose core takes what is written to the port CONSOLE and which has CPUID, a
 * struct kvm_cpuid2; NULL: nobody has asked for one yet. 0, or -errno and nothing is open. */
int vmm_plain_make(struct vmm_plain *plain, struct vmm_core *core, struct vmm_finish *finish, __u32 console,
                   void *memory, __u64 size, void *cpuid)
{
    int error;

    memset(plain, 0, sizeof *plain);
    plain->kvm = plain->vm = plain->vcpu = -1;
    plain->pid = getpid();
    plain->open = 1;
    error = made(plain, memory, size, cpuid);
    if (error < 0) {
        vmm_plain_close(plain);
        return error;
    }
    vmm_finish_init(finish);
    finish->sink_port = console;
    vmm_core_init(core, plain->vcpu, plain->run, finish);
    return 0;
}

/* Registers of a vCPU that starts and has not run; CR8, the APIC base and an injected interrupt stay (Vcpu.start_sregs).
 * 0 or -errno. */
static int start(struct vmm_plain *plain, const struct kvm_sregs *sregs, const struct kvm_regs *regs)
{
    struct kvm_sregs first = *sregs;
    int error;

    if (!known(&answers.has_first)) {
        if ((error = vmm_ioctl(plain->vcpu, KVM_GET_SREGS, &answers.first)) < 0)
            return error;
        know(&answers.has_first);
    }
    first.cr8 = answers.first.cr8;
    first.apic_base = answers.first.apic_base;
    memcpy(first.interrupt_bitmap, answers.first.interrupt_bitmap, sizeof first.interrupt_bitmap);
    if ((error = vmm_ioctl(plain->vcpu, KVM_SET_SREGS, &first)) < 0)
        return error;
    return vmm_ioctl(plain->vcpu, KVM_SET_REGS, (void *)regs);
}

/* What a VM begins with: the pieces of IMAGE, CODE at BASE, and the registers of its vCPU. 0 or -errno. */
int vmm_plain_load(struct vmm_plain *plain, void *memory, __u64 size, const void *image, __u64 length, __u64 base,
                   const void *code, __u64 code_size, const void *sregs, const void *regs)
{
    int error = put_pieces(memory, size, image, length);

    if (error < 0)
        return error;
    if (code_size > size || base > size - code_size)
        return -EFAULT;
    memcpy((__u8 *)memory + base, code, code_size);
    return start(plain, sregs, regs);
}

/* Around a run, on its thread: the core as before the first exit, the bytes that its console takes, the signal that ends
 * KVM_RUN, whom it marks, and the timer that sends it. 0 or -errno; either way vmm_plain_end undoes it. */
static int begin(struct vmm_plain *plain, struct vmm_core *core, __u32 room, long long first_ns, long long interval_ns)
{
    static int installed;
    int error;

    vmm_core_reset(core);
    core->attention = 0; /* who makes it whole sets it */
    core->finish->sink_room = room;
    plain->before = bound_run;
    plain->begun = 1;
    if (!installed) {
        if ((error = vmm_kick_install()) < 0)
            return error;
        installed = 1;
    }
    vmm_run_bind(plain->run);
    plain->thread = vmm_thread_id(); /* last: a kick needs a thread that has bound something */
    error = vmm_timer_start(&plain->timer, first_ns, interval_ns);
    plain->timed = error == 0;
    return error;
}

/* Begin a run, which a timer kicks after FIRST seconds and then each INTERVAL, and serve it: what vmm_core_serve gives, or
 * VMM_UNBEGUN. vmm_plain_end ends it, whatever came. */
long long vmm_plain_run(struct vmm_plain *plain, struct vmm_core *core, __u64 room, double first, double interval)
{
    long long first_ns = (long long)(first * 1e9);

    if (getpid() != plain->pid) /* a child by fork, whom KVM does not serve */
        return VMM_UNBEGUN;
    if (first_ns < 1000)
        first_ns = 1000;
    if (room > VMM_STAGING)
        room = VMM_STAGING;
    if (begin(plain, core, (__u32)room, first_ns, (long long)(interval * 1e9)) < 0)
        return VMM_UNBEGUN;
    return vmm_core_serve(core);
}

void vmm_plain_end(struct vmm_plain *plain)
{
    plain->thread = 0;
    if (plain->timed)
        vmm_timer_delete(plain->timer);
    plain->timed = 0;
    if (plain->begun)
        vmm_run_bind(plain->before);
    plain->begun = 0;
}
