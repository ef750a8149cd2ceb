# SPDX-License-Identifier: GPL-2.0-or-later
"""Does this host have what a payload's header, or a test, asks for? Asked of KVM, never guessed."""

from __future__ import annotations

import os

from vmm.errors import MissingCapability, MissingCpus
from vmm.kvm.system import Kvm
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.catalog import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def check_needs(payload: Payload) -> None:
    """Ask the host for what the header says the payload needs.

    Raises:
        MissingCapability: it lacks something; the message names it.
        HostError: KVM cannot be used at all.
    """
    header = payload.header
    with Kvm.open() as kvm:
        check(kvm, f"payload {payload.name}", header.capabilities, header.features, header.min_cpus)


def check(kvm: Kvm, who: str, capabilities: Iterable[str] = (), features: Iterable[str] = (), cpus: int = 1) -> None:
    """Ask the host for capabilities, for CPUID and PV features that KVM offers, and for a number of usable CPUs.

    Raises:
        MissingCapability: it lacks something; the message names it, and `who` needs it.
        UsageError: there is no capability or feature of that name.
    """
    for capability in capabilities:
        kvm.require(capability, who)
    features = tuple(features)
    if features:
        offered = CpuidModel(kvm.get_supported_cpuid())
        for feature in features:
            if not offered.has(feature):
                raise MissingCapability(f"this host's KVM does not offer {feature}, which {who} needs")
    present = len(os.sched_getaffinity(0))
    if present < cpus:
        raise MissingCpus(f"{who} needs {cpus} host CPUs, and {present} can be used")
