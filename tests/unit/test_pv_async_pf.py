# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of asynchronous page faults on synthetic evidence: every verdict, and every way to be wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from guest_payloads.pv import async_pf
from guest_payloads.pv.async_pf import BROADCAST, CONTENT, Evidence, judge
from vmm.kvm.userfaultfd import NoUserfaultfd
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(
    broadcast=BROADCAST,
    faults=2,
    token_a=0x1000,
    flags_a=1,
    token_b=0x2000,
    flags_b=1,
    progress=1000,
    ready_a=0x1000,
    held=1,
    ready_b=0x2000,
    readies=2,
    loaded_a=CONTENT[0],
    loaded_b=CONTENT[1],
    turns=1000,
    asked=2,
    fetched=2,
    ring0="emulated",
)


def verdicts(seen: Evidence) -> tuple[Verdict, Verdict]:
    found = judge(seen)
    return found["ASYNC_PF"].verdict, found["ASYNC_PF_INT"].verdict


def test_good_evidence_works_and_says_so_in_numbers() -> None:
    found = judge(GOOD)
    missing, ready = found["ASYNC_PF"], found["ASYNC_PF_INT"]
    assert missing.verdict is ready.verdict is Verdict.WORKS
    assert missing.reason == ready.reason == ""
    assert "token 0x1000" in missing.summary
    assert "1000 turns" in missing.summary
    assert "0x1000 and 0x2000" in ready.summary
    assert missing.evidence["loaded_a"] == f"{CONTENT[0]:#x}"
    assert missing.evidence["ring0"] == "not shown: ring 0 is emulated"
    assert "ring 0" not in missing.summary
    assert ready.evidence["broadcast"] == "0xffffffff"


def test_a_native_ring0_has_to_show_it_too() -> None:
    native = replace(GOOD, ring0="native", always=GOOD)
    assert verdicts(native) == (Verdict.WORKS, Verdict.WORKS)
    found = judge(native)["ASYNC_PF"]
    assert (found.evidence["ring0"], found.evidence["ring0_faults"]) == ("native", 2)
    assert found.summary.endswith("in ring 0 too, with KVM_ASYNC_PF_SEND_ALWAYS")
    for wrong in ({"faults": 0}, {"faults": 1}, {"loaded_b": 0}, {"flags_a": 0}, {"progress": 999}, {"untold": 1}):
        spoiled = replace(native, always=replace(GOOD, **wrong))
        assert verdicts(spoiled) == (Verdict.BROKEN, Verdict.WORKS)
        assert judge(spoiled)["ASYNC_PF"].reason.startswith("KVM_ASYNC_PF_SEND_ALWAYS in ring 0: ")


@pytest.mark.parametrize("kind", ["native", "emulated", "mixed", "unknown"])
def test_ring0_is_asked_where_it_was_measured_to_be_native(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked: list[dict[str, int]] = []

    def guest(self: Lab, *, params: dict[str, int]) -> Nothing:
        asked.append(params)
        return Nothing()

    monkeypatch.setattr(async_pf, "observe", lambda guest, **how: replace(GOOD, ring0=""))
    monkeypatch.setattr(async_pf, "ring0", lambda: SimpleNamespace(kind=kind))
    monkeypatch.setattr(Lab, "guest", guest)
    found = async_pf.look(lab())
    assert asked == [{}, *([{"ring": 0, "control": 11}] if kind == "native" else [])]
    said = judge(found)["ASYNC_PF"].evidence["ring0"]
    assert said == ("native" if kind == "native" else f"not shown: ring 0 is {kind}")


def test_without_the_hosts_reply_nothing_is_proven() -> None:
    silent = replace(GOOD, fetched=0, readies=0, ready_a=0, ready_b=0, held=0, loaded_a=0, loaded_b=0)
    assert verdicts(silent) == (Verdict.UNPROVEN, Verdict.UNPROVEN)
    assert "never answered" in judge(silent)["ASYNC_PF"].reason


def test_a_vcpu_that_just_waits_is_broken() -> None:
    waits = replace(GOOD, faults=0, token_a=0, token_b=0, flags_a=0, flags_b=0, progress=0, readies=0, untold=1)
    assert verdicts(waits) == (Verdict.BROKEN, Verdict.UNPROVEN)
    assert "waited for the page" in judge(waits)["ASYNC_PF"].reason
    assert "0 of 2" in judge(waits)["ASYNC_PF_INT"].reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"faults": 1}, "1 of 2 missing pages"),
        ({"flags_a": 0}, "flags 0 and error code 0x0"),
        ({"error_b": 4}, "task B: flags 1 and error code 0x4"),
        ({"token_a": 0x1001}, "no token of vCPU 0"),
        ({"token_a": 0x0}, "no token of vCPU 0"),
        ({"token_b": 0x1000}, "the same token"),
        ({"progress": 0}, "0 of 1000 turns"),
        ({"progress": 999}, "999 of 1000 turns"),
        ({"untold": 1}, "before the guest told"),
        ({"loaded_a": 0}, "task A loaded 0x0"),
        ({"loaded_b": CONTENT[0]}, "task B loaded"),
    ],
    ids=str,
)
def test_broken_not_present(change: dict[str, int], words: str) -> None:
    finding = judge(replace(GOOD, **change))["ASYNC_PF"]
    assert finding.verdict is Verdict.BROKEN
    assert words in finding.reason
    assert finding.evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"broadcast": 0}, "was 0x0, and the ABI says 0xffffffff"),
        ({"early": 1}, "before any page"),
        ({"readies": 0, "ready_a": 0, "ready_b": 0, "held": 0}, "token 0x1000 never came back"),
        ({"ready_a": 0x2000}, "brought token 0x2000, and page A's is 0x1000"),
        ({"ready_a": BROADCAST}, "brought token 0xffffffff"),
        ({"held": 2, "attempts": 3}, "before the first was acknowledged, 3 times"),
        ({"readies": 1, "ready_b": 0}, "1 page-ready interrupts for 2 pages"),
        ({"readies": 3}, "3 page-ready interrupts for 2 pages"),
        ({"ready_b": 0x1000}, "page B's is 0x2000"),
    ],
    ids=str,
)
def test_broken_ready(change: dict[str, int], words: str) -> None:
    finding = judge(replace(GOOD, **change))["ASYNC_PF_INT"]
    assert finding.verdict is Verdict.BROKEN
    assert words in finding.reason


# What stands before the judgement: no device is opened -----------------------------------------------------------


def lab(*mask: str) -> Lab:
    return Lab(find("async_pf"), Options(mask=mask))


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmm.payload.proof.lab.supported", lambda: SimpleNamespace(has=lambda name: True))


@pytest.mark.usefixtures("offered")
def test_masked_is_absent_and_its_partner_inert() -> None:
    both = async_pf.prove(lab("ASYNC_PF", "ASYNC_PF_INT"))
    assert {finding.verdict for finding in both.values()} == {Verdict.ABSENT}
    one = async_pf.prove(lab("ASYNC_PF"))
    assert (one["ASYNC_PF"].verdict, one["ASYNC_PF_INT"].verdict) == (Verdict.ABSENT, Verdict.INERT)
    assert "ASYNC_PF (bit 4)" in one["ASYNC_PF_INT"].reason


@pytest.mark.usefixtures("offered")
def test_without_permission_it_is_unproven_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lab: Lab) -> Evidence:
        raise NoUserfaultfd("/dev/userfaultfd", "EACCES", "EPERM")

    monkeypatch.setattr(async_pf, "look", refuse)
    monkeypatch.setattr("vmm.payload.proof.prove.check_needs", lambda payload: None)
    for row in prove(find("async_pf")):
        assert row.verdict is Verdict.UNPROVEN
        for part in ("/dev/userfaultfd: EACCES", "EPERM", "CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd=1"):
            assert part in row.finding.reason
        assert "\n" not in row.finding.reason


LATE_WORKER, LATE_GUEST, WAITS = replace(GOOD, held=2), replace(GOOD, untold=1), replace(GOOD, faults=0, untold=1)


@pytest.mark.parametrize(
    "runs",
    [
        [GOOD],
        [LATE_WORKER, GOOD],
        [LATE_GUEST, LATE_WORKER, GOOD],
        [LATE_WORKER, LATE_WORKER, LATE_WORKER],
        [WAITS],
    ],
    ids=len,
)
def test_a_late_worker_gets_another_chance(monkeypatch: pytest.MonkeyPatch, runs: list[Evidence]) -> None:
    left = iter(runs)
    monkeypatch.setattr(async_pf, "observe", lambda guest, **how: next(left))
    monkeypatch.setattr(async_pf, "ring0", lambda: SimpleNamespace(kind="emulated"))
    monkeypatch.setattr(Lab, "guest", lambda self, **how: Nothing())
    assert async_pf.look(lab()) == replace(runs[-1], attempts=len(runs))


class Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
