/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that lies prepared, from the opening of /dev/kvm to the end of its VM in one call: a run of a plain machine
 * (_plain.c) at whose parts nobody looks. It knows what has ended well, and gives up on everything else, before anybody
 * has seen anything of it: the way that is for every guest then starts it anew.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct vmm_state { __u64 bytes, changed; }; /* of a file, the second in ns; all ones: there is none */

/* Is each file as it was? `paths` are one after the other, each with its 0; `states` has SIZE bytes. */
int vmm_unchanged(const char *paths, const void *states, __u64 size)
{
    for (__u64 at = 0; at + sizeof(struct vmm_state) <= size; at += sizeof(struct vmm_state)) {
        struct vmm_state then, now = {~0ULL, ~0ULL};
        struct stat found;

        memcpy(&then, (const __u8 *)states + at, sizeof then);
        /* The call itself: stat is a function of glibc 2.33, and a wheel also runs with what is older. */
        if (syscall(SYS_newfstatat, AT_FDCWD, paths, &found, 0) == 0) {
            now.bytes = (__u64)found.st_size;
            now.changed = (__u64)found.st_mtim.tv_sec * 1000000000 + (__u64)found.st_mtim.tv_nsec;
        }
        if (now.bytes != then.bytes || now.changed != then.changed)
            return 0;
        paths += strlen(paths) + 1;
    }
    return 1;
}

/* Does KVM offer what it did, each word of which MASK says it counts? All three are a struct kvm_cpuid2. */
static int offers(int kvm, const __u32 *offer, const __u32 *mask, __u32 length)
{
    struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[VMM_OFFERED]; } now;
    const __u32 *words = (const __u32 *)&now;
    __u32 i;

    memset(&now, 0, sizeof now);
    now.head.nent = VMM_OFFERED;
    if (vmm_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &now) < 0)
        return 0;
    if (length != sizeof now.head + now.head.nent * sizeof now.entries[0])
        return 0;
    for (i = 0; i < length / sizeof *words; i++)
        if ((words[i] & mask[i]) != offer[i])
            return 0;
    return 1;
}

/* Run it: 1 and it has ended in time, and as it is to: by that exit, or by HLT where `exit_key` is VMM_DECODE. */
static int ran(struct vmm_plain *plain, struct vmm_core *core, const struct vmm_prepared *one)
{
    long long key = VMM_INTERRUPTED;

    if (begin(plain, core, one->room, one->patience, one->patience) == 0) {
        key = core_run(core);
        if (key == VMM_OUTPUT)
            key = core->held;
    }
    vmm_plain_end(plain);
    if (key != one->exit_key)
        return 0;
    return key == VMM_DECODE ? !core->error && plain->run->exit_reason == KVM_EXIT_HLT : core->value == one->passed;
}

/* 1: the guest has run, ended as it did before, and left what is in `end`. 0: nothing has happened. */
int vmm_prepared_run(const struct vmm_prepared *one, const void *image, const void *offer, const void *mask,
                     const void *cpuid, const void *sregs, const void *regs, struct vmm_ended *end)
{
    struct vmm_core *core = malloc(sizeof *core);
    struct vmm_finish *finish = malloc(sizeof *finish);
    void *memory = mmap(NULL, one->memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct vmm_plain plain;
    int good = 0;

    if (core && finish && memory != MAP_FAILED && vmm_plain_make(&plain, core, finish, one->console, memory, one->memory, NULL) == 0) {
        if (offers(plain.kvm, offer, mask, one->cpuid_size) &&
            vmm_ioctl(plain.vcpu, KVM_SET_CPUID2, (void *)cpuid) == 0 &&
            vmm_plain_load(&plain, memory, one->memory, image, one->image_size, 0, NULL, 0, sregs, regs) == 0) {
            __u64 begun = clock_now();

            good = ran(&plain, core, one);
            end->ns = clock_now() - begun;
            end->exits = core->sequence;
            end->length = finish->sink_length;
            memcpy(end->output, finish->sink, finish->sink_length);
        }
        vmm_plain_close(&plain);
    }
    if (memory != MAP_FAILED)
        munmap(memory, one->memory);
    free(finish);
    free(core);
    return good;
}
