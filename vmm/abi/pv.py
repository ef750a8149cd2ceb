# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's paravirtual interface: feature bits, hypercalls, flags in shared memory. MSRs are in msrs, layouts in structs.

Sources: <asm/kvm_para.h>, <linux/kvm_para.h>; Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst; KVM's cpuid.c.
A current kernel offers 0x01007efb in EAX of the feature leaf: bits 0, 1, 3-7, 9-14 and 24. The tables below say what a
bit means, not what a host has: that is asked with KVM_GET_SUPPORTED_CPUID.
"""

from __future__ import annotations

from vmm.abi.cpuid_entry import PV_UNHALT
from vmm.abi.rows import Named
from vmm.base import names
from vmm.base.bits import describe as describe_bits
from vmm.base.bits import signed
from vmm.base.light import NamedTuple

HEADER = "asm/kvm_para.h"
HYPERCALL_HEADER = "linux/kvm_para.h"


class Feature(NamedTuple):
    """One bit of leaf 0x40000001.

    `offered_by` tells who puts the bit into CPUID: "kvm", "vmm" (after doing its `duty`), or "" for nobody any more.
    `msrs` and `hypercalls` are names without MSR_KVM_ and KVM_HC_. `gate` says what becomes refused when the bit is
    hidden and KVM_CAP_ENFORCE_PV_FEATURE_CPUID is on ("" when nothing does). `since` is the kernel that brought it.
    """

    bit: int
    name: str
    register: str
    offered_by: str
    since: str
    meaning: str
    msrs: tuple[str, ...] = ()
    hypercalls: tuple[str, ...] = ()
    gate: str = ""
    duty: str = ""

    @property
    def kernel_name(self) -> str:
        return f"KVM_{self.name}" if self.register == "edx" else f"KVM_FEATURE_{self.name}"

    @property
    def mask(self) -> int:
        return 1 << self.bit


class Hypercall(NamedTuple):
    """One hypercall number: RAX on entry. `gate` is the feature that it needs under enforcement, or ""."""

    nr: int
    name: str
    meaning: str
    args: tuple[str, ...] = ()
    results: str = ""
    gate: str = ""
    arch: str = ""

    @property
    def kernel_name(self) -> str:
        return f"KVM_HC_{self.name}"


FEATURES = (
    Feature(
        0, "CLOCKSOURCE", "eax", "kvm", "2.6.26", "paravirtual clock by its first pair of MSRs",
        ("WALL_CLOCK", "SYSTEM_TIME"), gate="MSRs 0x11 and 0x12 raise #GP",
    ),
    Feature(1, "NOP_IO_DELAY", "eax", "kvm", "2.6.26", "a hint: port accesses need no delay through port 0x80"),
    Feature(2, "MMU_OP", "eax", "", "2.6.26", "paravirtual MMU, removed from KVM", (), ("MMU_OP",)),
    Feature(
        3, "CLOCKSOURCE2", "eax", "kvm", "2.6.35", "paravirtual clock by MSRs that clash with no hardware",
        ("WALL_CLOCK_NEW", "SYSTEM_TIME_NEW"), gate="both MSRs raise #GP",
    ),
    Feature(
        4, "ASYNC_PF", "eax", "kvm", "2.6.38", "the guest may run on while the host fetches a page",
        ("ASYNC_PF_EN",), gate="the MSR raises #GP",
    ),
    Feature(
        5, "STEAL_TIME", "eax", "kvm", "3.1", "time the vCPU was ready but did not run, and whether it is preempted",
        ("STEAL_TIME",), gate="the MSR raises #GP",
    ),
    Feature(
        6, "PV_EOI", "eax", "kvm", "3.6", "end of interrupt by clearing a bit in memory instead of an exit",
        ("PV_EOI_EN",), gate="the MSR raises #GP",
    ),
    Feature(
        PV_UNHALT.bit, PV_UNHALT.name, PV_UNHALT.register, "kvm", "3.12",
        "a vCPU can wake another that halted, even with interrupts off",
        (), ("KICK_CPU",), gate="the hypercall gives -KVM_ENOSYS",
        duty="keep HLT exits on: KVM clears the bit from the guest's CPUID when they are disabled",
    ),
    Feature(
        9, "PV_TLB_FLUSH", "eax", "kvm", "4.16", "a TLB flush for a preempted vCPU waits until it runs again",
        ("STEAL_TIME",), gate="the request is dropped without a flush",
        duty="expose STEAL_TIME too: its page carries the request",
    ),
    Feature(
        10, "ASYNC_PF_VMEXIT", "eax", "kvm", "4.17", "asynchronous page faults reach a nested hypervisor as #PF exits",
        ("ASYNC_PF_EN",), gate="bit 2 of the MSR raises #GP",
    ),
    Feature(
        11, "PV_SEND_IPI", "eax", "kvm", "4.19", "one hypercall sends an interrupt to many vCPUs",
        (), ("SEND_IPI",), gate="the hypercall gives -KVM_ENOSYS",
    ),
    Feature(
        12, "POLL_CONTROL", "eax", "kvm", "5.3", "the guest can switch off the host's polling before it halts a vCPU",
        ("POLL_CONTROL",), gate="the MSR raises #GP",
    ),
    Feature(
        13, "PV_SCHED_YIELD", "eax", "kvm", "5.3", "a vCPU gives its time to one that is preempted",
        (), ("SCHED_YIELD",), gate="the hypercall gives -KVM_ENOSYS",
    ),
    Feature(
        14, "ASYNC_PF_INT", "eax", "kvm", "5.8", "an interrupt tells that an asynchronous page is ready",
        ("ASYNC_PF_EN", "ASYNC_PF_INT", "ASYNC_PF_ACK"),
        gate="MSR_KVM_ASYNC_PF_INT, MSR_KVM_ASYNC_PF_ACK and bit 3 of MSR_KVM_ASYNC_PF_EN raise #GP",
        duty="create the local APIC in the kernel",
    ),
    Feature(
        15, "MSI_EXT_DEST_ID", "eax", "vmm", "5.10", "APIC ids of 15 bits in MSI addresses and IOAPIC entries",
        duty="move address bits 11:5 to bits 46:40 for every MSI, with KVM_CAP_X2APIC_API's 32-bit ids on",
    ),
    Feature(
        16, "HC_MAP_GPA_RANGE", "eax", "vmm", "5.14", "the guest tells which of its pages are encrypted or shared",
        (), ("MAP_GPA_RANGE",), duty="enable KVM_CAP_EXIT_HYPERCALL and serve KVM_EXIT_HYPERCALL",
    ),
    Feature(
        17, "MIGRATION_CONTROL", "eax", "vmm", "5.14", "the guest says whether it may be migrated now",
        ("MIGRATION_CONTROL",), duty="serve the MSR by KVM_CAP_X86_USER_SPACE_MSR: KVM has none",
    ),
    Feature(
        24, "CLOCKSOURCE_STABLE_BIT", "eax", "kvm", "2.6.35", "flag 0 of the clock's page means something",
    ),
    Feature(
        0, "HINTS_REALTIME", "edx", "vmm", "4.18", "a hint: vCPUs are never preempted for long",
        duty="set it only when every vCPU has a physical CPU of its own",
    ),
)  # fmt: skip

HYPERCALLS = (
    Hypercall(1, "VAPIC_POLL_IRQ", "leaves the guest and comes back, so that pending interrupts are seen", (), "0"),
    Hypercall(2, "MMU_OP", "operation of the paravirtual MMU, removed from KVM", (), "-KVM_ENOSYS"),
    Hypercall(3, "FEATURES", "features of the hypervisor", (), "-KVM_ENOSYS", "", "powerpc"),
    Hypercall(4, "PPC_MAP_MAGIC_PAGE", "maps the magic page", (), "-KVM_ENOSYS", "", "powerpc"),
    Hypercall(
        5, "KICK_CPU", "wakes a halted vCPU; a kick before its HLT makes that HLT fall through",
        ("flags, unused", "APIC id"), "0, also for an id that does not exist", "PV_UNHALT",
    ),
    Hypercall(6, "MIPS_GET_CLOCK_FREQ", "CPU frequency", (), "-KVM_ENOSYS", "", "mips"),
    Hypercall(7, "MIPS_EXIT_VM", "ends the VM", (), "-KVM_ENOSYS", "", "mips"),
    Hypercall(8, "MIPS_CONSOLE_OUTPUT", "console output", (), "-KVM_ENOSYS", "", "mips"),
    Hypercall(
        9, "CLOCK_PAIRING", "pairs the host's wall clock with the guest's TSC",
        ("guest-physical address of 64 bytes", "clock type, 0"),
        "0; -KVM_EOPNOTSUPP for another type or a host clock that is not the TSC; -KVM_EFAULT for a bad address",
    ),
    Hypercall(
        10, "SEND_IPI", "sends one interrupt to the vCPUs of a bitmap",
        ("bitmap, ids 0-63", "bitmap, ids 64-127", "APIC id of bit 0", "ICR low word"),
        "number of vCPUs that took it; -KVM_EINVAL for a logical destination or shorthand; -KVM_EOPNOTSUPP without ids",
        "PV_SEND_IPI",
    ),
    Hypercall(11, "SCHED_YIELD", "gives the CPU to a preempted vCPU", ("APIC id",), "0", "PV_SCHED_YIELD"),
    Hypercall(
        12, "MAP_GPA_RANGE", "tells which pages are encrypted; served by the VMM",
        ("guest-physical address", "number of 4 KiB pages", "attributes"),
        "what the VMM answers; -KVM_EINVAL for a bad range; -KVM_ENOSYS unless KVM_CAP_EXIT_HYPERCALL is on",
    ),
)  # fmt: skip

# What hypercalls return, negated. The header spells the first four with the host's errno names and so gives no value
# without <errno.h>.
KVM_EPERM = 1
KVM_E2BIG = 7
KVM_EFAULT = 14
KVM_EINVAL = 22
KVM_EOPNOTSUPP = 95
KVM_ENOSYS = 1000
RETURNS = (
    Named(KVM_EPERM, "KVM_EPERM", "called from a ring other than 0", None, None),
    Named(KVM_E2BIG, "KVM_E2BIG", "an argument is too big", None, None),
    Named(KVM_EFAULT, "KVM_EFAULT", "a guest-physical address cannot be written", None, None),
    Named(KVM_EINVAL, "KVM_EINVAL", "an argument is wrong", None, None),
    Named(KVM_EOPNOTSUPP, "KVM_EOPNOTSUPP", "the host cannot do it", None, HYPERCALL_HEADER),
    Named(KVM_ENOSYS, "KVM_ENOSYS", "no such hypercall, or its feature is hidden and enforced", None, HYPERCALL_HEADER),
)

# Flags of pvclock_vcpu_time_info, which no uapi header has.
PVCLOCK_TSC_STABLE_BIT = 1 << 0
PVCLOCK_GUEST_STOPPED = 1 << 1

CONSTANTS = (
    Named(0x40000000, "KVM_CPUID_SIGNATURE", "first leaf, which holds the signature", None, HEADER),
    Named(0x40000001, "KVM_CPUID_FEATURES", "leaf of the feature bits", None, HEADER),
    Named(1, "KVM_MSR_ENABLED", "bit 0 of the clock and steal-time MSRs", None, HEADER),
    Named(1, "KVM_VCPU_PREEMPTED", "kvm_steal_time.preempted: the vCPU lost its CPU", None, HEADER),
    Named(2, "KVM_VCPU_FLUSH_TLB", "kvm_steal_time.preempted: flush the TLB at the next entry", None, HEADER),
    Named(5, "KVM_STEAL_ALIGNMENT_BITS", "reserved bits above bit 0 of the steal-time MSR", None, HEADER),
    Named(0x3E, "KVM_STEAL_RESERVED_MASK", "bits of the steal-time MSR that must be zero", None, HEADER),
    Named(0, "KVM_CLOCK_PAIRING_WALLCLOCK", "the only clock type of KVM_HC_CLOCK_PAIRING", None, HEADER),
    Named(1 << 0, "KVM_ASYNC_PF_ENABLED", "asynchronous page faults are on", None, HEADER),
    Named(1 << 1, "KVM_ASYNC_PF_SEND_ALWAYS", "also in ring 0", None, HEADER),
    Named(1 << 2, "KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT", "to a nested hypervisor as #PF exit", None, HEADER),
    Named(1 << 3, "KVM_ASYNC_PF_DELIVERY_AS_INT", "readiness comes as an interrupt", None, HEADER),
    Named(1, "KVM_PV_REASON_PAGE_NOT_PRESENT", "kvm_vcpu_pv_apf_data.flags: the #PF is asynchronous", None, HEADER),
    Named(2, "KVM_PV_REASON_PAGE_READY", "historic; readiness comes as an interrupt now", None, HEADER),
    Named(1 << 0, "KVM_MIGRATION_READY", "MSR_KVM_MIGRATION_CONTROL: may be migrated", None, HEADER),
    Named(0, "KVM_PV_EOI_BIT", "bit of the word by which the guest ends an interrupt", None, HEADER),
    Named(1, "KVM_PV_EOI_MASK", "the same as a mask", None, HEADER),
    Named(1, "KVM_PV_EOI_ENABLED", "the bit is set: no EOI write is needed", None, HEADER),
    Named(0, "KVM_PV_EOI_DISABLED", "the bit is clear", None, HEADER),
    Named(0, "KVM_MAP_GPA_RANGE_PAGE_SZ_4K", "attribute: 4 KiB pages", None, HEADER),
    Named(1 << 0, "KVM_MAP_GPA_RANGE_PAGE_SZ_2M", "attribute: 2 MiB pages", None, HEADER),
    Named(1 << 1, "KVM_MAP_GPA_RANGE_PAGE_SZ_1G", "attribute: 1 GiB pages", None, HEADER),
    Named(1 << 4, "KVM_MAP_GPA_RANGE_ENCRYPTED", "attribute: encrypted", None, HEADER),
    Named(0, "KVM_MAP_GPA_RANGE_DECRYPTED", "attribute: shared with the host", None, HEADER),
    Named(PVCLOCK_TSC_STABLE_BIT, "PVCLOCK_TSC_STABLE_BIT", "pvclock flags: one clock for all vCPUs", None, None),
    Named(PVCLOCK_GUEST_STOPPED, "PVCLOCK_GUEST_STOPPED", "pvclock flags: the VMM stopped the guest", None, None),
    Named(0xFFFFFFFF, "ASYNC_PF_BROADCAST_TOKEN", "token that wakes every waiter (the name is ours)", None, None),
)

_BY_NAME = {feature.name: feature for feature in FEATURES}
_HYPERCALL_BY_NAME = {call.name: call for call in HYPERCALLS}
_HYPERCALL_BY_NR = {call.nr: call for call in HYPERCALLS}


def find(name: str) -> Feature | None:
    """The row of a feature by name, with or without KVM_FEATURE_; None if there is none."""
    plain = names.strip_prefix(name, "KVM_FEATURE_", "KVM_")
    return _BY_NAME.get(plain) or _BY_NAME.get(ELSEWHERE.get(plain.replace("_", ""), ""))


def feature(name: str) -> Feature:
    """The row of a feature that our own text names. KeyError: there is none."""
    row = find(name)
    if row is None:
        raise KeyError(name)
    return row


ELSEWHERE = {
    "REALTIME": "HINTS_REALTIME",
    "HINTDEDICATED": "HINTS_REALTIME",
    "KVMCLOCK": "CLOCKSOURCE2",  # of the two bits the one that a guest takes
    "CLOCK": "CLOCKSOURCE2",
    "CLOCKSTABLEBIT": "CLOCKSOURCE_STABLE_BIT",
    "KVMCLOCKSTABLEBIT": "CLOCKSOURCE_STABLE_BIT",
    "NOPIODELAY": "NOP_IO_DELAY",
    "MMU": "MMU_OP",
    "ASYNCPF": "ASYNC_PF",
    "ASYNCPFINT": "ASYNC_PF_INT",
    "ASYNCPFVMEXIT": "ASYNC_PF_VMEXIT",
    "PVIPI": "PV_SEND_IPI",
}
"""What QEMU's -cpu and libvirt's <features><kvm> call them, without KVM_ and signs between -> ours."""


def order(name: str) -> tuple[int, str]:
    """A key that sorts features by bit, those of EDX after those of EAX, and names without a bit last."""
    row = find(name)
    if row is None:
        return 1000, name
    return row.bit + (100 if row.register == "edx" else 0), name


def names_a_row(name: str) -> bool:
    """Is it the very name of a feature, hypercall, constant or quirk of KVM?"""
    from vmm.abi import quirks

    hypercall = name.removeprefix("KVM_HC_")
    constants = {row.name for row in CONSTANTS}
    return name in _BY_NAME or hypercall in _HYPERCALL_BY_NAME or name in constants or quirks.find(name) is not None


def unknown(name: str) -> str:
    """The sentence for a name that `find` does not know."""
    return names.unknown("paravirtual feature", names.strip_prefix(name, "KVM_FEATURE_", "KVM_"), _BY_NAME)


def describe(value: int, register: str = "eax") -> str:
    """Names of the set bits of EAX (or EDX) of leaf 0x40000001; `CLOCKSOURCE2|0x40000000` keeps bits without a row."""
    return describe_bits(value, [(row.mask, row.name) for row in FEATURES if row.register == register])


def find_hypercall(name: str | int) -> Hypercall | None:
    """The row of a hypercall by number or by name, with or without KVM_HC_; None if there is none."""
    if isinstance(name, int):
        return _HYPERCALL_BY_NR.get(name)
    return _HYPERCALL_BY_NAME.get(names.strip_prefix(name, "KVM_HC_"))


def hypercall(name: str) -> Hypercall:
    """The row of a hypercall that our own text names. KeyError: there is none."""
    row = find_hypercall(name)
    if row is None:
        raise KeyError(name)
    return row


def hypercall_name(nr: int) -> str:
    """`KICK_CPU` for 5, `hypercall 99` for a number without a row."""
    row = _HYPERCALL_BY_NR.get(nr)
    return row.name if row else f"hypercall {nr}"


def return_words(rax: int) -> str:
    """RAX after a hypercall: `3`, `-KVM_ENOSYS (-1000)`. Takes the unsigned 64-bit register, or the signed value.

    A caller outside 64-bit mode gets 32 bits with a zero upper half, so 0xfffffc18 reads as -1000 too.
    """
    value = signed(rax)
    if 0xFFFF_F000 <= value <= 0xFFFF_FFFF:
        value -= 1 << 32
    for row in RETURNS:
        if -value == row.value:
            return f"-{row.name} ({value})"
    return str(value)
