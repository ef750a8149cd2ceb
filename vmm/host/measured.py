# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host's KVM is and does, as one value. It asks and measures; it prints nothing.

Each part has a module of its own: surroundings (what /sys, /proc and userfaultfd say), ring0 and hypercall_insn (what
guests show). Here they meet what KVM itself tells: capabilities and paravirtual features by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import caps, pv
from vmm.base.bits import describe
from vmm.host import hypercall_insn, ring0
from vmm.host.hypercall_insn import Hypercall
from vmm.host.ring0 import Ring0
from vmm.host.surroundings import Setting, look
from vmm.host.sysfs import HostFiles
from vmm.kvm.system import Kvm
from vmm.machine.x86.cpuid import CpuidModel


@dataclass(frozen=True, slots=True)
class PvOffer:
    """The bits that KVM_GET_SUPPORTED_CPUID offers in KVM's feature leaf; (0, 0) where it offers no such leaf."""

    eax: int
    edx: int

    @property
    def features(self) -> dict[str, bool]:
        """Every known feature, and whether KVM offers it. The VMM may add some of the others itself."""
        return {row.name: bool((self.edx if row.register == "edx" else self.eax) & row.mask) for row in pv.FEATURES}

    @property
    def unknown(self) -> str:
        """Set bits without a name, as `eax 0x80000000`; empty if there are none."""
        words = []
        for register, value in (("eax", self.eax), ("edx", self.edx)):
            rest = value & ~sum(row.mask for row in pv.FEATURES if row.register == register)
            words += [f"{register} {describe(rest, ())}"] if rest else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A usable KVM: `setting` is what surrounds it, the rest what it told and showed.

    `capabilities` holds every capability that pyvmm knows, by name without KVM_CAP_, with the value of
    KVM_CHECK_EXTENSION on /dev/kvm: 0 means absent.
    """

    setting: Setting
    api_version: int
    ring0: Ring0
    hypercall: Hypercall
    capabilities: dict[str, int]
    pv: PvOffer


def pv_offer(kvm: Kvm) -> PvOffer:
    """The paravirtual features that this KVM offers."""
    model = CpuidModel(kvm.get_supported_cpuid())
    leaf = model.kvm_features_leaf()
    entry = None if leaf is None else model.get(leaf)
    return PvOffer(entry.eax, entry.edx) if entry else PvOffer(0, 0)


def measure(kvm: Kvm, files: HostFiles | None = None) -> HostFacts:
    """Everything about this host: in about a tenth of a second, and in a few seconds where guests hang.

    Raises:
        HostError: a VM cannot be made, or no guest runs in it: this KVM is of no use.
    """
    return HostFacts(
        setting=look(files),
        api_version=kvm.get_api_version(),
        ring0=ring0.measure(kvm),
        hypercall=hypercall_insn.measure(kvm),
        capabilities={row.name: kvm.check_extension(row.name) for row in caps.CAPS},
        pv=pv_offer(kvm),
    )
