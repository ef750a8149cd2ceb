# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of cpu_modes: each mode entered by KVM_SET_SREGS, then real mode only, and the guest climbs."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmm.abi.x86 import CR0, CR4, EFER
from vmm.kvm.state import Table
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.modes import MODES, enter
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Verdict

NAMES = {
    "real": "mode_real",
    "protected16": "mode_protected16",
    "protected32": "mode_protected32",
    "paging32": "mode_paging32",
    "pae": "mode_pae",
    "long": "mode_long",
}
TABLES = {"paging32": "directory32", "pae": "pointers_pae", "long": "level4"}  # what CR3 points to
WINDOWS = {"paging32": 0x400000, "pae": 0x400000, "long": 0x8000400000}
CLIMBS = {"paging32": 1, "pae": 2, "long": 3}  # PARAM_climb that ends there; the first three are on the way of each
CLIMB_ALL = 4
GDT_SIZE = 6 * 8
STATISTIC = "insn_emulation"


@dataclass(frozen=True)
class Seen:
    """What one mode told of itself; `window` None where there is no paging."""

    push: int | None = None
    cr0: int | None = None
    cr4: int | None = None
    efer: int | None = None
    window: int | None = None


@dataclass(frozen=True)
class Way:
    """One entry into a mode. `ended` is empty for a PASS, `shutdown` a triple fault; `moved`: an instruction ran.

    `kept` is CR0 as KVM_GET_SREGS has it after KVM_SET_SREGS; None where the guest did the switching.
    """

    seen: Seen = field(default_factory=Seen)
    ended: str = ""
    shutdown: bool = False
    moved: bool = True
    kept: int | None = None


@dataclass(frozen=True)
class Evidence:
    """One mode. `emulated` is KVM's count of instructions that it emulated in real mode; some 20 are executed there."""

    mode: str
    by_registers: Way
    by_guest: Way
    emulated: int | None
    marker: int  # behind the page tables


def prove(lab: Lab) -> dict[str, Finding]:
    registers: dict[str, Way] = {}
    emulated, marker = None, 0
    for mode in MODES:
        with lab.guest(params={"climb": 0}) as guest:
            before = _emulated(guest) if mode == "real" else None
            registers[mode], marker = _run(guest, mode)[mode], guest.constant("MARKER")
            if before is not None:
                emulated = (_emulated(guest) or 0) - before
    climbed: dict[str, Way] = {}
    for mode, climb in CLIMBS.items():
        found = _climb(lab, climb)
        climbed |= {name: found[name] for name in MODES if name == mode or (mode == "long" and name not in CLIMBS)}
    if not any(climbed[mode].ended for mode in CLIMBS):
        climbed = _climb(lab, CLIMB_ALL)
    return {NAMES[mode]: judge(Evidence(mode, registers[mode], climbed[mode], emulated, marker)) for mode in MODES}


def _climb(lab: Lab, climb: int) -> dict[str, Way]:
    with lab.guest(params={"climb": lab.options.params.get("climb", climb)}) as guest:
        return _run(guest, "real")


def _emulated(guest: Guest) -> int | None:
    """KVM's count of instructions it has emulated; None where it does not count."""
    if not guest.machine.kvm.check_extension("BINARY_STATS_FD"):
        return None
    with guest.machine.cpus[0].vcpu.get_stats() as stats:
        return stats.get(STATISTIC)


def _run(guest: Guest, start: str) -> dict[str, Way]:
    """Start in one mode, and what became of each."""
    vcpu, bits = guest.machine.cpus[0].vcpu, MODES[start].bits
    base = REGIONS["code"].base if bits == 16 else 0
    entry = guest.symbol(start) - base
    enter(
        vcpu,
        start,
        entry,
        code=guest.constant(f"CODE{bits}"),
        data=guest.constant("DATA16" if bits == 16 else "FLAT"),
        base=base,
        cr3=guest.symbol(TABLES[start]) if start in TABLES else 0,
        gdt=Table(guest.symbol("gdt"), GDT_SIZE - 1),
    )
    kept, ended = vcpu.get_sregs().cr0, ""
    try:
        run_to_pass(guest)
    except GuestBroke as error:
        ended = str(error)
    shutdown = guest.result is not None and guest.result.stop.why is Why.SHUTDOWN
    moved = vcpu.get_regs().rip != entry
    results = guest.results
    return {
        mode: Way(
            Seen(*(results.get(f"{mode}_{name}") for name in ("push", "cr0", "cr4", "efer", "window"))),
            ended,
            shutdown,
            moved,
            kept if mode == start else None,
        )
        for mode in MODES
    }


def judge(evidence: Evidence) -> Finding:
    """The mode, both ways, was what it should be by its bits and by what it did."""
    mode, registers, climbed = evidence.mode, evidence.by_registers, evidence.by_guest
    numbers = {
        "by registers": _shown(registers),
        "by the guest, from real mode": _shown(climbed),
        "instructions that KVM emulated in real mode": evidence.emulated,
    }
    numbers["CR0 given to KVM_SET_SREGS, and read back"] = f"{MODES[mode].cr0:#x}, {registers.kept or 0:#x}"
    if _never_runs(evidence):
        text = (
            f"KVM_SET_SREGS drops CR0.PG (given {MODES[mode].cr0:#x}, reads back {registers.kept:#x}), and a guest "
            "that sets it shuts down: this KVM has paging in long mode only"
        )
        return Finding(Verdict.INERT, text, numbers)
    for way, each in (("by registers", registers), ("by the guest", climbed)):
        text = _wrong(mode, each, evidence.marker)
        if text:
            return Finding(Verdict.BROKEN, f"entered {way}: {text}", numbers)
    summary = f"entered by registers and by the guest itself: PUSH takes {registers.seen.push} bytes"
    if mode in WINDOWS:
        summary += f", {WINDOWS[mode]:#x} is where the tables put it"
    return Finding(Verdict.WORKS, "", numbers, summary)


def _never_runs(evidence: Evidence) -> bool:
    """The host refuses paging without long mode: it drops the bit, no instruction runs, and it emulates ring 0."""
    registers, climbed = evidence.by_registers, evidence.by_guest
    dropped = registers.kept is not None and not registers.kept & CR0.PG
    never = registers.shutdown and not registers.moved and climbed.shutdown and climbed.seen == Seen()
    return evidence.mode in ("paging32", "pae") and bool(evidence.emulated) and dropped and never


def _shown(way: Way) -> str:
    seen = way.seen
    pairs = (("PUSH", seen.push), ("CR0", seen.cr0), ("CR4", seen.cr4), ("EFER", seen.efer), ("window", seen.window))
    shown = ", ".join(f"{name} {value:#x}" for name, value in pairs if value is not None)
    return shown or way.ended or "nothing"


def _wrong(mode: str, way: Way, marker: int) -> str:
    seen, row = way.seen, MODES[mode]
    if seen.push is None or seen.cr0 is None or seen.cr4 is None or seen.efer is None:
        return way.ended or "the guest did not come there"
    if seen.push * 8 != row.bits:
        return f"PUSH takes {seen.push} bytes, and code of {row.bits} bits takes {row.bits // 8}"
    for name, got, mask, want in (
        ("CR0", seen.cr0, CR0.PE | CR0.PG, row.cr0),
        ("CR4", seen.cr4, CR4.PAE | CR4.PSE, row.cr4),
        ("EFER", seen.efer, EFER.LME | EFER.LMA, row.efer),
    ):
        if got & mask != want & mask:
            return f"{name} is {got:#x}, and of {int(mask):#x} it should have {want & int(mask):#x}"
    if row.paging and seen.window != marker:
        found = "nothing" if seen.window is None else f"{seen.window:#x}"
        return f"behind the page tables it read {found}, and {marker:#x} is there"
    return ""
