/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a process gives up for good: privileges by exec (prctl), files (landlock), system calls (seccomp). It decides
 * nothing: rights and filters come from Python. Each call gives the kernel's result, or -errno. libc has no wrapper of
 * most of them, and older headers lack their numbers (Linux 5.9, 5.13).
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define CALL_CLOSE_RANGE 436
#define CALL_LANDLOCK_CREATE_RULESET 444
#define CALL_LANDLOCK_ADD_RULE 445
#define CALL_LANDLOCK_RESTRICT_SELF 446
#define RULE_PATH_BENEATH 1
#define RULESET_VERSION 1

struct path_beneath { /* struct landlock_path_beneath_attr, <linux/landlock.h> */
    __u64 allowed;
    __s32 parent;
} __attribute__((packed));

static int or_errno(long result)
{
    return result < 0 ? -errno : (int)result;
}

int vmm_no_new_privs(void)
{
    return or_errno(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int vmm_landlock_abi(void)
{
    return or_errno(syscall(CALL_LANDLOCK_CREATE_RULESET, NULL, 0, RULESET_VERSION));
}

/* HANDLED: rights of files, of the network, scopes; SIZE bytes of it, as many as the ABI knows. */
int vmm_landlock_new(const __u64 *handled, size_t size)
{
    return or_errno(syscall(CALL_LANDLOCK_CREATE_RULESET, handled, size, 0));
}

int vmm_landlock_below(int ruleset, int folder, __u64 access)
{
    struct path_beneath rule = {.allowed = access, .parent = folder};

    return or_errno(syscall(CALL_LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0));
}

int vmm_landlock_enforce(int ruleset)
{
    return or_errno(syscall(CALL_LANDLOCK_RESTRICT_SELF, ruleset, 0));
}

/* PROGRAM is LENGTH instructions of struct sock_filter. */
int vmm_seccomp(const void *program, unsigned short length, unsigned int flags)
{
    struct sock_fprog whole = {.len = length, .filter = (struct sock_filter *)program};

    return or_errno(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &whole));
}

/* 0 where the kernel knows a filter's action. */
int vmm_seccomp_has(__u32 action)
{
    return or_errno(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
}

/* Close every descriptor from FIRST on: of a child, which has those of its parent. */
int vmm_close_from(unsigned int first)
{
    return or_errno(syscall(CALL_CLOSE_RANGE, first, ~0U, 0));
}

/* Both limits of WHICH (RLIMIT_*) become VALUE, or stay where they are lower; of CPU time the hard one a second later, so
 * that the signal that comes first is SIGXCPU. */
int vmm_at_most(int which, __u64 value)
{
    struct rlimit limit;

    if (getrlimit(which, &limit) < 0)
        return -errno;
    if (limit.rlim_cur > value)
        limit.rlim_cur = value;
    if (limit.rlim_max > value)
        limit.rlim_max = value + (which == RLIMIT_CPU && limit.rlim_max > value + 1);
    return or_errno(setrlimit(which, &limit));
}
