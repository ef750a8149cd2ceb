# SPDX-License-Identifier: GPL-2.0-or-later
"""What C does with a prepared guest (_prepared.c): one call for its whole life."""

from __future__ import annotations

from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARTS = ("image", "offer", "mask", "cpuid", "sregs", "regs")


def unchanged(paths: bytes, states: bytes) -> bool:
    """Is each file as it was? `paths` end in a NUL each; `states` has two numbers of 64 bits for each: its bytes, and
    the time of its last change in ns; both all ones: there is none.
    """
    return bool(lib.vmm_unchanged(paths, states, len(states)))


def run(begin: tuple[int, ...], parts: dict[str, Any]) -> tuple[bytes, int, int] | None:
    """(what the guest printed, its exits, ns), of one that ended as it was to; `begin` is a struct vmm_prepared, and
    `parts` has those of PARTS as bytes. None: it is as if it had not been run.
    """
    end = ffi.new("struct vmm_ended *")
    if not lib.vmm_prepared_run(ffi.new("struct vmm_prepared *", begin), *(parts[each] for each in PARTS), end):
        return None
    return bytes(ffi.buffer(end.output, end.length)), end.exits, end.ns
