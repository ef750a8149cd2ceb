# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's command line and libvirt's domain XML call KVM's paravirtual features. Facts only; pyvmm takes the names.

Sources: QEMU, target/i386/cpu.c (feature words FEAT_KVM and FEAT_KVM_HINTS, property `kvm`); libvirt, "Domain XML
format", sections "Hypervisor features", "Time keeping" and "CPU model and topology". A CPUID bit has the same name in
QEMU's -cpu, libvirt's <feature name=...> and here, or an alias in vmm/abi/cpuid_bits.py.
"""

from __future__ import annotations

from typing import NamedTuple

QEMU_SOURCE = "QEMU, target/i386/cpu.c"
LIBVIRT_SOURCE = "libvirt, Domain XML format"


class Elsewhere(NamedTuple):
    """`name` is what is typed there, `ours` the topic that it stands for, `spelled` a whole line of it."""

    who: str
    name: str
    ours: str
    spelled: str
    note: str = ""

    @property
    def source(self) -> str:
        """Who says so."""
        return QEMU_SOURCE if self.who == "QEMU" else LIBVIRT_SOURCE


def _qemu(name: str, ours: str, note: str = "") -> Elsewhere:
    return Elsewhere("QEMU", name, ours, f"-cpu host,{name}=on", note)


def _libvirt(name: str, ours: str, spelled: str, note: str = "") -> Elsewhere:
    return Elsewhere("libvirt", name, ours, spelled, note)


ROWS = (
    _qemu("kvmclock", "CLOCKSOURCE2", "both bits, CLOCKSOURCE and CLOCKSOURCE2"),
    _qemu("kvm-nopiodelay", "NOP_IO_DELAY"),
    _qemu("kvm-mmu", "MMU_OP"),
    _qemu("kvm-asyncpf", "ASYNC_PF"),
    _qemu("kvm-steal-time", "STEAL_TIME"),
    _qemu("kvm-pv-eoi", "PV_EOI"),
    _qemu("kvm-pv-unhalt", "PV_UNHALT"),
    _qemu("kvm-pv-tlb-flush", "PV_TLB_FLUSH"),
    _qemu("kvm-asyncpf-vmexit", "ASYNC_PF_VMEXIT"),
    _qemu("kvm-pv-ipi", "PV_SEND_IPI"),
    _qemu("kvm-poll-control", "POLL_CONTROL"),
    _qemu("kvm-pv-sched-yield", "PV_SCHED_YIELD"),
    _qemu("kvm-asyncpf-int", "ASYNC_PF_INT"),
    _qemu("kvm-msi-ext-dest-id", "MSI_EXT_DEST_ID"),
    _qemu("kvmclock-stable-bit", "CLOCKSOURCE_STABLE_BIT"),
    _qemu("kvm-hint-dedicated", "HINTS_REALTIME"),
    _qemu("kvm", "KVM_CPUID_SIGNATURE", "off hides the signature, and with it every feature"),
    _libvirt("hidden", "KVM_CPUID_SIGNATURE", "<features><kvm><hidden state='on'/></kvm></features>",
             "on hides the signature, as QEMU's kvm=off"),
    _libvirt("hint-dedicated", "HINTS_REALTIME", "<features><kvm><hint-dedicated state='on'/></kvm></features>"),
    _libvirt("poll-control", "POLL_CONTROL", "<features><kvm><poll-control state='on'/></kvm></features>"),
    _libvirt("pv-ipi", "PV_SEND_IPI", "<features><kvm><pv-ipi state='off'/></kvm></features>"),
    _libvirt("pvspinlock", "PV_UNHALT", "<features><pvspinlock state='on'/></features>"),
    _libvirt("eoi", "PV_EOI", "<features><apic eoi='on'/></features>"),
    _libvirt("kvmclock", "CLOCKSOURCE2", "<clock><timer name='kvmclock' present='no'/></clock>"),
)  # fmt: skip

FOREIGN = {
    "hv": "an enlightenment of Hyper-V's interface, which QEMU and KVM serve too",
    "hyperv": "an enlightenment of Hyper-V's interface, which QEMU and KVM serve too",
    "xen": "part of Xen's interface, which QEMU and KVM serve too",
}
"""Beginnings of QEMU's names for what is no paravirtual interface of KVM's own -> what it is."""


def of(ours: str) -> tuple[Elsewhere, ...]:
    """Every name elsewhere of a topic."""
    return tuple(row for row in ROWS if row.ours == ours)
