# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of wrong_opcode: both instructions, in writable and in read-only text, with the quirk on and off.

A run in which KVM rewrites and repeats for ever never comes back by itself. It is cut into short slices, and given up
as such once RIP stands at the instruction and KVM has emulated a thousand times what the whole payload needs, or, on a
KVM without that statistic, at the last limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vmm.abi import quirks, x86
from vmm.machine.ends import Why
from vmm.payload.guest import Guest
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Deviation, Finding, GuestBroke, Unproven, Verdict

OPCODES = {name: int.from_bytes(code, "big") for name, code in x86.HYPERCALL_INSTRUCTIONS.items()}
UD, PF = 6, 14
WRITE_TO_PRESENT = int(x86.PF.PROT | x86.PF.WRITE)
SLICE = 0.03  # seconds of one run
LIMIT = 2.0  # seconds at the same instruction, where KVM does not count what it emulates
GIVE_UP = 30.0  # seconds of all runs of one guest, whatever they did
STATISTIC = "insn_emulation"
ENDLESS = 2000  # emulated instructions; the payload has a hundred
DEFAULT_RAX = 1  # the number of the hypercall: nobody answered


@dataclass(frozen=True)
class Shot:
    """One guest. `endless`: KVM_RUN would not have come back, having emulated so many instructions (None: not counted).
    `vector` is None without an exception; `fault_at` is CR2 less the instruction's address; `after` the instruction's
    bytes at the end.
    """

    opcode: str
    patching: bool
    readonly: bool
    after: int
    endless: bool = False
    emulated: int | None = None
    vector: int | None = None
    error: int = 0
    fault_at: int = 0
    rax: int = DEFAULT_RAX

    @property
    def changed(self) -> bool:
        return self.after != OPCODES[self.opcode]

    @property
    def name(self) -> str:
        text = "read-only" if self.readonly else "writable"
        return f"{self.opcode}, {text}, quirk {'on' if self.patching else 'off'}"

    @property
    def words(self) -> str:
        """What came of it, in words."""
        if self.endless:
            end = "no end" + (f": {self.emulated} instructions emulated" if self.emulated else "")
        elif self.vector is None:
            end = f"RAX {self.rax}"
        else:
            end = f"#{x86.BY_VECTOR[self.vector].mnemonic}" + (f" error {self.error:#x}" if self.vector == PF else "")
        return f"{end}, bytes {self.after:06x}"


@dataclass(frozen=True)
class Evidence:
    shots: tuple[Shot, ...] = field(default_factory=tuple)

    def shot(self, opcode: str, *, patching: bool, readonly: bool = False) -> Shot:
        """The one guest of that kind."""
        return next(
            each for each in self.shots if (each.opcode, each.patching, each.readonly) == (opcode, patching, readonly)
        )


def prove(lab: Lab) -> Finding:
    quirk = quirks.quirk(lab.proves[0])
    shots = []
    for patching in (False, True):
        for opcode in OPCODES:
            for readonly in (False, True):
                with lab.guest(patching=patching) as guest:
                    if not guest.machine.vm.check_extension("DISABLE_QUIRKS2") & quirk.value:
                        raise Unproven(f"this KVM cannot switch {quirk.name} off (Linux 5.19)")
                    shots.append(_shoot(guest, opcode, patching, readonly))
    return judge(Evidence(tuple(shots)))


def _shoot(guest: Guest, opcode: str, patching: bool, readonly: bool) -> Shot:
    machine = guest.machine
    vcpu = machine.cpus[0].vcpu
    address = guest.symbol(f"{opcode}_page")
    machine.memory.pack("QQ", guest.constant("CHOICE"), list(OPCODES).index(opcode), readonly)
    statistics = vcpu.get_stats() if machine.kvm.check_extension("BINARY_STATS_FD") else None
    try:
        begin = statistics.get(STATISTIC) if statistics else None
        spent = 0.0
        while (result := guest.run(SLICE)).stop.why is Why.TIME_LIMIT:
            spent += result.wall
            emulated = statistics[STATISTIC] - begin if statistics and begin is not None else None
            stands = vcpu.get_regs().rip == address
            if stands and (spent >= LIMIT if emulated is None else emulated >= ENDLESS):
                return Shot(opcode, patching, readonly, _bytes(guest, address), endless=True, emulated=emulated)
            if spent >= GIVE_UP:
                raise GuestBroke(f"{opcode}: the guest did not come to an end within {GIVE_UP:g} s")
        if result.stop.why is not Why.EXIT_PORT:
            raise GuestBroke(f"{opcode}: {result.stop.text}")
    finally:
        if statistics:
            statistics.close()
    return Shot(
        opcode,
        patching,
        readonly,
        _bytes(guest, address),
        vector=None if guest["vector"] == guest.constant("NONE") else guest["vector"],
        error=guest["error"],
        fault_at=guest["address"] - address if guest["vector"] == PF else 0,
        rax=guest["rax"],
    )


def _bytes(guest: Guest, address: int) -> int:
    return int.from_bytes(guest.machine.memory.read(address, 3), "big")


def judge(evidence: Evidence) -> Finding:
    """One instruction is the CPU's own; the other is rewritten with the quirk on, #UD with it off."""
    numbers: dict[str, Any] = {shot.name: shot.words for shot in evidence.shots}
    for shot in evidence.shots:
        if shot.readonly and shot.changed:
            return Finding(Verdict.BROKEN, f"{shot.name}: KVM wrote to text that the guest mapped read-only", numbers)
        if not shot.patching and shot.changed:
            return Finding(Verdict.BROKEN, f"{shot.name}: KVM rewrote the instruction with the quirk off", numbers)
        if not shot.patching and shot.endless:
            return Finding(Verdict.BROKEN, f"{shot.name}: KVM_RUN never came back", numbers)
    off = {name: evidence.shot(name, patching=False) for name in OPCODES}
    elsewhere = [name for name, shot in off.items() if shot.vector is None and shot.rax]
    if elsewhere:
        text = f"{elsewhere[0]} gives RAX {off[elsewhere[0]].rax}: somebody other than KVM answers it"
        return Finding(Verdict.UNPROVEN, text, numbers)
    own = [name for name, shot in off.items() if shot.vector is None]
    if len(own) == 2:
        return Finding(Verdict.INERT, "both instructions reach KVM as they are: there is no wrong one", numbers)
    for name in OPCODES.keys() - set(own):
        for readonly in (False, True):
            shot = evidence.shot(name, patching=False, readonly=readonly)
            if shot.vector != UD:
                return Finding(Verdict.BROKEN, f"{shot.name}: {shot.words}, and should be #UD", numbers)
    return _judge_one(evidence, own[0], numbers) if own else _judge_none(evidence, numbers)


def _judge_one(evidence: Evidence, own: str, numbers: dict[str, Any]) -> Finding:
    """A host with a hypercall instruction of its own, as every VMX or SVM has."""
    other = next(name for name in OPCODES if name != own)
    for readonly in (False, True):
        shot = evidence.shot(own, patching=True, readonly=readonly)
        if shot.endless or shot.vector is not None or shot.rax or shot.changed:
            return Finding(Verdict.BROKEN, f"{shot.name}: {shot.words}, and should be RAX 0, not rewritten", numbers)
    shot = evidence.shot(other, patching=True)
    if shot.endless or shot.vector is not None or shot.rax or shot.after != OPCODES[own]:
        text = f"{shot.name}: {shot.words}, and should be RAX 0, bytes {OPCODES[own]:06x}"
        return Finding(Verdict.BROKEN, text, numbers)
    shot = evidence.shot(other, patching=True, readonly=True)
    deviations = () if _write_fault(shot) else (Deviation(shot.name, "a write #PF there", shot.words),)
    summary = f"{other} is rewritten to {own} and answered; #UD with the quirk off; read-only text: {shot.words}"
    return Finding(Verdict.WORKS, "", numbers, summary, deviations)


def _judge_none(evidence: Evidence, numbers: dict[str, Any]) -> Finding:
    """A host where neither instruction reaches KVM: nothing that KVM writes there can be executed."""
    for name in OPCODES:
        shot = evidence.shot(name, patching=True, readonly=True)
        if shot.vector is None and not shot.endless:
            return Finding(Verdict.BROKEN, f"{shot.name}: {shot.words}, and neither instruction reaches KVM", numbers)
    shots = [evidence.shot(name, patching=True) for name in OPCODES]
    endless = [shot for shot in shots if shot.endless]
    if len(endless) == len(shots):
        text = (
            "neither instruction reaches KVM, so rewriting helps nothing: with the quirk on KVM_RUN rewrites and"
            " repeats until the time limit; off: #UD, text untouched"
        )
        return Finding(Verdict.INERT, text, numbers)
    for shot in shots:
        if not shot.endless and shot.vector != UD:
            return Finding(Verdict.BROKEN, f"{shot.name}: {shot.words}, and neither instruction reaches KVM", numbers)
    return Finding(Verdict.INERT, "neither instruction reaches KVM, and the quirk does not change that", numbers)


def _write_fault(shot: Shot) -> bool:
    """A page fault for a write to the instruction itself, by the guest's own rights."""
    present_write = shot.error & WRITE_TO_PRESENT == WRITE_TO_PRESENT
    return shot.vector == PF and present_write and 0 <= shot.fault_at < 3
