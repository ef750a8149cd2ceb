# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proof works with: guests of its payload, made to order, and what was measured of the host once.

A host half that proves what its header says (`proves`) has prove(lab) and, perhaps, refusals(lab): see half.py. It
keeps its judgement in a pure function of the evidence, so that every verdict can be tested without a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vmm.abi import pv, quirks
from vmm.kvm.system import Kvm
from vmm.machine.extra.hypercalls import HypercallService
from vmm.machine.machine import Irqchip, Machine
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.catalog import Payload, find
from vmm.payload.guest import Guest, assemble
from vmm.payload.options import Options
from vmm.payload.proof.verdict import Finding, Verdict

if TYPE_CHECKING:
    from vmm.host.ring0 import Ring0


@dataclass
class Lab:
    """Makes guests of `payload`. `options` and `enforce` apply to every guest it makes: that is how a whole proof is
    run with a feature hidden or a parameter spoiled.
    """

    payload: Payload
    options: Options = field(default_factory=Options)
    enforce: bool = False

    def guest(
        self,
        *,
        payload: str | None = None,
        mask: Iterable[str] = (),
        expose: Iterable[str] = (),
        enforce: bool | None = None,
        params: dict[str, int] | None = None,
        cpus: int | Sequence[int] | None = None,
        irqchip: Irqchip | None = None,
        cpuid: Callable[[CpuidModel], object] | None = None,
        before_vcpus: Callable[[Machine], object] | None = None,
        patching: bool = False,
    ) -> Guest:
        """A guest of this payload, or of another shipped one, loaded and ready to run; close it, or use `with`.

        `mask` and `expose` change its CPUID, `enforce` turns KVM_CAP_ENFORCE_PV_FEATURE_CPUID on for every vCPU.
        Hypercalls that this host never hands to KVM are served by pyvmm (`guest.hypercalls`). `patching` leaves KVM its
        habit of rewriting a foreign hypercall instruction.
        """
        enforce = self.enforce if enforce is None else enforce
        what = self.payload if payload is None else find(payload)
        declared = what.header.params
        given = {name: value for name, value in self.options.params.items() if name in declared} | (params or {})
        options = replace(
            self.options,
            params=given,
            mask=(*self.options.mask, *mask),
            expose=(*self.options.expose, *expose),
        )

        def prepare(machine: Machine) -> None:
            if not patching:
                _disable_hypercall_patching(machine)
            if before_vcpus:
                before_vcpus(machine)

        guest = Guest(what, options, cpus=cpus, irqchip=irqchip, cpuid=cpuid, before_vcpus=prepare, hypercalls=False)
        guest.machine.all_cpus.patient = self.options.timeout is None
        try:
            if enforce:
                for cpu in guest.machine.cpus:
                    cpu.vcpu.enable_cap("ENFORCE_PV_FEATURE_CPUID", 1)
            guest.hypercalls = HypercallService(guest.machine, enforce=enforce)
        except BaseException:
            guest.close()
            raise
        return guest

    def offered(self, feature: str) -> bool:
        """Does KVM_GET_SUPPORTED_CPUID offer this PV feature, and is it not masked in this lab?"""
        return not self.masked(feature) and supported().has(feature)

    def masked(self, feature: str) -> bool:
        """Is this PV feature hidden from every guest of this lab?"""
        row = pv.find(feature)
        return row is not None and any(pv.find(name) == row for name in self.options.mask)

    def absent(self, feature: str) -> Finding | None:
        """The finding for a feature that this lab cannot have: KVM does not offer it, or it is masked. Else None."""
        if self.offered(feature):
            return None
        return Finding(Verdict.ABSENT, "masked" if self.masked(feature) else "KVM does not offer it")

    @property
    def proves(self) -> tuple[str, ...]:
        """The rows that the payload's header says it proves, the first its own."""
        return self.payload.header.proves

    def param(self, name: str) -> int:
        """A parameter of the payload, as the user gave it or as the header says."""
        return self._params[name]

    def constant(self, name: str) -> int:
        """What the payload's text calls `name`, for who has no guest at hand; see `Guest.constant`."""
        return assemble(self.payload, self._params).constant(name)

    @property
    def _params(self) -> dict[str, int]:
        return self.payload.header.given(self.options.params, self.payload.name)


def _disable_hypercall_patching(machine: Machine) -> None:
    """Let a foreign hypercall instruction be #UD, where this KVM can (Linux 5.19)."""
    quirk = quirks.quirk("FIX_HYPERCALL_INSN")
    if machine.vm.check_extension("DISABLE_QUIRKS2") & quirk.value:
        machine.vm.enable_cap("DISABLE_QUIRKS2", quirk.value)


@functools.cache
def ring0() -> Ring0:
    """Is ring 0 of a guest native on this host? Counted once."""
    from vmm.host.ring0 import count  # few proofs ask

    with Kvm.open() as kvm:
        return count(kvm)


@functools.cache
def supported() -> CpuidModel:
    """What KVM offers on this host, asked once."""
    with Kvm.open() as kvm:
        return CpuidModel(kvm.get_supported_cpuid())


def evidence(**numbers: Any) -> dict[str, Any]:
    """A dict with the names in order; None values are left out."""
    return {name: value for name, value in numbers.items() if value is not None}
