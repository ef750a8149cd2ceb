# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on the rewriting of hypercall instructions, on made-up evidence of three kinds of host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.wrong_opcode import OPCODES, PF, UD, Evidence, Shot, judge
from vmm.payload.proof.verdict import Verdict

WRITE = 3  # error code: present, write


def shots(own: str | None) -> dict[tuple[str, bool, bool], Shot]:
    """(instruction, quirk on, read-only) -> what a host whose own instruction is `own` shows; None: it has none."""
    found = {}
    for opcode, code in OPCODES.items():
        for patching in (False, True):
            for readonly in (False, True):
                shot = Shot(opcode, patching, readonly, code)
                if opcode == own:
                    shot = replace(shot, rax=0)
                elif not patching:
                    shot = replace(shot, vector=UD)
                elif readonly:
                    shot = replace(shot, vector=PF, error=WRITE)
                elif own:
                    shot = replace(shot, rax=0, after=OPCODES[own])
                else:
                    shot = replace(shot, endless=True, emulated=20_000, after=OPCODES["vmcall"])
                found[opcode, patching, readonly] = shot
    return found


def evidence(own: str | None, key: tuple[str, bool, bool] | None = None, **change) -> Evidence:
    found = shots(own)
    if key:
        found[key] = replace(found[key], **change)
    return Evidence(tuple(found.values()))


@pytest.mark.parametrize("own", OPCODES)
def test_works_on_hardware(own):
    finding = judge(evidence(own))
    assert finding.verdict is Verdict.WORKS, finding
    assert f"rewritten to {own}" in finding.line


def test_inert_where_rewriting_helps_nothing():
    finding = judge(evidence(None))
    assert finding.verdict is Verdict.INERT
    assert "rewrites and repeats" in finding.reason
    assert "20000 instructions" in finding.evidence["vmcall, writable, quirk on"]


def test_inert_where_the_quirk_changes_nothing():
    found = shots(None) | {
        (name, True, readonly): Shot(name, True, readonly, OPCODES[name], vector=UD)
        for name in OPCODES
        for readonly in (False, True)
    }
    finding = judge(Evidence(tuple(found.values())))
    assert finding.verdict is Verdict.INERT
    assert "does not change that" in finding.reason


def test_inert_where_both_are_the_cpus_own():
    found = {key: Shot(*key, after=OPCODES[key[0]], rax=0) for key in shots(None)}
    assert judge(Evidence(tuple(found.values()))).verdict is Verdict.INERT


def test_an_answer_from_elsewhere_is_no_proof():
    finding = judge(evidence("vmcall", ("vmcall", False, False), rax=-1))
    assert finding.verdict is Verdict.UNPROVEN


@pytest.mark.parametrize("own", [None, "vmcall", "vmmcall"])
@pytest.mark.parametrize("opcode", OPCODES)
def test_text_that_changes_where_it_must_not_is_broken(own, opcode):
    other = next(code for name, code in OPCODES.items() if name != opcode)
    for patching, readonly in ((False, False), (False, True), (True, True)):
        finding = judge(evidence(own, (opcode, patching, readonly), after=other))
        assert finding.verdict is Verdict.BROKEN, (patching, readonly)


@pytest.mark.parametrize("own", [None, "vmcall", "vmmcall"])
@pytest.mark.parametrize("opcode", OPCODES)
def test_no_end_with_the_quirk_off_is_broken(own, opcode):
    for readonly in (False, True):
        assert judge(evidence(own, (opcode, False, readonly), endless=True)).verdict is Verdict.BROKEN


def test_another_exception_with_the_quirk_off_is_broken():
    for readonly in (False, True):
        assert judge(evidence("vmcall", ("vmmcall", False, readonly), vector=13)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (("vmmcall", True, False), {"after": OPCODES["vmmcall"]}),  # answered without being rewritten
        (("vmmcall", True, False), {"after": OPCODES["vmmcall"], "vector": UD, "rax": 1}),
        (("vmmcall", True, False), {"rax": -1000}),
        (("vmmcall", True, False), {"endless": True}),
        (("vmcall", True, False), {"rax": 1}),
        (("vmcall", True, False), {"endless": True}),
        (("vmcall", True, False), {"after": OPCODES["vmmcall"]}),
        (("vmcall", True, True), {"vector": PF, "error": WRITE}),
    ],
)
def test_broken_on_hardware(key, change):
    assert judge(evidence("vmcall", key, **change)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    "change",
    [
        {"vector": UD},
        {"vector": None, "rax": 0},
        {"error": 1},  # a read
        {"fault_at": 0x1000},
        {"endless": True, "vector": None},
    ],
)
def test_another_end_in_read_only_text_is_a_deviation(change):
    finding = judge(evidence("vmcall", ("vmmcall", True, True), **change))
    assert finding.verdict is Verdict.WORKS
    (found,) = finding.deviations
    assert found.what == "vmmcall, read-only, quirk on"
    assert not judge(evidence("vmcall")).deviations


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (("vmcall", True, True), {"vector": None, "rax": 0}),
        (("vmcall", True, False), {"endless": False, "vector": None, "rax": 0}),
        (("vmcall", True, False), {"endless": False, "vector": 13}),
    ],
)
def test_broken_where_neither_arrives(key, change):
    assert judge(evidence(None, key, **change)).verdict is Verdict.BROKEN


def test_words():
    assert Shot("vmcall", True, False, 0x0F01C1, endless=True).words == "no end, bytes 0f01c1"
    assert Shot("vmcall", True, True, 0x0F01C1, vector=PF, error=3).words == "#PF error 0x3, bytes 0f01c1"
    assert Shot("vmcall", False, True, 0x0F01C1, vector=UD).words == "#UD, bytes 0f01c1"
    assert Shot("vmcall", False, True, 0x0F01C1, rax=0).words == "RAX 0, bytes 0f01c1"
