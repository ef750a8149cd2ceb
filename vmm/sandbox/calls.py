# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that a sandboxed process keeps, by name and with the reason; how each other one is refused.

A table, and no more: filter.py writes it in the kernel's words. What is in no row is refused with EPERM, so that a
library which tries it in passing goes on without; what is in NEVER ends the process, for nobody tries that in passing;
what is in UNKNOWN, and what is newer than the table, is answered with ENOSYS, upon which a C library takes the older
call. Arguments are compared as the kernel reads them: the low 32 bits, unless `high`.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple

KVMIO = 0xAE  # <linux/kvm.h>; in bits 8 to 15 of a request
PROT_WRITE, PROT_EXEC, MAP_ANONYMOUS = 0x2, 0x4, 0x20  # <asm-generic/mman-common.h>
OPEN_TO_WRITE = 0o3 | 0o100 | 0o1000  # O_ACCMODE, O_CREAT, O_TRUNC
CLONE_THREAD = 0x10000
F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY = 8, 10, 15, 1024, 1026
PR_SET_NAME, PR_GET_NAME, PR_SET_VMA = 15, 16, 0x53564D41
TERMINAL = {
    "TCGETS": 0x5401, "TCSETS": 0x5402, "TCSETSW": 0x5403, "TCSETSF": 0x5404, "TIOCGPGRP": 0x540F,
    "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451,
}  # fmt: skip
"""<asm-generic/ioctls.h>. Without TIOCSTI, which types for the terminal's owner."""
CREATE_VM = 0xAE01  # KVM_CREATE_VM
SELF = -1  # in `values`: this process, by its number


class Only(NamedTuple):
    """A condition: `argument` (0 to 5), under `mask`, is one of `values`, or (`unless`) none of them."""

    argument: int
    mask: int
    values: tuple[int, ...]
    unless: bool = False
    high: bool = False


ALL = 0xFFFFFFFF
Kept = tuple[Only, ...]


class Call(NamedTuple):
    """Calls that are kept, where all conditions of one of `ways` hold (none: always). `part`: kvm is for a machine."""

    names: str
    why: str
    ways: tuple[Kept, ...] = ()
    part: str = "all"
    what: str = ""


KEPT = (
    Call("ioctl", "KVM_RUN and the other calls of a VM that exists; the terminal's settings", (
        (Only(1, 0xFF00, (KVMIO << 8,)), Only(1, ALL, (CREATE_VM,), unless=True)),
        (Only(1, ALL, tuple(TERMINAL.values())),),
    ), "kvm", "KVM's, but no new VM; " + ", ".join(TERMINAL)),
    Call("read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek",
         "files that are open: disks, console, trace, eventfds"),
    Call("fsync fdatasync fallocate ftruncate fadvise64 sync_file_range", "disks that are open"),
    Call("close close_range dup dup2 dup3 pipe pipe2 eventfd eventfd2", "descriptors of its own"),
    Call("fcntl", "flags of descriptors", ((Only(1, ALL, (F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY),
         unless=True),),), what="all but F_SETOWN and its like, which send signals"),
    Call("openat", "modules of Python that are loaded late, where landlock lets them be read",
         ((Only(2, OPEN_TO_WRITE, (0,)),),), what="to read, never to write or create"),
    Call("stat fstat lstat newfstatat statx access faccessat readlink readlinkat getcwd getdents64 statfs fstatfs",
         "Python looks for its modules"),
    Call("poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait", "waiting for descriptors"),
    Call("recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg shutdown getsockopt setsockopt getsockname getpeername",
         "the sockets of network cards, which are open", part="kvm"),
    Call("mmap", "memory", (
        (Only(2, PROT_EXEC, (0,)),),
        (Only(2, PROT_WRITE | PROT_EXEC, (PROT_EXEC,)), Only(3, MAP_ANONYMOUS, (0,))),
    ), what="nothing that is both writable and executable; code only from a file"),
    Call("mprotect", "memory", ((Only(2, PROT_EXEC, (0,)),),), what="nothing becomes executable"),
    Call("munmap mremap madvise brk msync mincore", "memory"),
    Call("futex set_robust_list rseq sched_yield sched_getaffinity getcpu membarrier", "locks and threads"),
    Call("clone", "the threads of vCPUs and devices", ((Only(0, CLONE_THREAD, (CLONE_THREAD,)),),), "kvm",
         "a thread, no process"),
    Call("prctl", "names of threads", ((Only(0, ALL, (PR_SET_NAME, PR_GET_NAME, PR_SET_VMA)),),),
         what="PR_SET_NAME, PR_GET_NAME, PR_SET_VMA"),
    Call("tgkill kill", "kicks of its own vCPUs", ((Only(0, ALL, (SELF,)),),), what="to this process alone"),
    Call("rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack "
         "restart_syscall pause", "signals of its own"),
    Call("timer_create timer_settime timer_gettime timer_getoverrun timer_delete setitimer getitimer alarm "
         "timerfd_create timerfd_settime timerfd_gettime nanosleep clock_nanosleep",
         "time limits, devices with timers"),
    Call("clock_gettime clock_getres gettimeofday time times getrusage sysinfo uname getrandom",
         "asking the time, and of the system"),
    Call("getpid gettid getppid getuid geteuid getgid getegid getgroups getpgrp getpgid getsid getresuid getresgid",
         "asking who it is"),
    Call("prlimit64", "asking for a limit", ((Only(0, ALL, (0, SELF)), Only(2, ALL, (0,)), Only(2, ALL, (0,),
         high=True)),), what="of itself, and no new one"),
    Call("getrlimit sched_getparam sched_getscheduler getpriority", "asking for limits"),
    Call("exit exit_group", "the end"),
)  # fmt: skip

UNKNOWN = "clone3 openat2 faccessat2 epoll_pwait2"
"""Their arguments lie in memory, where a filter cannot look, or an older call does the same."""

NEVER = (
    "execve execveat ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd pidfd_send_signal "
    "mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr "
    "setns unshare bpf perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd "
    "add_key request_key keyctl init_module finit_module delete_module kexec_load kexec_file_load "
    "iopl ioperm modify_ldt reboot swapon swapoff acct quotactl quotactl_fd syslog vhangup "
    "settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname personality "
    "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset "
    "fanotify_init name_to_handle_at open_by_handle_at rt_sigqueueinfo rt_tgsigqueueinfo"
)
"""What ends the process (SIGSYS)."""

TOOL_STARTS = "execve execveat"
TOOL_LACKS = "socket socketpair connect bind listen accept accept4 memfd_create memfd_secret seccomp"
"""A compiler is several programs, and keeps all but what is in NEVER and here; it is answered EPERM then."""
