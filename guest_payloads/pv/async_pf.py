# SPDX-License-Identifier: GPL-2.0-or-later
"""Asynchronous page faults: the host holds two pages back with userfaultfd, and fetches each when the guest says so."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vmm.abi import msrs, ports, pv
from vmm.abi.x86 import PAGE
from vmm.kvm.userfaultfd import NoUserfaultfd
from vmm.machine.machine import Irqchip
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.accesses import GP, OK, Access, perform, rdmsr, wrmsr
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.held_back import held_back
from vmm.payload.proof.lab import Lab, ring0
from vmm.payload.proof.verdict import Finding, Refusal, Unproven, Verdict

ROWS = ("ASYNC_PF", "ASYNC_PF_INT")
_FACTS = {row.name: row.value for row in pv.CONSTANTS}
BROADCAST = _FACTS["ASYNC_PF_BROADCAST_TOKEN"]
KVM_ASYNC_PF_ENABLED = _FACTS["KVM_ASYNC_PF_ENABLED"]
KVM_ASYNC_PF_SEND_ALWAYS = _FACTS["KVM_ASYNC_PF_SEND_ALWAYS"]
KVM_ASYNC_PF_DELIVERY_AS_INT = _FACTS["KVM_ASYNC_PF_DELIVERY_AS_INT"]
EN, INT, ACK = (row.number for row in msrs.KVM_MSRS if row.name.startswith("MSR_KVM_ASYNC_PF_"))
NO_RAM = 0x8000_0000  # an address that no memslot of a small guest holds
CONTENT = (0x0123456789ABCDEF, 0xFEDCBA9876543210)  # of page A and page B
NOT_FETCHED = "the userfaultfd was never answered, so no page came back"
ATTEMPTS = 3
TOKEN_ID_BITS = 12  # a token is (number << 12) | vCPU id
VCPU = 0


@dataclass(frozen=True)
class Evidence:
    """What one guest saw (its results, by their names) and what the host did. Tokens and flags as the .asm names them.

    `asked` and `fetched` count pages that the userfaultfd reported and that were copied in, `untold` those of them
    that the guest had not told of. `attempts` is how many guests it took. `ring0` is what ring 0 of a guest is on this
    host, as measured; `always` what a guest saw whose tasks run there with KVM_ASYNC_PF_SEND_ALWAYS. None where there
    was none: it needs a native ring 0, for KVM's emulator just waits for a page.
    """

    broadcast: int = 0
    faults: int = 0
    token_a: int = 0
    flags_a: int = 0
    error_a: int = 0
    token_b: int = 0
    flags_b: int = 0
    error_b: int = 0
    progress: int = 0
    early: int = 0
    ready_a: int = 0
    held: int = 0
    ready_b: int = 0
    readies: int = 0
    loaded_a: int = 0
    loaded_b: int = 0
    turns: int = 0
    asked: int = 0
    fetched: int = 0
    untold: int = 0
    attempts: int = 1
    ring0: str = ""
    always: Evidence | None = None

    def numbers(self, *names: str) -> dict[str, int | str]:
        """For a finding: those that its row is about; tokens and contents in hexadecimal."""
        hexadecimal = ("broadcast", "token_", "ready_", "loaded_")
        values = {name: getattr(self, name) for name in (*names, "asked", "fetched", "untold", "attempts")}
        return {
            name: f"{value:#x}" if name.startswith(hexadecimal) else value
            for name, value in values.items()
            if value is not None
        }

    @property
    def of_missing(self) -> dict[str, int | str]:
        """The numbers of row ASYNC_PF."""
        tasks = (f"{name}_{task}" for task in "ab" for name in ("token", "flags", "error", "loaded"))
        shown = self.numbers("faults", *tasks, "progress", "turns")
        if self.always is None:
            return shown | ({"ring0": f"not shown: ring 0 is {self.ring0}"} if self.ring0 not in ("", "native") else {})
        return shown | {
            "ring0": self.ring0,
            "ring0_faults": self.always.faults,
            "ring0_loaded_a": f"{self.always.loaded_a:#x}",
            "ring0_loaded_b": f"{self.always.loaded_b:#x}",
        }

    @property
    def of_ready(self) -> dict[str, int | str]:
        """The numbers of row ASYNC_PF_INT."""
        return self.numbers(
            "broadcast", "early", "token_a", "ready_a", "held", "token_b", "ready_b", "readies", "loaded_a", "loaded_b"
        )


def observe(guest: Guest, *, reply: bool = True, prompt: bool = False) -> Evidence:
    """Run one guest to its end. GuestBroke if it has another one."""
    pages = [struct.pack("<Q", number) * (PAGE // 8) for number in CONTENT]
    with held_back(guest, guest.params["pages"], pages, reply=reply, prompt=prompt) as pager:
        page_of = {guest.constant("BOTH_MISSING"): 0, guest.constant("FIRST_READY"): 1}  # which to fetch at this word
        guest.machine.on_port_write(ports.DELAY, lambda word: pager.tell(page_of[word]))
        run_to_pass(guest)
    stored: dict[str, Any] = {name: value for name, value in guest.results.items() if value is not None}
    return Evidence(
        **stored,
        turns=guest.params["turns"],
        asked=len(pager.asked),
        fetched=len(pager.fetched),
        untold=len(pager.fetched - pager.told),
    )


# -- the judgement


def judge(seen: Evidence) -> dict[str, Finding]:
    """Both rows from the evidence alone."""
    return {"ASYNC_PF": judge_missing(seen), "ASYNC_PF_INT": judge_ready(seen)}


def judge_missing(seen: Evidence) -> Finding:
    """ASYNC_PF: the vCPU was told that a page is missing, ran something else, and loaded the bytes in the end."""
    if not seen.fetched:
        return Finding(Verdict.UNPROVEN, NOT_FETCHED, seen.of_missing)
    wrong = _wrong_fault(seen) or _wrong_load(seen) or _wrong_in_ring0(seen)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, seen.of_missing)
    summary = (
        f"#PF with token {seen.token_a:#x}, {seen.progress} turns of another task meanwhile, "
        f"then the load read the page: {seen.loaded_a:#x}"
        + ("; in ring 0 too, with KVM_ASYNC_PF_SEND_ALWAYS" if seen.always else "")
    )
    return Finding(Verdict.WORKS, "", seen.of_missing, summary)


def judge_ready(seen: Evidence) -> Finding:
    """ASYNC_PF_INT: an interrupt brought each token back, after the page was there, and the second after the ACK."""
    if not seen.fetched:
        return Finding(Verdict.UNPROVEN, NOT_FETCHED, seen.of_ready)
    if seen.faults < 2:
        reason = f"{seen.faults} of 2 missing pages raised an asynchronous #PF, so there is nothing to be ready"
        return Finding(Verdict.UNPROVEN, reason, seen.of_ready)
    wrong = _wrong_readiness(seen)
    if wrong:
        return Finding(Verdict.BROKEN, wrong, seen.of_ready)
    summary = (
        f"interrupts with tokens {seen.ready_a:#x} and {seen.ready_b:#x}, each after its page was fetched, "
        "the second held back until the ACK"
    )
    return Finding(Verdict.WORKS, "", seen.of_ready, summary)


def _wrong_fault(seen: Evidence) -> str:
    if seen.faults == 0:
        return "the load from a missing page raised no #PF: the vCPU waited for the page"
    if seen.faults != 2:
        return f"{seen.faults} of 2 missing pages raised an asynchronous #PF"
    faults = {"A": (seen.token_a, seen.flags_a, seen.error_a), "B": (seen.token_b, seen.flags_b, seen.error_b)}
    for task, (token, flags, error) in faults.items():
        if flags != 1 or error != 0:
            return f"#PF of task {task}: flags {flags} and error code {error:#x}, and the ABI says 1 and 0"
        if token & (1 << TOKEN_ID_BITS) - 1 != VCPU or not token >> TOKEN_ID_BITS:
            return f"#PF of task {task}: CR2 {token:#x} is no token of vCPU {VCPU}"
    if seen.token_a == seen.token_b:
        return f"two outstanding pages have the same token {seen.token_a:#x}"
    if seen.progress != seen.turns:
        return f"the other task made {seen.progress} of {seen.turns} turns while page A was missing"
    if seen.untold:
        return f"{seen.untold} pages had to be supplied before the guest told of them"
    return ""


def _wrong_load(seen: Evidence) -> str:
    for task, loaded, content in (("A", seen.loaded_a, CONTENT[0]), ("B", seen.loaded_b, CONTENT[1])):
        if loaded != content:
            return f"task {task} loaded {loaded:#x} in the end, and the page holds {content:#x}"
    return ""


def _wrong_in_ring0(seen: Evidence) -> str:
    if seen.always is None:
        return ""
    wrong = _wrong_fault(seen.always) or _wrong_load(seen.always)
    return f"KVM_ASYNC_PF_SEND_ALWAYS in ring 0: {wrong}" if wrong else ""


def _wrong_readiness(seen: Evidence) -> str:
    if seen.broadcast != BROADCAST:
        return f"the first token after switching on was {seen.broadcast:#x}, and the ABI says {BROADCAST:#x}"
    if seen.early:
        return f"{seen.early} page-ready interrupts came before any page was supplied"
    if seen.readies == 0:
        return f"token {seen.token_a:#x} never came back, though its page was supplied"
    if seen.ready_a != seen.token_a:
        return f"the first page-ready interrupt brought token {seen.ready_a:#x}, and page A's is {seen.token_a:#x}"
    if seen.held != 1:
        return (
            f"the second page-ready interrupt came before the first was acknowledged, {seen.attempts} times of as many"
        )
    if seen.readies != 2:
        return f"{seen.readies} page-ready interrupts for 2 pages, though the first was acknowledged"
    if seen.ready_b != seen.token_b:
        return f"the second page-ready interrupt brought token {seen.ready_b:#x}, and page B's is {seen.token_b:#x}"
    return ""


# -- the proof


def prove(lab: Lab) -> dict[str, Finding]:
    """Guests in ring 3, and one in ring 0 where it is native."""
    missing, ready = lab.absent("ASYNC_PF"), lab.absent("ASYNC_PF_INT")
    if missing:
        return {
            "ASYNC_PF": missing,
            "ASYNC_PF_INT": ready or Finding(Verdict.INERT, "without ASYNC_PF (bit 4) there is no page to be told of"),
        }
    try:
        if ready:
            return {"ASYNC_PF": _alone(lab), "ASYNC_PF_INT": ready}
        return judge(look(lab))
    except NoUserfaultfd as error:
        raise Unproven(error.one_line) from error


def look(lab: Lab) -> Evidence:
    """The whole evidence.

    KVM looks for a page that is ready when its worker is done, not at the ACK alone: a worker that is late enough
    (after the first token was consumed) is no violation. So a second token too early counts when it is so every time,
    and the same goes for a host so busy that our patience ended before the guest had come to tell us of its page.
    """
    seen = replace(_patiently(lab, {}), ring0=ring0().kind)
    if seen.ring0 != "native" or not seen.fetched or not seen.faults:
        return seen
    always = lab.param("control") | KVM_ASYNC_PF_SEND_ALWAYS
    return replace(seen, always=_patiently(lab, {"ring": 0, "control": always}))


def _patiently(lab: Lab, params: dict[str, int]) -> Evidence:
    """One guest, or up to ATTEMPTS where the host was late."""
    for attempts in range(1, ATTEMPTS + 1):
        with lab.guest(params=params) as guest:
            seen = replace(observe(guest, reply=bool(lab.param("reply"))), attempts=attempts)
        if not seen.faults or (seen.held < 2 and not seen.untold):
            break
    return seen


def _alone(lab: Lab) -> Finding:
    """ASYNC_PF where ASYNC_PF_INT is hidden: a guest that keeps to its CPUID uses neither its flag nor its MSR."""
    with lab.guest(params={"control": KVM_ASYNC_PF_ENABLED, "vector": 0}) as guest:
        seen = observe(guest, prompt=True)
    if seen.faults:
        return Finding(Verdict.BROKEN, "#PF without ASYNC_PF_INT, which no interrupt could follow", seen.of_missing)
    reason = "accepted, but KVM delivers nothing without ASYNC_PF_INT (bit 14): the vCPU waits for the page"
    return Finding(Verdict.INERT, reason, seen.of_missing)


# -- refusals


def refusals(lab: Lab) -> dict[str, list[Refusal]]:
    """pv-abi's rules for the three MSRs, and where a missing page raises no #PF."""
    if not all(lab.offered(name) for name in lab.proves):
        return {}
    asked: dict[str, list[Refusal]] = {name: [] for name in lab.proves}
    for group in _groups():
        rows = [row for row in group.rows if row.feature in asked]
        with lab.guest(payload="accesses", mask=group.mask, enforce=group.enforce, irqchip=group.irqchip) as guest:
            for row, answer in zip(rows, perform(guest, [row.access for row in rows]), strict=True):
                asked[row.feature].append(Refusal(row.kind, row.what, row.expected, answer.text))
    asked["ASYNC_PF"] += _silent(lab)
    return asked


class Row(NamedTuple):
    """One access of a refusal."""

    feature: str
    kind: str
    what: str
    access: Access
    expected: str


class Group(NamedTuple):
    """Accesses of one machine."""

    rows: list[Row]
    mask: tuple[str, ...] = ()
    enforce: bool = True
    irqchip: Irqchip = "split"


def _groups() -> Iterator[Group]:
    shared = REGIONS["data"].base + REGIONS["data"].size - PAGE  # far behind the table of accesses
    on = KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT

    def en(kind: str, what: str, value: int, expected: str) -> Row:
        return Row("ASYNC_PF", kind, f"MSR_KVM_ASYNC_PF_EN {what}", wrmsr(EN, value), expected)

    def with_int(kind: str, what: str, value: int, expected: str) -> Row:
        return Row("ASYNC_PF_INT", kind, f"MSR_KVM_ASYNC_PF_EN {what}", wrmsr(EN, value), expected)

    def vector(kind: str, what: str, value: int, expected: str) -> Row:
        return Row("ASYNC_PF_INT", kind, f"MSR_KVM_ASYNC_PF_INT = {value:#x}{what}", wrmsr(INT, value), expected)

    def ack(kind: str, what: str, value: int, expected: str) -> Row:
        return Row("ASYNC_PF_INT", kind, f"MSR_KVM_ASYNC_PF_ACK = {value:#x}{what}", wrmsr(ACK, value), expected)

    yield Group(
        [
            vector("control", ", feature present and enforced", 0xF3, OK),
            ack("control", ", feature present and enforced", 1, OK),
            en("control", "with bits 0 and 3, feature present and enforced", shared | on, OK),
            vector("reserved", ", a bit above the vector", 0x100, GP),
            ack("argument", ": other bits are ignored", 0xFF, OK),
            en("reserved", "with bit 4", shared | on | 1 << 4, GP),
            en("reserved", "with bit 5", shared | on | 1 << 5, GP),
            en("address", "with bits 0 and 3 and an address that is no RAM", NO_RAM | on, GP),
            en("control", "= 0", 0, OK),
        ]
    )
    yield Group(
        [
            en("argument", "with bits 0 and 3, no local APIC in the kernel", shared | on, GP),
            vector("argument", ", no local APIC in the kernel", 0xF3, GP),
        ],
        irqchip="none",
    )
    yield Group(
        [
            vector("masked", ", masked and not enforced", 0xF3, OK),
            ack("masked", ", masked and not enforced", 1, OK),
            with_int("masked", "with bit 3, masked and not enforced", shared | on, OK),
            en("masked", "with bits 0 and 3, masked and not enforced", shared | on, OK),
        ],
        mask=ROWS,
        enforce=False,
    )
    yield Group(
        [
            en("enforced", "with bits 0 and 3, masked and enforced", shared | on, GP),
            en("enforced", "= 0, masked and enforced", 0, GP),
            Row("ASYNC_PF", "enforced", "RDMSR of MSR_KVM_ASYNC_PF_EN, masked and enforced", rdmsr(EN), GP),
            vector("control", ", ASYNC_PF masked and enforced", 0xF3, OK),
            ack("control", ", ASYNC_PF masked and enforced", 1, OK),
        ],
        mask=("ASYNC_PF",),
    )
    yield Group(
        [
            vector("enforced", ", masked and enforced", 0xF3, GP),
            ack("enforced", ", masked and enforced", 1, GP),
            with_int("enforced", "with bits 0 and 3, ASYNC_PF_INT masked and enforced", shared | on, GP),
            with_int("control", "with bit 0 only, ASYNC_PF_INT masked and enforced", shared | KVM_ASYNC_PF_ENABLED, OK),
        ],
        mask=("ASYNC_PF_INT",),
    )


def _silent(lab: Lab) -> Iterator[Refusal]:
    """Where KVM may not inject: the vCPU waits for the page instead, and the load reads its bytes."""
    cases: tuple[tuple[str, dict[str, int], tuple[str, ...]], ...] = (
        ("in ring 0 without KVM_ASYNC_PF_SEND_ALWAYS", {"ring": 0}, ()),
        ("with interrupts off (IF=0)", {"interrupts": 0}, ()),
        (
            "with bit 0 only, ASYNC_PF_INT masked and enforced",
            {"control": KVM_ASYNC_PF_ENABLED, "vector": 0},
            ("ASYNC_PF_INT",),
        ),
    )
    for what, params, mask in cases:
        with lab.guest(params=params, mask=mask, enforce=True) as guest:
            seen = observe(guest, prompt=True)
        loaded = "the page" if seen.loaded_a == CONTENT[0] else f"{seen.loaded_a:#x}"
        yield Refusal(
            "argument", f"a missing page {what}", "no #PF, loads the page", f"{seen.faults or 'no'} #PF, loads {loaded}"
        )
