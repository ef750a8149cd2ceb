# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux will meet where this KVM emulates ring 0, said before it begins: it runs a thousand times slower, and ends
where KVM has no emulation. Measured, by KVM's own count; where ring 0 is native nothing is said.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vmm.errors import VmmError
from vmm.machine.images.bzimage import is_bzimage

if TYPE_CHECKING:
    from vmm.host.ring0 import Ring0
    from vmm.payload.guest import AnyGuest

NOTE = (
    "ring 0 of a guest is emulated on this host, one instruction at a time ({evidence}): Linux ends at the "
    "first instruction that KVM does not emulate, which is shown then, or takes many minutes to unpack itself, during "
    "which it says nothing"
)


def note(ring0: Ring0, code: bytes) -> str:
    """What to say of these bytes, an image; nothing of what is no Linux, nor where it runs as on hardware."""
    if ring0.kind not in ("emulated", "mixed") or not is_bzimage(code):
        return ""
    return NOTE.format(evidence=ring0.evidence)


def watch(guest: AnyGuest) -> None:
    """Say it on standard error of a guest that is about to run, if there is something to say."""
    from vmm.host import ring0

    try:
        said = note(ring0.count(guest.machine.kvm), guest.payload.code or b"")
    except VmmError:  # what is wrong with KVM, the run itself will tell
        return
    if said and sys.stderr is not None:
        print(f"pyvmm: {said}", file=sys.stderr, flush=True)
