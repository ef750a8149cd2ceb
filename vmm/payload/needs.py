# SPDX-License-Identifier: GPL-2.0-or-later
"""Does this host have what a payload's header asks for? Asked of KVM, never guessed."""

from __future__ import annotations

import os

from vmm.errors import MissingCapability
from vmm.kvm.system import Kvm
from vmm.machine.cpuid import CpuidModel
from vmm.payload.catalog import Payload


def check_needs(payload: Payload) -> None:
    """Ask the host for what the header says the payload needs.

    Raises:
        MissingCapability: it lacks something; the message names it.
        HostError: KVM cannot be used at all.
    """
    header = payload.header
    with Kvm.open() as kvm:
        for capability in header.capabilities:
            kvm.require(capability, f"payload {payload.name}")
        if header.features:
            offered = CpuidModel(kvm.get_supported_cpuid())
            for feature in header.features:
                if not offered.has(feature):
                    raise MissingCapability(
                        f"this host's KVM does not offer {feature}, which payload {payload.name} needs"
                    )
    present = len(os.sched_getaffinity(0))
    if present < header.min_cpus:
        raise MissingCapability(f"payload {payload.name} needs {header.min_cpus} host CPUs, and {present} can be used")
