/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The state that KVM has of a VM, in the structures that it gives, and the bytes of its memory: taken once, put back any
 * number of times by one call each. What is put back of memory is what was written since: pages of KVM's dirty log, which
 * knows the guest and KVM itself, and pages marked by whoever of ours writes guest memory. Row reset of the bench shows it.
 *
 * It knows ioctls and addresses of the host; devices, and what a snapshot is for, are vmm/machine/snapshot/.
 * Source: Documentation/virt/kvm/api.rst; the order is the one that vmm/machine/context.py explains.
 */
#define MAX_SPACES 4 /* sets of memslots; KVM has two: SMM's is the second */
#define CHIPS 3
#ifndef MOST_MSRS
#define MOST_MSRS 255 /* in one KVM_SET_MSRS: fewer than MAX_IO_MSRS of arch/x86/kvm/x86.c */
#endif
#define ZEROED 2 /* MSRs whose old value must not meet what the guest has left behind them */

struct saved_vcpu {
    int fd;
    struct kvm_run *run;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
#ifdef KVM_GET_SREGS2
    struct kvm_sregs2 sregs2;
#endif
    void *xsave; /* or struct kvm_fpu */
    __u32 xsave_bytes;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_msrs *msrs; /* those that KVM takes back */
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp_state;
    struct kvm_nested_state *nested, *nested_now;
    struct vmm_saved_stats stats;
    __u64 flushed, flushed_one; /* by those, when it was put back last */
    __u64 known; /* `told_elsewhere` when it was put back last by the next run */
};

/* `due` are pages whose bytes may differ from the copy, each once: `is_due` has a byte for each page of the slot. */
struct saved_slot {
    struct vmm_saved_slot is;
    __u64 *log; /* KVM's, of one space at a time */
    __u64 *due, due_count;
    __u8 *is_due;
};

struct vmm_saved {
    struct vmm_saved_shape shape;
    struct saved_vcpu *vcpus;
    struct kvm_irqchip chips[CHIPS];
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    struct saved_slot *slots;
    __u32 slot_count;
    __u64 shadows; /* shadow pages made, when it was put back last */
    struct vmm_saved *next; /* a ring of all that stand on the same memslots: KVM tells each write once */
    const char *failed; /* the ioctl that was refused */
};

/* Of all rings: one may be given back by a thread while another puts one of its ring. */
static pthread_mutex_t rings = PTHREAD_MUTEX_INITIALIZER;

/* An ioctl, by its name where it fails; -errno. */
static int asked(struct vmm_saved *saved, int fd, unsigned long request, void *argument, const char *name)
{
    int result = ioctl(fd, request, argument);

    if (result >= 0)
        return result;
    saved->failed = name;
    return -errno;
}
#define ASK(fd, request, argument) asked(saved, fd, request, argument, #request)
#define TRY(fd, request, argument) /* not by ASK: its #request would be the number that the name stands for */ \
    do {                                                                                                      \
        int result = asked(saved, fd, request, argument, #request);                                           \
        if (result < 0)                                                                                       \
            return result;                                                                                    \
    } while (0)

/* -- making and giving back */

void vmm_saved_free(struct vmm_saved *saved)
{
    struct vmm_saved *before = saved;

    pthread_mutex_lock(&rings);
    while (before->next != saved)
        before = before->next;
    before->next = saved->next;
    pthread_mutex_unlock(&rings);
    for (__u32 i = 0; saved->vcpus && i < saved->shape.vcpus; i++) {
        free(saved->vcpus[i].xsave);
        free(saved->vcpus[i].msrs);
        free(saved->vcpus[i].nested);
        free(saved->vcpus[i].nested_now);
    }
    for (__u32 i = 0; i < saved->slot_count; i++) {
        free(saved->slots[i].log);
        free(saved->slots[i].due);
        free(saved->slots[i].is_due);
    }
    free(saved->slots);
    free(saved->vcpus);
    free(saved);
}

static void *blank(size_t count, size_t size, int *lack)
{
    void *made = calloc(count + 1, size); /* never nothing */

    if (!made)
        *lack = 1;
    return made;
}

/* Room for the state of a VM of this shape, whose vCPUs have these descriptors and kvm_run; NULL: no memory. */
struct vmm_saved *vmm_saved_new(const struct vmm_saved_shape *shape, const int *vcpus, struct kvm_run **runs,
                                const struct vmm_saved_stats *stats, const struct vmm_saved_slot *slots, __u32 slot_count)
{
    int lack = 0;
    struct vmm_saved *saved = calloc(1, sizeof *saved);

    if (!saved)
        return NULL;
    saved->shape = *shape;
    saved->next = saved;
    saved->vcpus = blank(shape->vcpus, sizeof *saved->vcpus, &lack);
    saved->slots = blank(slot_count, sizeof *saved->slots, &lack);
    for (__u32 i = 0; !lack && i < shape->vcpus; i++) {
        struct saved_vcpu *vcpu = &saved->vcpus[i];

        vcpu->fd = vcpus[i];
        vcpu->run = runs[i];
        vcpu->stats = stats[i];
        vcpu->known = ~0ULL;
        vcpu->xsave_bytes = shape->xsave_bytes ? shape->xsave_bytes : sizeof(struct kvm_fpu);
        vcpu->xsave = blank(1, vcpu->xsave_bytes, &lack);
        vcpu->msrs = blank(1, sizeof *vcpu->msrs + (ZEROED + shape->msrs) * sizeof(struct kvm_msr_entry), &lack);
        if (shape->nested_bytes) {
            vcpu->nested = blank(1, shape->nested_bytes, &lack);
            vcpu->nested_now = blank(1, shape->nested_bytes, &lack);
        }
    }
    for (__u32 i = 0; !lack && i < slot_count; i++) {
        struct saved_slot *slot = &saved->slots[saved->slot_count++];

        slot->is = slots[i];
        slot->log = blank((slots[i].size / PAGE_BYTES + 63) / 64, sizeof(__u64), &lack);
        slot->due = blank(slots[i].size / PAGE_BYTES, sizeof(__u64), &lack);
        slot->is_due = blank(slots[i].size / PAGE_BYTES, 1, &lack);
    }
    if (!lack)
        return saved;
    vmm_saved_free(saved);
    return NULL;
}

const char *vmm_saved_failed(struct vmm_saved *saved)
{
    return saved->failed ? saved->failed : "";
}

/* The bytes of one part, of vCPU INDEX where it is a vCPU's; NULL: the VM has none. */
void *vmm_saved_part(struct vmm_saved *saved, int part, __u32 index, __u64 *size)
{
    struct saved_vcpu *vcpu = &saved->vcpus[index];

#define PART(number, pointer, bytes) \
    case number:                     \
        *size = (bytes);             \
        return (pointer)
    switch (part) {
    PART(VMM_SAVED_REGS, &vcpu->regs, sizeof vcpu->regs);
#ifdef KVM_GET_SREGS2
    PART(VMM_SAVED_SREGS, saved->shape.sregs2 ? (void *)&vcpu->sregs2 : &vcpu->sregs,
         saved->shape.sregs2 ? sizeof vcpu->sregs2 : sizeof vcpu->sregs);
#else
    PART(VMM_SAVED_SREGS, &vcpu->sregs, sizeof vcpu->sregs);
#endif
    PART(VMM_SAVED_XSAVE, vcpu->xsave, vcpu->xsave_bytes);
    PART(VMM_SAVED_XCRS, saved->shape.xcrs ? &vcpu->xcrs : NULL, sizeof vcpu->xcrs);
    PART(VMM_SAVED_DEBUGREGS, &vcpu->debugregs, sizeof vcpu->debugregs);
    PART(VMM_SAVED_EVENTS, &vcpu->events, sizeof vcpu->events);
    PART(VMM_SAVED_MSRS, vcpu->msrs, sizeof *vcpu->msrs + (ZEROED + saved->shape.msrs) * sizeof(struct kvm_msr_entry));
    PART(VMM_SAVED_LAPIC, saved->shape.lapic ? &vcpu->lapic : NULL, sizeof vcpu->lapic);
    PART(VMM_SAVED_MP_STATE, saved->shape.lapic ? &vcpu->mp_state : NULL, sizeof vcpu->mp_state);
    PART(VMM_SAVED_NESTED, vcpu->nested, saved->shape.nested_bytes);
    PART(VMM_SAVED_CHIPS, saved->shape.chips ? saved->chips : NULL, sizeof saved->chips);
    PART(VMM_SAVED_PIT, saved->shape.pit ? &saved->pit : NULL, sizeof saved->pit);
    PART(VMM_SAVED_CLOCK, &saved->clock, sizeof saved->clock);
    }
#undef PART
    return NULL;
}

/* -- taking */

/* Those of COUNT MSRs that KVM gives, behind those that are made 0 first. KVM_GET_MSRS stops at the first that it refuses,
 * so what is left is asked again. */
static void take_msrs(struct saved_vcpu *vcpu, const __u32 *zeroed, const __u32 *indices, __u32 count)
{
    struct kvm_msrs *msrs = vcpu->msrs;
    struct kvm_msr_entry *to = msrs->entries;

    for (int i = 0; i < ZEROED && zeroed[i]; i++)
        *to++ = (struct kvm_msr_entry){.index = zeroed[i]};

    for (__u32 i = 0; i < count; i++)
        to[i] = (struct kvm_msr_entry){.index = indices[i]};
    for (__u32 first = 0; first < count;) {
        struct { struct kvm_msrs head; struct kvm_msr_entry entry; } one = {.head.nmsrs = 1};

        one.entry = to[first];
        if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) == 1)
            to[first++] = one.entry;
        else
            memmove(to + first, to + first + 1, (--count - first) * sizeof *to);
    }
    msrs->nmsrs = (__u32)(to - msrs->entries) + count;
}

static int take_vcpu(struct vmm_saved *saved, struct saved_vcpu *vcpu, const __u32 *msrs)
{
    const struct vmm_saved_shape *shape = &saved->shape;

    TRY(vcpu->fd, KVM_GET_REGS, &vcpu->regs);
#ifdef KVM_GET_SREGS2
    if (shape->sregs2)
        TRY(vcpu->fd, KVM_GET_SREGS2, &vcpu->sregs2);
    else
#endif
        TRY(vcpu->fd, KVM_GET_SREGS, &vcpu->sregs);
    if (shape->xsave2)
        TRY(vcpu->fd, KVM_GET_XSAVE2, vcpu->xsave);
    else if (shape->xsave_bytes)
        TRY(vcpu->fd, KVM_GET_XSAVE, vcpu->xsave);
    else
        TRY(vcpu->fd, KVM_GET_FPU, vcpu->xsave);
    if (shape->xcrs)
        TRY(vcpu->fd, KVM_GET_XCRS, &vcpu->xcrs);
    TRY(vcpu->fd, KVM_GET_DEBUGREGS, &vcpu->debugregs);
    TRY(vcpu->fd, KVM_GET_VCPU_EVENTS, &vcpu->events);
    if (shape->lapic) {
        TRY(vcpu->fd, KVM_GET_LAPIC, &vcpu->lapic);
        TRY(vcpu->fd, KVM_GET_MP_STATE, &vcpu->mp_state);
    }
    if (vcpu->nested) {
        vcpu->nested->size = shape->nested_bytes;
        TRY(vcpu->fd, KVM_GET_NESTED_STATE, vcpu->nested);
    }
    take_msrs(vcpu, shape->zeroed, msrs, shape->msrs);
    return 0;
}

/* What KVM has now, but for memory: 0, or -errno and vmm_saved_failed. No vCPU runs. */
int vmm_saved_take(struct vmm_saved *saved, const __u32 *msrs)
{
    const struct vmm_saved_shape *shape = &saved->shape;

    for (int i = 0; shape->chips && i < CHIPS; i++) {
        saved->chips[i].chip_id = (__u32)i; /* both PICs and the IOAPIC, in this order */
        TRY(shape->vm, KVM_GET_IRQCHIP, &saved->chips[i]);
    }
    if (shape->pit)
        TRY(shape->vm, KVM_GET_PIT2, &saved->pit);
    for (__u32 i = 0; i < shape->vcpus; i++) {
        int result = take_vcpu(saved, &saved->vcpus[i], msrs);

        if (result < 0)
            return result;
    }
    TRY(shape->vm, KVM_GET_CLOCK, &saved->clock);
    saved->clock.flags = 0; /* KVM_SET_CLOCK takes the time as it stands */
    return 0;
}

/* Copy pages that the host has; those that were never touched are zeros, and stay untouched at both ends. PAGEMAP is
 * /proc/self/pagemap, or -1: then each page is looked at. Bytes that were copied. */
__u64 vmm_copy_touched(void *to, const void *from, __u64 size, int pagemap)
{
    static const char zeros[PAGE_BYTES];
    const __u64 there = 3ULL << 62; /* present, or swapped out */
    __u64 copied = 0, known[512];
    __u64 first = (uintptr_t)from / PAGE_BYTES;

    for (__u64 page = 0; page < size / PAGE_BYTES; page++) {
        const char *source = (const char *)from + page * PAGE_BYTES;
        int wanted;

        if (pagemap >= 0 && page % 512 == 0 &&
            pread(pagemap, known, sizeof known, (off_t)((first + page) * sizeof *known)) <= 0)
            pagemap = -1;
        wanted = pagemap >= 0 ? !!(known[page % 512] & there) : memcmp(source, zeros, PAGE_BYTES) != 0;
        if (!wanted)
            continue;
        memcpy((char *)to + page * PAGE_BYTES, source, PAGE_BYTES);
        copied += PAGE_BYTES;
    }
    return copied;
}

/* -- putting back */

/* As many by one call as KVM takes. One that KVM gives and does not take (it stops there, and says how far it came) is left
 * out from then on, if the guest could not change it either: its value is still the one that was taken. */
static int put_msrs(struct vmm_saved *saved, struct saved_vcpu *vcpu)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entries[MOST_MSRS]; } part;
    struct kvm_msrs *msrs = vcpu->msrs;
    __u32 done = 0;

    part.head.pad = 0;
    while (done < msrs->nmsrs) {
        struct { struct kvm_msrs head; struct kvm_msr_entry entry; } one = {.head.nmsrs = 1};
        __u32 left = msrs->nmsrs - done;
        int set;

        part.head.nmsrs = left < MOST_MSRS ? left : MOST_MSRS;
        memcpy(part.entries, msrs->entries + done, part.head.nmsrs * sizeof *part.entries);
        if ((set = ASK(vcpu->fd, KVM_SET_MSRS, &part)) < 0)
            return set;
        done += (__u32)set;
        if ((__u32)set == part.head.nmsrs)
            continue;
        one.entry = msrs->entries[done];
        if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) != 1 || one.entry.data != msrs->entries[done].data) {
            saved->failed = "KVM_SET_MSRS";
            return -EINVAL;
        }
        msrs->nmsrs--;
        memmove(msrs->entries + done, msrs->entries + done + 1, (msrs->nmsrs - done) * sizeof *msrs->entries);
    }
    return 0;
}

/* Whether it is as it was: then it need not be left, and entered again. */
static int same_nested(struct saved_vcpu *vcpu)
{
    if (!vcpu->nested)
        return 1;
    vcpu->nested_now->size = ((struct kvm_nested_state *)vcpu->nested)->size;
    return vcpu->nested->size >= sizeof *vcpu->nested && !ioctl(vcpu->fd, KVM_GET_NESTED_STATE, vcpu->nested_now) &&
           !(vcpu->nested->flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING)) &&
           !memcmp(vcpu->nested, vcpu->nested_now, vcpu->nested->size);
}

static int put_nested(struct vmm_saved *saved, struct saved_vcpu *vcpu, int outside)
{
    struct kvm_nested_state head;

    if (!vcpu->nested)
        return 0;
    if (!outside)
        return ASK(vcpu->fd, KVM_SET_NESTED_STATE, vcpu->nested);
    memset(&head, 0, sizeof head);
    head.format = vcpu->nested->format;
    head.size = sizeof head;
    if (head.format == KVM_STATE_NESTED_FORMAT_SVM)
        head.flags = KVM_STATE_NESTED_GIF_SET;
    else
        head.hdr.vmx.vmxon_pa = head.hdr.vmx.vmcs12_pa = ~0ULL;
    return ASK(vcpu->fd, KVM_SET_NESTED_STATE, &head);
}

static __u64 cr8(const struct vmm_saved *saved, const struct saved_vcpu *vcpu)
{
#ifdef KVM_GET_SREGS2
    if (saved->shape.sregs2)
        return vcpu->sregs2.cr8;
#endif
    (void)saved;
    return vcpu->sregs.cr8;
}

/* Whether the special registers and the events that the last KVM_RUN has left in kvm_run are those that were taken, and
 * nobody has set any since. PDPTEs are in no kvm_run. */
static int same_in_run(const struct vmm_saved *saved, const struct saved_vcpu *vcpu)
{
    const struct kvm_sync_regs *now = &vcpu->run->s.regs;
    const void *sregs = &vcpu->sregs;

    if (vcpu->known != __atomic_load_n(&told_elsewhere, __ATOMIC_RELAXED))
        return 0;
#ifdef KVM_GET_SREGS2
    if (saved->shape.sregs2) {
        if (vcpu->sregs2.flags)
            return 0;
        sregs = &vcpu->sregs2; /* the same up to its flags */
    }
#endif
    (void)saved;
    return !memcmp(&now->sregs, sregs, offsetof(struct kvm_sregs, interrupt_bitmap)) &&
           !memcmp(&now->events, &vcpu->events, sizeof vcpu->events);
}

static int put_vcpu(struct vmm_saved *saved, struct saved_vcpu *vcpu, int how)
{
    const struct vmm_saved_shape *shape = &saved->shape;
    int by_run = how == VMM_PUT_BY_RUN && shape->synced, nested = !same_nested(vcpu);
    int same = by_run && !nested && same_in_run(saved, vcpu);
    int result;

    /* A guest in the guest that runs now would get the registers. */
    if (nested && (result = put_nested(saved, vcpu, 1)) < 0)
        return result;
    if (!same) {
#ifdef KVM_GET_SREGS2
        if (shape->sregs2)
            TRY(vcpu->fd, KVM_SET_SREGS2, &vcpu->sregs2);
        else
#endif
            TRY(vcpu->fd, KVM_SET_SREGS, &vcpu->sregs);
    }
    vcpu->run->cr8 = cr8(saved, vcpu); /* without a LAPIC of KVM's the next KVM_RUN takes it from there */
    if (shape->xcrs)
        TRY(vcpu->fd, KVM_SET_XCRS, &vcpu->xcrs);
    if (shape->xsave_bytes)
        TRY(vcpu->fd, KVM_SET_XSAVE, vcpu->xsave);
    else
        TRY(vcpu->fd, KVM_SET_FPU, vcpu->xsave);
    if (by_run) {
        vcpu->run->s.regs.regs = vcpu->regs;
        vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    } else {
        TRY(vcpu->fd, KVM_SET_REGS, &vcpu->regs);
    }
    if (shape->lapic)
        TRY(vcpu->fd, KVM_SET_LAPIC, &vcpu->lapic);
    if ((result = put_msrs(saved, vcpu)) < 0)
        return result;
    TRY(vcpu->fd, KVM_SET_DEBUGREGS, &vcpu->debugregs);
    if (nested && (result = put_nested(saved, vcpu, 0)) < 0) /* what is set by now says whether it may be */
        return result;
    if (!same)
        TRY(vcpu->fd, KVM_SET_VCPU_EVENTS, &vcpu->events);
    if (shape->lapic)
        TRY(vcpu->fd, KVM_SET_MP_STATE, &vcpu->mp_state);
    vcpu->known = by_run ? __atomic_load_n(&told_elsewhere, __ATOMIC_RELAXED) : ~0ULL;
    return 0;
}

/* From now on each KVM_RUN leaves registers in kvm_run, and takes those that are put back by it; or no more. */
void vmm_saved_sync(struct vmm_saved *saved, int on)
{
    const __u64 all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

    for (__u32 i = 0; saved->shape.synced && i < saved->shape.vcpus; i++) {
        saved->vcpus[i].run->kvm_valid_regs = on ? all : 0;
        saved->vcpus[i].run->kvm_dirty_regs = 0;
        saved->vcpus[i].known = ~0ULL;
    }
}

/* -- translations that KVM keeps

   Where KVM has tables of its own in place of the guest's (shadow pages: no second level of translation in the CPU, or a
   guest in the guest), it hears of a change of the guest's tables by the guest alone. Ours, as a page of a table is put
   back, would leave it with what the guest had made of it. So where in this turn such a page was made, is out of step, or
   was brought into step by a flush, KVM is made to forget what all of the memory is translated to (its MMU notifier). Its
   own tables of second level hang on no guest's, and the CPU's buffers are flushed by KVM_GET_DIRTY_LOG. */
static int counted(const struct vmm_saved_stats *stats, __u64 *first, __u64 *second)
{
    __u64 from = stats->first < stats->second ? stats->first : stats->second, between[64]; /* one call for both */
    __u64 size = stats->first + stats->second - 2 * from + sizeof *between;

    if (stats->fd < 0 || size > sizeof between || pread(stats->fd, between, size, (off_t)from) != (ssize_t)size)
        return 0;
    *first = between[(stats->first - from) / sizeof *between];
    *second = between[(stats->second - from) / sizeof *between];
    return 1;
}

static int translations_are_old(struct vmm_saved *saved)
{
    __u64 made, out_of_step, flushed, flushed_one;
    int old;

    if (!counted(&saved->shape.stats, &made, &out_of_step))
        return 1; /* nobody says */
    old = made != saved->shadows || out_of_step;
    saved->shadows = made;
    for (__u32 i = 0; made && i < saved->shape.vcpus; i++) {
        struct saved_vcpu *vcpu = &saved->vcpus[i];

        if (!counted(&vcpu->stats, &flushed, &flushed_one))
            return 1;
        /* One is that of what was put back last. */
        old |= flushed > vcpu->flushed + 1 || flushed_one != vcpu->flushed_one;
        vcpu->flushed = flushed;
        vcpu->flushed_one = flushed_one;
    }
    return old;
}

static int forget_translations(struct vmm_saved *saved)
{
    for (__u32 i = 0; i < saved->slot_count; i++) {
        const struct vmm_saved_slot *slot = &saved->slots[i].is;
        int result = vmm_refault((void *)(uintptr_t)slot->now, slot->size);

        if (result < 0) {
            saved->failed = "mprotect";
            return result;
        }
    }
    return 0;
}

static void is_due(struct saved_slot *slot, __u64 page)
{
    if (slot->is_due[page])
        return;
    slot->is_due[page] = 1;
    slot->due[slot->due_count++] = page;
}

static void due_for_all(struct vmm_saved *saved, __u32 index, __u64 page)
{
    struct vmm_saved *each = saved;

    do
        is_due(&each->slots[index], page);
    while ((each = each->next) != saved);
}

/* What was written since the last time, by KVM's log of each space and by our marks, is due for each of the ring. */
static int collect_slot(struct vmm_saved *saved, __u32 index)
{
    struct saved_slot *slot = &saved->slots[index];
    __u64 pages = slot->is.size / PAGE_BYTES, words = (pages + 63) / 64;

    for (__u32 space = 0; space < slot->is.spaces; space++) {
        struct kvm_dirty_log log = {.slot = space << 16 | slot->is.number, .dirty_bitmap = slot->log};

        TRY(saved->shape.vm, KVM_GET_DIRTY_LOG, &log);
        for (__u64 word = 0; word < words; word++)
            for (__u64 bits = slot->log[word]; bits; bits &= bits - 1)
                due_for_all(saved, index, word * 64 + (__u64)__builtin_ctzll(bits));
    }
    for (__u64 page = 0; *slot->is.marked && page < pages; page++)
        if (slot->is.touched[page]) {
            due_for_all(saved, index, page);
            slot->is.touched[page] = 0;
        }
    return 0;
}

static int collect_all(struct vmm_saved *saved)
{
    for (__u32 i = 0; i < saved->slot_count; i++) {
        int result = collect_slot(saved, i);

        if (result < 0)
            return result;
    }
    for (__u32 i = 0; i < saved->slot_count; i++) /* slots may share a mapping, and its mark */
        *saved->slots[i].is.marked = 0;
    return 0;
}

/* The pages that are due; to all others of the ring what is put there is a write. */
static long long put_slot(struct vmm_saved *saved, __u32 index)
{
    struct saved_slot *slot = &saved->slots[index];
    __u64 count = slot->due_count;

    for (__u64 i = 0; i < count; i++) {
        __u64 page = slot->due[i], at = page * PAGE_BYTES;

        memcpy((char *)(uintptr_t)slot->is.now + at, (char *)(uintptr_t)slot->is.then + at, PAGE_BYTES);
        for (struct vmm_saved *each = saved->next; each != saved; each = each->next)
            is_due(&each->slots[index], page);
        slot->is_due[page] = 0;
    }
    slot->due_count = 0;
    return (long long)count;
}

/* NEW stands on the same memslots as OLD, or OLD is NULL: writes are told from now on. What was written before is due for
 * the others alone; the caller has made the copy of NEW, and nothing runs. */
int vmm_saved_begin(struct vmm_saved *new, struct vmm_saved *old)
{
    int result;

    pthread_mutex_lock(&rings);
    if (old) {
        new->next = old->next;
        old->next = new;
    }
    result = collect_all(new);
    for (__u32 i = 0; result == 0 && i < new->slot_count; i++) {
        struct saved_slot *slot = &new->slots[i];

        memset(slot->is_due, 0, slot->is.size / PAGE_BYTES);
        slot->due_count = 0;
    }
    pthread_mutex_unlock(&rings);
    return result;
}

/* KVM counts ticks that the guest has not taken yet, where no state shows them, and forgets them as a timer is begun alone:
 * so one is, that ends 55 ms from now, or as the PIT is put back. Before the controllers: a tick that is on its way now
 * would come into them afterwards. */
static int end_ticks(struct vmm_saved *saved)
{
    struct kvm_pit_state2 begun = saved->pit;

    begun.channels[0].mode = 0;
    begun.channels[0].count = 0; /* 65536 */
    TRY(saved->shape.vm, KVM_SET_PIT2, &begun);
    return 0;
}

/* Everything is as it was taken: pages that were put back, or -errno and vmm_saved_failed. No vCPU runs, and none is
 * inside of an exit. HOW is VMM_PUT_*. */
long long vmm_saved_put(struct vmm_saved *saved, int how)
{
    const struct vmm_saved_shape *shape = &saved->shape;
    long long put = 0;
    int result;

    saved->failed = NULL;
    if (how != VMM_PUT_BY_RUN)
        __atomic_fetch_add(&told_elsewhere, 1, __ATOMIC_RELAXED);
    if (shape->pit && (result = end_ticks(saved)) < 0)
        return result;
    for (int i = 0; shape->chips && i < CHIPS; i++)
        TRY(shape->vm, KVM_SET_IRQCHIP, &saved->chips[i]);
    if (shape->pit)
        TRY(shape->vm, KVM_SET_PIT2, &saved->pit);
    for (__u32 i = 0; i < shape->vcpus; i++)
        if ((result = put_vcpu(saved, &saved->vcpus[i], how)) < 0)
            return result;
    pthread_mutex_lock(&rings);
    result = collect_all(saved); /* so late: some MSRs write to memory as they are set */
    for (__u32 i = 0; result == 0 && i < saved->slot_count; i++)
        put += put_slot(saved, i);
    if (result == 0 && put && translations_are_old(saved))
        result = forget_translations(saved);
    pthread_mutex_unlock(&rings);
    if (result < 0)
        return result;
    TRY(shape->vm, KVM_SET_CLOCK, &saved->clock);
    return put;
}
#undef ASK
#undef TRY
