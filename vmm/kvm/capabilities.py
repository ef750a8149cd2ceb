# SPDX-License-Identifier: GPL-2.0-or-later
"""Capabilities by name, on the system or a VM descriptor. A missing one is an error with name, number and need."""

from __future__ import annotations

from vmm.errors import MissingCapability, UsageError
from vmm.kvm.handle import Handle, new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.abi.caps import Cap


def _row(capability: str) -> Cap:
    from vmm.abi import caps  # a table of some two hundred rows, which a VM without extras does not need

    row = caps.find(capability)
    if row is None:
        raise UsageError(caps.unknown(capability))
    return row


def check_extension(handle: Handle, capability: str) -> int:
    """KVM_CHECK_EXTENSION by name, on the system or a VM descriptor.

    Raises:
        UsageError: no capability has that name.
    """
    row = _row(capability)
    return handle.value("KVM_CHECK_EXTENSION", row.number, f"asking for {row}")


def require(handle: Handle, capability: str, needed_by: str) -> int:
    """As `check_extension`, but 0 is an error that says what needed it."""
    value = check_extension(handle, capability)
    if value == 0:
        raise MissingCapability(f"this host's KVM lacks {_row(capability)}, which {needed_by} needs")
    return value


def enable_cap(handle: Handle, capability: str, args: tuple[int, ...]) -> None:
    """KVM_ENABLE_CAP by name, on a VM or vCPU descriptor.

    Raises:
        UsageError: no capability has that name.
        KvmCallError: KVM refuses it.
    """
    row = _row(capability)
    raw = new("struct kvm_enable_cap *", {"cap": row.number, "args": list(args)})
    handle.call("KVM_ENABLE_CAP", raw, f"enabling {row} on {handle.what}")
