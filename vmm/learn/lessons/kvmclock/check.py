# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 10: KVM's clock was read, and by a reader that takes no page which is being written.

KVM writes the page rarely and fast, so a reader without the protocol would nearly always be lucky. The host plays the
writer: it calls `read_clock` on a page of its own, single-steps it, and changes the page at each step in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmm.abi.msrs import msr
from vmm.abi.structs import PVCLOCK_VCPU_TIME_INFO
from vmm.base.bits import MASK64
from vmm.errors import GuestError
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.learn.spin import Steps
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.call import LANDING, LANDING_AT
from vmm.payload.guest import Guest
from vmm.payload.proof.lab import supported

PAGE = REGIONS["data"].base + 0x2000  # of the host's own: KVM writes the guest's
AHEAD = 1 << 61  # nanoseconds between two states of the page: a mixture of them is off by as many
FAR = AHEAD // 2  # a time beyond this is a mixture: no TSC comes near
TICK = {"tsc_to_system_mul": 1 << 31, "tsc_shift": 1}  # a tick is a nanosecond
ODD_STEPS = 60  # instructions for which the page stays half written: several turns of a reader that waits
TIMEOUT = 10.0
NEW = 2 + 256  # a version of which the low byte is the same as of 2
OTHER_PAGE = ". It did wait for the version at CLOCK: the page to be read is the one that RDI says"
HLT = b"\xf4"
DRIFT = 1_000_000  # nanoseconds: without a master clock, a vCPU's page and KVM_GET_CLOCK go by two clocks


def drive(guest: Guest) -> None:
    result = guest.run()
    guest.kept["after"] = guest.machine.vm.get_clock().clock
    if result.stop.why is not Why.EXIT_PORT or result.stop.code:
        return
    guest.kept["waits"] = _waits(guest)
    if guest.kept["waits"]:
        guest.kept["mixed"] = _mixed(guest)
    else:
        guest.kept["other"] = _other(guest)
    guest.result = result


def _waits(guest: Guest) -> bool:
    """Does it wait for a page whose version is odd? It stays so for many instructions; then it is whole, and "
    "another."""
    guest.machine.memory.write(PAGE, _page(3, 0))
    steps = _begin(guest)
    steps.take(ODD_STEPS, TIMEOUT)
    if steps.why is Why.EXIT_PORT:  # it has come back
        return False
    guest.machine.memory.write(PAGE, _page(4, AHEAD))
    return _end(guest) < FAR


def _other(guest: Guest) -> bool:
    """Does it wait for the guest's own page, whatever RDI says?"""
    # KVM writes that page whenever it has news of the clock, unless it is told that there is none.
    guest.machine.cpus[0].vcpu.set_msrs({msr("SYSTEM_TIME_NEW").number: 0})
    guest.machine.memory.write(PAGE, _page(2, 0))
    guest.machine.memory.write(guest.constant("CLOCK"), _page(3, 0))
    steps = _begin(guest)
    steps.take(ODD_STEPS, TIMEOUT)
    return steps.why is not Why.EXIT_PORT


def _mixed(guest: Guest) -> int | None:
    """After how many instructions the page changed, where the reader took a part of each; None: it never does."""
    guest.machine.memory.write(PAGE, _page(2, 0))
    passed = _begin(guest).take(ODD_STEPS, TIMEOUT)
    for number, place in enumerate(passed, 1):
        if place in passed[: number - 1] or guest.program.line_at(place) is None:
            continue
        guest.machine.memory.write(PAGE, _page(2, 0))
        _begin(guest)
        if _stopped(guest, place):
            guest.machine.memory.write(PAGE, _page(NEW, AHEAD))
            if _end(guest) >= FAR:
                return number
    return None


def _stopped(guest: Guest, place: int) -> bool:
    """Does the reader come to this place, and stand there now? By a HLT in the place of its instruction for so long:
    not every host's breakpoints strike.
    """
    machine, vcpu = guest.machine, guest.machine.cpus[0].vcpu
    kept = machine.memory.read(place, len(HLT))
    machine.memory.write(place, HLT)
    halted = machine.run(TIMEOUT).stop.why is Why.HALT
    machine.memory.write(place, kept)
    if halted:
        vcpu.complete()
        regs = vcpu.get_regs()
        halted, regs.rip = regs.rip == place + len(HLT), place
        vcpu.set_regs(regs)
    return halted


def _page(version: int, ahead: int) -> bytes:
    """Either state of it says that the clock is the TSC, in nanoseconds; `ahead` of them ago both fields were 0."""
    before = -ahead & MASK64
    return PVCLOCK_VCPU_TIME_INFO.pack(version=version, tsc_timestamp=before, system_time=before, **TICK)


def _begin(guest: Guest) -> Steps:
    """vCPU 0 is to call `read_clock` on our page, with the next run."""
    machine = guest.machine
    machine.memory.write(LANDING_AT, LANDING)
    machine.start(0, "read_clock")
    vcpu = machine.cpus[0].vcpu
    regs = vcpu.get_regs()
    regs.rdi = PAGE
    regs.rsp -= 8
    machine.memory.write_u64(regs.rsp, LANDING_AT)
    vcpu.set_regs(regs)
    return Steps(machine)


def _end(guest: Guest) -> int:
    """RAX, with which it comes back."""
    stop = guest.machine.run(TIMEOUT).stop
    vcpu = guest.machine.cpus[0].vcpu
    vcpu.complete()
    regs = vcpu.get_regs()
    if stop.why is not Why.EXIT_PORT or regs.rip != LANDING_AT + 2:
        raise GuestError(f"`read_clock` did not come back from a page that the host had written: {stop.text}")
    return regs.rax


def check(seen: Seen) -> str:
    kept: Mapping[str, Any] = seen.guest.kept
    first, second, after = seen.guest["first"], seen.guest["second"], kept["after"]
    if not kept["waits"]:
        raise Wrong(
            f"the host gave your reader a page, at {PAGE:#x} in RDI, whose version was 3, odd, and it came back with a "
            f"time: it did not wait until KVM was done with writing{OTHER_PAGE * bool(kept.get('other'))}"
        )
    if kept["mixed"] is not None:
        raise Wrong(
            f"the host changed the page after {kept['mixed']} instructions of your reader, and its version from 2 "
            f"to {NEW}; the reader came back with a time made of old and new fields. At the end it did not begin "
            "again, though the version, all 4 bytes of it, was another by then"
        )
    if not 0 < first <= second <= after + DRIFT:
        raise Wrong(
            f"your guest read {first} ns and then {second} ns, and KVM's clock was {after} ns after the run: "
            "these do not "
            f"follow each other. {_version(seen)}"
        )
    return (
        f"{first / 1e6:.3f} ms after the VM was made, then {(second - first) / 1e3:.1f} us later; no page half "
        "written was believed"
    )


def _version(seen: Seen) -> str:
    version = seen.u32(seen.guest.constant("CLOCK"))
    if not version:
        return "The version of the page is 0: KVM has never written it (bit 0 of the MSR's value means: on)"
    return f"The version of the page is {version}, {'odd' if version % 2 else 'even'}"


def why(seen: Seen) -> str:
    if seen.stop.why is not Why.TIME_LIMIT:
        return ""
    version, kept = seen.u32(seen.guest.constant("CLOCK")), seen.reg("r9") & 0xFFFF_FFFF
    if not version or version % 2:
        return _version(seen)
    if kept == version:
        return f"{_version(seen)}, and R9D is the same: nothing tells the reader to begin again but its own jumps"
    return (
        f"{_version(seen)}, and R9D is {kept}: there the version would be kept. `nanoseconds` changes RAX, RCX, RDX, "
        "R8 and R10"
    )


def cannot() -> str:
    return "" if supported().has("CLOCKSOURCE2") else "this KVM offers no kvmclock (CLOCKSOURCE2)"


CHECKS = Checks(check, why, drive=drive, cannot=cannot)
