# SPDX-License-Identifier: GPL-2.0-or-later
"""How the guest of a proof must end: with its PASS. Any other end becomes one sentence that says what it was."""

from __future__ import annotations

from vmm.abi.ports import EXIT_VALUE_PASS
from vmm.machine.ends import Result, Why
from vmm.payload.guest import Guest
from vmm.payload.proof.verdict import GuestBroke, Unproven
from vmm.payload.run import hosts_fault


def run_to_pass(guest: Guest, timeout: float | None = None) -> Result:
    """Run the guest.

    Raises:
        GuestBroke: it did not come to its PASS; the message has the exception that it took, and where.
        Unproven: the CPU refused to enter it, for what the host has set up.
    """
    result = guest.run(timeout)
    if result.stop.why is Why.EXIT_PORT and result.stop.code == EXIT_VALUE_PASS:
        return result
    raise broke(guest, result)


def broke(guest: Guest, result: Result) -> GuestBroke | Unproven:
    """The error for a guest that ended otherwise: with the exception that it took, and where. An entry that was refused
    for what the host has set up says nothing of the guest or of what it shows.
    """
    if hosts_fault(result.stop):
        return Unproven(f"{result.stop.text}; `dmesg` has what KVM says of it")
    from vmm.observe.postmortem import examine  # only a failure pays for it

    found = examine(guest.machine, result)
    place = f" at {found.vcpus[0].where}" if found.vcpus and found.vcpus[0].where else ""
    fault = f": {found.fault.name} {found.fault.detail}".rstrip() if found.fault else ""
    return GuestBroke(f"{result.stop.text}{fault}{place}")
