# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel will meet where this KVM emulates ring 0, said before it begins: it runs a thousand times slower, and
ends where KVM has no emulation. Measured, by KVM's own count; where ring 0 is native nothing is said.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vmm.errors import VmmError
from vmm.machine.images.bzimage import is_bzimage

if TYPE_CHECKING:
    from vmm.host.ring0 import Ring0
    from vmm.payload.catalog import Payload

NOTE = (
    "ring 0 of a guest is emulated on this host, one instruction at a time ({evidence}): {what}. It ends at the first "
    "instruction that KVM does not emulate, and what that was is shown"
)
LINUX = "Linux takes many minutes to unpack itself, during which it says nothing"
OTHER = "a kernel runs a thousand times slower than on hardware"


def note(ring0: Ring0, code: bytes) -> str:
    """What to say of these bytes, an image; nothing where they run as on hardware."""
    if ring0.kind not in ("emulated", "mixed"):
        return ""
    return NOTE.format(evidence=ring0.evidence, what=LINUX if is_bzimage(code) else OTHER)


def tell(payload: Payload) -> None:
    """Say it on standard error, if there is something to say. What is wrong with KVM, the run itself will tell."""
    from vmm.host import ring0
    from vmm.kvm.system import Kvm

    try:
        with Kvm.open() as kvm:
            said = note(ring0.count(kvm), payload.code or b"")
    except VmmError:
        return
    if said and sys.stderr is not None:
        print(f"pyvmm: {said}", file=sys.stderr, flush=True)
