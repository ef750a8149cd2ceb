# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 12: the guest was told of a missing page by a token, worked meanwhile, and had the page in the end."""

from __future__ import annotations

import struct

from vmm.abi import ports
from vmm.abi.pv import CONSTANTS
from vmm.abi.structs import KVM_VCPU_PV_APF_DATA
from vmm.abi.x86 import PAGE
from vmm.errors import VmmError
from vmm.kvm.userfaultfd import Userfaultfd
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.payload.guest import Guest
from vmm.payload.proof.held_back import held_back
from vmm.payload.proof.lab import ring0, supported

CONTENT = 0x0123_4567_89AB_CDEF
NOWHERE = 0x5000_0000  # neither mapped nor memory
SLEPT = "Ring 3 slept in its load: there was no #PF for the missing page"
ENABLED = (
    "MSR_KVM_ASYNC_PF_EN has to have bit 0 (on) and bit 3 (readiness by interrupt), and ring 3 interrupts on "
    "(RFLAGS.IF)"
)
BROADCAST = next(row.value for row in CONSTANTS if row.name == "ASYNC_PF_BROADCAST_TOKEN")


def drive(guest: Guest) -> None:
    page = struct.pack("<Q", CONTENT) * (PAGE // 8)
    with held_back(guest, guest.constant("MISSING"), [page]) as pager:
        guest.machine.on_port_write(ports.DELAY, lambda value: pager.tell(0))
        guest.run()
        guest.kept["asked"], guest.kept["told"] = bool(pager.asked), bool(pager.told)


def check(seen: Seen) -> str:
    token, loaded = seen.value("token"), seen.guest["loaded"]
    if token is None:
        raise Wrong(f"{SLEPT}, until the host had fetched it. {ENABLED}")
    if loaded != CONTENT:
        raise Wrong(f"ring 3 loaded {loaded:#x}, and the page holds {CONTENT:#x}: its load was not done again")
    if _flags(seen):
        raise Wrong(
            f"the field `flags` of the shared page is still {_flags(seen)}. KVM only sets it; a real page fault that "
            "comes later would be taken for an asynchronous one"
        )
    if not _tells_apart(seen):
        raise Wrong(
            f"the host let ring 3 load from {NOWHERE:#x}, where no page is mapped: a real #PF, with `flags` 0. Your "
            "handler took it for an asynchronous one, and waits for a page that nobody fetches"
        )
    return (
        f"#PF with token {token:#x} in place of an address, {seen.guest['work']} turns of other work, an "
        "interrupt with the "
        f"same token, and then ring 3 read {loaded:#x}"
    )


def _tells_apart(seen: Seen) -> bool:
    """Does a real page fault of ring 3 go to `real`? A run of its own, with another address in its load."""
    program = seen.guest.symbol("program")
    at = seen.program.code.find(struct.pack("<I", seen.guest.constant("MISSING")), program - seen.program.base)
    if at < 0:
        return True  # the student's own ring 3: there is no telling
    with Guest(seen.guest.payload, seen.guest.options) as again:
        again.machine.memory.write(seen.program.base + at, struct.pack("<I", NOWHERE))
        waits: list[int] = []

        def asked(value: int) -> None:
            waits.append(value)
            again.machine.stop()

        again.machine.on_port_write(ports.DELAY, asked)  # what it does before it sleeps
        again.machine.run(seen.guest.options.timeout)
        return not waits


def why(seen: Seen) -> str:
    flags, fault = _flags(seen), seen.postmortem.fault
    ready, token = seen.u64(seen.guest.constant("READY")), seen.u64(seen.guest.constant("TOKEN"))
    if seen.stop.why is Why.GUEST_FAULT and fault and fault.cr2 is not None and flags:
        return (
            f"It was no real page fault: `flags` of the shared page is {flags} (KVM_PV_REASON_PAGE_NOT_PRESENT), "
            "so CR2, "
            f"{fault.cr2:#x}, is a token and no address"
        )
    if seen.stop.why is Why.TIME_LIMIT and ready not in (0, BROADCAST) and ready != token:
        return f"KVM said that page {ready:#x} is ready, and your handler has noted {token:#x}: the token was in CR2"
    if seen.stop.why is Why.TIME_LIMIT and "[rbx]" in seen.here:
        return f"{SLEPT}. {ENABLED}"
    return ""


def _flags(seen: Seen) -> int:
    at = seen.guest.constant("SHARED")
    return int(KVM_VCPU_PV_APF_DATA.unpack(seen.memory.read(at, KVM_VCPU_PV_APF_DATA.size))["flags"])


def differs() -> str:
    kind = ring0().kind
    if kind == "native":
        return ""
    return (
        f"Ring 0 of a guest is {kind} here (measured): a load of ring 0 just waits for its page. From ring 3, as "
        "in this "
        "lesson, KVM tells the guest on every host."
    )


def cannot() -> str:
    if not (supported().has("ASYNC_PF") and supported().has("ASYNC_PF_INT")):
        return "this KVM does not offer ASYNC_PF and ASYNC_PF_INT"
    try:
        Userfaultfd.open().close()
    except VmmError as error:  # the pages of this lesson are held back by it
        return error.one_line
    return ""


CHECKS = Checks(check, why, drive=drive, differs=differs, cannot=cannot)
