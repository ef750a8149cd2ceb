# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of send_ipi: a table of calls to three vCPUs with APIC ids far apart, and who took what of each."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.abi import apic, pv
from vmm.abi.ports import HANDED_OVER
from vmm.base.bits import signed
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import hypercall, perform
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

NR = next(row for row in pv.HYPERCALLS if row.name == "SEND_IPI").nr
IDS = (0, 1, 70)
_ROW = struct.Struct("<32Q")
FAR = 70 - 64  # id 70's bit in the second word of a bitmap that starts at 0
ANY_VECTOR = 0x60  # for who has no handler


@dataclass(frozen=True)
class Call:
    """a0 to a3 (in a3 without the vector), and what must come of them: RAX, and the ids that are to take it."""

    what: str
    args: tuple[int, int, int, int]
    result: int
    targets: tuple[int, ...] = ()

    @property
    def nmi(self) -> bool:
        return self.args[3] & 0x700 == apic.DM_NMI

    def asked(self, vector: int) -> tuple[int, int, int, int]:
        """The arguments whole, for an interrupt by `vector`."""
        low, high, least, icr = self.args
        return low, high, least, icr if self.nmi else icr | vector


CALLS = (
    Call("ids 0 and 1", (0b11, 0, 0, 0), 2, (0, 1)),
    Call("id 70, second word", (0, 1 << FAR, 0, 0), 1, (70,)),
    Call("id 70, bitmap from 70", (1, 0, 70, 0), 1, (70,)),
    Call("ids 1 and 70, 69 apart", (0b10, 1 << FAR, 0, 0), 2, (1, 70)),
    Call("ids 1 and 70, bitmap from 1", (1, 1 << FAR - 1, 1, 0), 2, (1, 70)),
    Call("all three", (0b11, 1 << FAR, 0, 0), 3, IDS),
    Call("ids without a vCPU", (0xFC, 1, 0, 0), 0),
    Call("the bitmap's offset, not id 1", (0b10, 0, 64, 0), 0),
    Call("NMI to 1 and 70", (0b10, 1 << FAR, 0, apic.DM_NMI), 2, (1, 70)),
    Call("above every id", (1, 1, 300, 0), 0),
    Call("no id", (0, 0, 0, 0), 0),
    Call("logical destination", (0b11, 0, 0, apic.DEST_LOGICAL), -pv.KVM_EINVAL),
    Call("shorthand self", (0b11, 0, 0, apic.DEST_SELF), -pv.KVM_EINVAL),
    Call("shorthand all", (0b11, 0, 0, apic.DEST_ALLINC), -pv.KVM_EINVAL),
    Call("shorthand all but self", (0b11, 0, 0, apic.DEST_ALLBUT), -pv.KVM_EINVAL),
)
REFUSED = tuple(call for call in CALLS if call.result == -pv.KVM_EINVAL)


@dataclass(frozen=True)
class Came:
    """What came of one call: RAX, and the ids that took an interrupt and an NMI meanwhile (one entry for each)."""

    result: int
    interrupts: tuple[int, ...]
    nmis: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    came: tuple[Came, ...]
    kind: int
    served: int


def prove(lab: Lab) -> Finding:
    if absent := lab.absent(lab.proves[0]):
        return absent
    with lab.guest(cpus=IDS) as guest:
        came = run_table(guest, CALLS)
        assert guest.hypercalls is not None
        return judge(Evidence(came, guest["kind"], guest.hypercalls.served.total()))


def run_table(guest: Guest, calls: tuple[Call, ...]) -> tuple[Came, ...]:
    """Let the guest make the calls; who took what is the difference of the counters from row to row."""
    memory = guest.machine.memory
    table, vector = guest.constant("TABLE"), guest.constant("COUNTED_VECTOR")
    for row, call in enumerate(calls):
        memory.write(table + row * _ROW.size, _ROW.pack(1, *call.asked(vector), *[0] * 27))
    run_to_pass(guest)
    came, before = [], (0,) * (2 * len(IDS))
    for row in range(len(calls)):
        words = _ROW.unpack(memory.read(table + row * _ROW.size, _ROW.size))
        after = (*words[8 : 8 + len(IDS)], *words[20 : 20 + len(IDS)])
        taken = [new - old for new, old in zip(after, before, strict=True)]
        result = signed(words[5])
        interrupts, nmis = taken[: len(IDS)], taken[len(IDS) :]
        came.append(Came(result, _each(interrupts), _each(nmis)))
        before = after
    return tuple(came)


def _each(counts: list[int]) -> tuple[int, ...]:
    return tuple(apic_id for apic_id, count in zip(IDS, counts, strict=True) for _ in range(count))


def judge(evidence: Evidence) -> Finding:
    """Every call returned what it should, and reached exactly the vCPUs that it named, once each."""
    numbers = {
        call.what: f"RAX {came.result}, interrupts at {list(came.interrupts)}, NMIs at {list(came.nmis)}"
        for call, came in zip(CALLS, evidence.came, strict=False)
    }
    numbers["served by pyvmm"] = str(evidence.served)
    if len(evidence.came) != len(CALLS):
        return Finding(Verdict.BROKEN, f"{len(evidence.came)} of {len(CALLS)} calls were made", numbers)
    for call, came in zip(CALLS, evidence.came, strict=True):
        if came.result != call.result:
            text = f"{call.what}: RAX is {pv.return_words(came.result)}, and should be {pv.return_words(call.result)}"
            return Finding(Verdict.BROKEN, text, numbers)
        wanted = ((), call.targets) if call.nmi else (call.targets, ())
        if (came.interrupts, came.nmis) != wanted:
            text = (
                f"{call.what}: interrupts at {list(came.interrupts)} and NMIs at {list(came.nmis)},"
                f" and should be at {list(wanted[0])} and {list(wanted[1])}"
            )
            return Finding(Verdict.BROKEN, text, numbers)
    sent = sum(max(call.result, 0) for call in CALLS)
    summary = f"{sent} IPIs by {len(CALLS)} calls reached exactly the named ids of 0, 1 and 70; NMI too"
    if evidence.served or evidence.kind == HANDED_OVER:
        return Finding(Verdict.SERVICED, f"by KVM_SIGNAL_MSI: {summary}", numbers, summary)
    return Finding(Verdict.WORKS, "", numbers, summary)


def refusals(lab: Lab) -> list[Refusal]:
    """The hypercall under enforcement, and the forms of it that KVM does not take."""
    # A vector's own self-IPI would need a handler, so the controls name nobody: 0 is KVM's answer to that.
    nobody = hypercall(NR, 0, 0, 0, ANY_VECTOR)
    rows = []
    for kind, mask, enforce, want in (
        ("control", (), True, 0),
        ("masked", lab.proves, False, 0),
        ("enforced", lab.proves, True, -pv.KVM_ENOSYS),
    ):
        with lab.guest(payload="accesses", mask=mask, enforce=enforce) as guest:
            first, *rest = perform(guest, [nobody, *(hypercall(NR, *call.asked(ANY_VECTOR)) for call in REFUSED)])
        rows.append(Refusal(kind, "KVM_HC_SEND_IPI", pv.return_words(want), pv.return_words(first.value)))
        if kind == "control":
            rows += [
                Refusal("argument", call.what, pv.return_words(call.result), pv.return_words(answer.value))
                for call, answer in zip(REFUSED, rest, strict=True)
            ]
    return rows
