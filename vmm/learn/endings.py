# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest ended that did not end as its lesson wants, in words for its author: what it did, at which line."""

from __future__ import annotations

from vmm.abi.exits import MP_STATES
from vmm.abi.rows import value_of
from vmm.abi.x86 import RFLAGS
from vmm.kvm.exits import Exit, MmioWrite, PortOut
from vmm.learn.refused import refused
from vmm.learn.seen import Seen
from vmm.learn.spin import Steps
from vmm.machine.ends import Why
from vmm.observe.exit_text import describe
from vmm.observe.postmortem import VcpuState

HALTED, UNINITIALIZED, INIT_RECEIVED = (
    value_of(MP_STATES, f"KVM_MP_STATE_{name}") for name in ("HALTED", "UNINITIALIZED", "INIT_RECEIVED")
)
SHOWN = 24  # bytes of an endless output


def ended(seen: Seen, ends: Why, *, explained: bool = False) -> str:
    """Sentences; "" for a guest that ended as meant: by a HLT, or by PASS. `explained`: its lesson knows the cause."""
    stop = seen.stop
    if stop.why is ends and not stop.code:
        return ""
    match stop.why:
        case Why.EXIT_PORT if stop.code:
            return f"your guest said itself that it failed, by {stop.code:#x} to port 0xf4, at {seen.here}"
        case Why.EXIT_PORT:
            return f"your guest ended by PASS at {seen.here}; this lesson ends by `hlt`"
        case Why.HALT:
            return (
                f"your guest halted at {seen.here}, and was to end by PASS: nothing can wake it, "
                "for its machine has no interrupt controller"
            )
        case Why.GUEST_FAULT:
            return _fault(seen)
        case Why.SHUTDOWN:
            return (
                f"your guest shut down (a triple fault) at {seen.here}: an exception came, its handler could not be "
                f"entered, and neither could that of the double fault. {seen.postmortem.hint}"
            )
        case Why.INTERNAL_ERROR:
            text = f"KVM could not execute what your guest has at {seen.here}"
            return text if explained else f"{text}. {seen.postmortem.hint}"
        case Why.TIME_LIMIT:
            return _never(seen)
        case Why.OUTPUT_LIMIT:
            return _prints(seen, seen.here)
        case Why.EXIT_LIMIT:
            return f"your guest goes on without an end: {_last(seen)}, again and again"
        case _:
            hint = seen.postmortem.hint
            return f"your guest did not end as it was to: {stop.text}, at {seen.here}" + (f". {hint}" if hint else "")


def _fault(seen: Seen) -> str:
    fault = seen.postmortem.fault
    if fault is None:
        return f"your guest ended in an exception: {seen.stop.text}"
    detail = _plainly(fault.detail) or (f"error code {fault.error_code:#x}" if fault.error_code else "")
    took = f"{fault.name}{': ' * bool(detail)}{detail}"
    if last := seen.ran_out(seen.rip):
        return (
            f"your guest ran on past its last line, {last}, into bytes that are none of its code. At {seen.rip:#x} "
            f"these made it take {took}, and it has no handler for it"
        )
    hint = refused(seen) or seen.postmortem.hint
    text = f"your guest took {took}, at {seen.here}, and has no handler for it"
    return f"{text}. {hint}" if hint else text


def _plainly(detail: str) -> str:
    """Rings are a later lesson's: an access of ring 0 is just an access."""
    return detail.removeprefix("supervisor ").replace("user ", "ring 3's ", 1)


def _last(seen: Seen) -> str:
    noted = seen.last
    return f"{exit_words(noted.exit)} at {seen.place(noted.at)}" if noted else seen.stop.text


def exit_words(exit: Exit) -> str:
    """`it wrote 0x41 'A' to port 0x80` for an access, else what the exit is called."""
    if isinstance(exit, PortOut):
        return f"it wrote {_number(exit.data[: exit.size])} to port {exit.port:#x}"
    if isinstance(exit, MmioWrite):
        return f"it wrote {_number(exit.data)} to {exit.address:#x}"
    return describe(exit)


def _number(data: bytes) -> str:
    value = int.from_bytes(data, "little")
    return f"{value:#x} {chr(value)!r}" if len(data) == 1 and 0x20 <= value < 0x7F else f"{value:#x}"


def _prints(seen: Seen, where: str) -> str:
    return f"your guest prints without an end, at {where}: {shown(seen.result.console[:SHOWN])} and so on"


def shown(data: bytes) -> str:
    r"""Bytes as the text that they are; what is none as `\xf4`."""
    return ascii(data.decode("latin-1"))


def _never(seen: Seen) -> str:
    """Of a guest that did not end in its time: it spins, and where, or it sleeps, and why nothing wakes it."""
    if len(seen.result.console) > SHOWN and seen.exits:
        return _prints(seen, seen.place(seen.exits[-1].at))  # a slow host: its time was over before its output was
    texts = [_vcpu(seen, each) for each in sorted(seen.postmortem.vcpus, key=lambda each: each.index)]
    return "your guest came to no end: " + "; ".join(text for text in texts if text)


def _vcpu(seen: Seen, state: VcpuState) -> str:
    who = "" if len(seen.guest.machine.cpus) == 1 else f"vCPU {state.index} "
    if state.mp_state == UNINITIALIZED:
        return f"{who}never started: it still waits for INIT (KVM_MP_STATE_UNINITIALIZED)"
    if state.mp_state == INIT_RECEIVED:
        return f"{who}got its INIT, and never a SIPI (KVM_MP_STATE_INIT_RECEIVED)"
    if state.mp_state == HALTED:
        place = seen.place(state.rip - 1)  # RIP is behind the HLT that the vCPU sleeps in
        if state.registers["rflags"] & RFLAGS.IF:
            return f"{who or 'it '}sleeps at {place} with interrupts on, and none comes"
        return f"{who or 'it '}halted with interrupts off (IF is 0) at {place}; nothing can wake it"
    if state.index == 0:
        return f"{who or 'it '}{_loop(seen, state)}"
    return f"{who}is at {seen.place(state.rip)}"


def _loop(seen: Seen, state: VcpuState) -> str:
    """``spins in lines 9 to 11, from ...``: the lines that it goes through now, by single-step where that can be."""
    places = Steps(seen.guest.machine).take()
    half = places[len(places) // 2 :]  # the first steps may still be on the way into the loop
    lines = {line.line for line in map(seen.line, half) if line and line.file == seen.guest.payload.file}
    if not lines and (behind := seen.ran_out(state.rip)):
        return (
            f"ran on past its last line, {behind}, into bytes that are none of its code, and is at {state.rip:#x} now"
        )
    if not lines:
        return f"is still at {seen.place(state.rip)}"
    first, last = min(lines), max(lines)
    if first == last:
        return f"spins at {seen.row(first)}"
    return f"spins in lines {first} to {last}, from {_text(seen, first)} to {_text(seen, last)}"


def _text(seen: Seen, number: int) -> str:
    return seen.row(number).partition(" ")[2].partition(" ")[2]
