# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 6: the timer interrupted three times, each was ended at the LAPIC, and the program noticed nothing."""

from __future__ import annotations

from functools import cache

from vmm.abi.msrs import msr
from vmm.asm.program import Program
from vmm.errors import VmmError
from vmm.learn.again import first_of, up_to
from vmm.learn.checks import Checks, Wrong
from vmm.learn.course import find
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.payload.catalog import Payload
from vmm.payload.guest import Guest
from vmm.payload.header import parse
from vmm.payload.options import Options

WANTED, HANDLER = 3, "tick"
KEPT = {"kept_rax": 0x1111, "kept_rcx": 0x2222, "kept_rdx": 0x3333}
_EOI = msr("X2APIC_EOI").number
EOI = ("x2apic_eoi", hex(_EOI), str(_EOI))
WITHOUT = "no_eoi.asm"
END, WRITE = "    mov   ecx, X2APIC_EOI\n", "    wrmsr\n"  # of the solution: without them its handler ends no interrupt
PASSED_BY = "has a WRMSR to X2APIC_EOI, and it was never executed: another way out lies before it"
HELD = "The LAPIC holds the first interrupt in service until then, and lets no other of its class through"
NOT_HELD = (
    "This host's LAPIC holds no interrupt in service, so the timer went on all the same; on others nothing would come "
    "after the first"
)


def check(seen: Seen) -> str:
    if not _ends_it(seen.program):
        raise Wrong(f"{_unended(seen)}. {NOT_HELD}")
    if _passed_by(seen):
        raise Wrong(f"your handler {PASSED_BY}. {NOT_HELD}")
    if value := _written(seen):
        raise Wrong(
            f"your handler writes {value:#x} to X2APIC_EOI, and 0 is the only value that it takes (SDM 10.12.1.2): a "
            "CPU may raise #GP for another. KVM of this host let it pass"
        )
    if stack := seen.guest["stack"]:
        raise Wrong(
            f"RSP is {stack:#x} lower at the end: the handler left on the stack what the CPU had pushed. RET takes RIP "
            "alone; IRETQ takes all five words, and with RFLAGS it switches interrupts on again"
        )
    for name, value in KEPT.items():
        if seen.guest[name] != value:
            register = name.removeprefix("kept_").upper()
            raise Wrong(
                f"your handler changed {register}: it was {value:#x} before the interrupts, and is "
                f"{seen.guest[name]:#x} "
                "after them. The interrupted program cannot know; PUSH what you use, and POP it, in the reverse order"
            )
    return f"{seen.guest['ticks']} interrupts came at vector 0x40, each ended at the LAPIC; every HLT waited inside KVM"


def why(seen: Seen) -> str:
    if seen.stop.why is Why.TIME_LIMIT and not _ends_it(seen.program):
        return f"So {_unended(seen)}. {HELD}"
    if seen.stop.why is Why.TIME_LIMIT and _passed_by(seen):
        return f"Your handler {PASSED_BY}. {HELD}"
    fault = seen.postmortem.fault
    if fault and seen.statement(seen.rip) == "wrmsr" and seen.reg("rcx") != _EOI:
        return f"The MSR that ends an interrupt is {EOI[1]}, X2APIC_EOI (0xb0 is its place in memory)"
    return ""


def _ends_it(program: Program) -> bool:
    """Does any line of the handler name the MSR? Where no LAPIC waits for it, this is all that tells."""
    begin = program.symbols.get(HANDLER, program.base)
    return any(
        any(word in line.text.lower().replace(",", " ").split() for word in EOI)
        for line in program.lines
        if line.address >= begin
    )


def _written(seen: Seen) -> int:
    """What the handler's first WRMSR writes, if it is to that MSR, seen in a run of its own; 0 where it is not."""
    at = first_of(seen, "wrmsr", seen.guest.symbol(HANDLER))
    if at is None:
        return 0
    with up_to(seen, at) as stood:
        if stood is None or stood[0].rcx & 0xFFFF_FFFF != _EOI:
            return 0
        return (stood[0].rdx & 0xFFFF_FFFF) << 32 | stood[0].rax & 0xFFFF_FFFF


def _passed_by(seen: Seen) -> bool:
    """Does the handler have WRMSRs, and come to none of them? Seen in a run of its own for each."""
    begin = seen.guest.symbol(HANDLER)
    places = [row.address for row in seen.program.lines if row.address >= begin and row.text.split()[:1] == ["wrmsr"]]
    for place in places:
        with up_to(seen, place) as stood:
            if stood is not None:
                return False
    return bool(places)


def _unended(seen: Seen) -> str:
    ticks = seen.u64(seen.guest.constant("TICKS"))
    return (
        f"no line of your handler writes to X2APIC_EOI: after {ticks} interrupt{'s' * (ticks != 1)} it has ended none"
    )


@cache
def differs() -> str:
    lesson = find("timer")
    header = parse(lesson.starter, lesson.file)
    before, _, after = lesson.solution.partition(END)
    text = before + after.replace(WRITE, "", 1)
    try:
        with Guest(Payload(WITHOUT, WITHOUT, "", header, text=text), Options(timeout=0.3)) as guest:
            ended = guest.run().stop.why
    except VmmError:
        return ""
    if ended is not Why.EXIT_PORT:
        return ""
    return f"{NOT_HELD} (measured: a guest that ends none got {WANTED}). The check looks at your handler's text for it."


CHECKS = Checks(check, why, differs=differs)
