# SPDX-License-Identifier: GPL-2.0-or-later
"""What the C core has counted: exits by kind. It knows the codes' names, and makes no value of an exit."""

from __future__ import annotations

from vmm.base.light import Counter
from vmm.kvm._kvm import lib

KINDS = ((lib.VMM_INTERRUPTED, "Interrupted"), (lib.VMM_PORT_IN, "PortIn"), (lib.VMM_PORT_OUT, "PortOut"),
         (lib.VMM_MMIO_READ, "MmioRead"), (lib.VMM_MMIO_WRITE, "MmioWrite"), (lib.VMM_MSR_READ, "ReadMsr"),
         (lib.VMM_MSR_WRITE, "WriteMsr"), (lib.VMM_HYPERCALL, "Hypercall"))  # fmt: skip
CODES = lib.VMM_CODES


def counted(counts: list[int], others: dict[str, int]) -> Counter[str]:
    """How many exits of each kind there were by the `counts` of a struct vmm_core, and by what came another way."""
    found = Counter(others)
    for code, name in KINDS:
        if counts[code]:
            found[name] += counts[code]
    return found
