# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on the hypercall interface, on made-up evidence: above all, who answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.hypercalls import POLL, RING3, UNKNOWN, Evidence, Try, judge
from vmm.asm.disassembler import disassemble
from vmm.payload.catalog import find
from vmm.payload.guest import assemble
from vmm.payload.proof.verdict import Verdict

INTEL = Evidence(
    poll=0, changed=0, poll_counted=1, unknown=10, refused=10, unknown_counted=10, kind=0,
    tries=(Try("vmcall", 0, -1, 1), Try("vmmcall", 6, -1, 0)),
)  # fmt: skip
AMD = replace(INTEL, kind=1, tries=(Try("vmcall", 6, -1, 0), Try("vmmcall", 0, -1, 1)))
# No instruction arrives; in ring 3 a hypervisor below answers one of them.
SOFTWARE = replace(
    INTEL, kind=2, poll_counted=0, unknown_counted=0, tries=(Try("vmcall", 13, -1, 0), Try("vmmcall", 0, -1, 0))
)


@pytest.mark.parametrize("evidence", [INTEL, AMD])
def test_works_on_hardware(evidence):
    assert {name: finding.verdict for name, finding in judge(evidence).items()} == dict.fromkeys(
        (POLL, UNKNOWN, RING3), Verdict.WORKS
    )


def test_serviced_where_nothing_arrives():
    findings = judge(SOFTWARE)
    assert {name: finding.verdict for name, finding in findings.items()} == dict.fromkeys(
        (POLL, UNKNOWN, RING3), Verdict.SERVICED
    )
    assert "a hypervisor below answered" in findings[RING3].reason
    assert "vmcall raises #GP" in findings[RING3].reason


@pytest.mark.parametrize("evidence", [INTEL, AMD, SOFTWARE])
@pytest.mark.parametrize(
    ("row", "change"),
    [
        (POLL, {"poll": 1}),
        (POLL, {"poll": -1000}),
        (POLL, {"changed": 1}),
        (UNKNOWN, {"refused": 9}),
        (UNKNOWN, {"unknown": 0, "refused": 0}),
    ],
)
def test_broken(evidence, row, change):
    findings = judge(replace(evidence, **change))
    assert findings[row].verdict is Verdict.BROKEN
    assert all(finding.verdict is not Verdict.BROKEN for name, finding in findings.items() if name != row)


def test_an_answer_that_kvm_did_not_count_is_somebody_elses():
    for answer in (0, -1):
        assert judge(replace(INTEL, poll=answer, poll_counted=0))[POLL].verdict is Verdict.UNPROVEN
    assert judge(replace(INTEL, unknown_counted=0))[UNKNOWN].verdict is Verdict.UNPROVEN


def test_without_the_statistic_ring_0_still_counts():
    blind = replace(INTEL, poll_counted=None, unknown_counted=None)
    assert judge(blind)[POLL].verdict is judge(blind)[UNKNOWN].verdict is Verdict.WORKS


@pytest.mark.parametrize("answer", [0, -1000, -22])
def test_kvm_that_serves_ring_3_is_broken(answer):
    finding = judge(replace(INTEL, tries=(Try("vmcall", 0, answer, 1), Try("vmmcall", 6, -1, 0))))[RING3]
    assert finding.verdict is Verdict.BROKEN
    assert "KVM answered vmcall" in finding.reason


def test_pyvmm_that_serves_ring_3_is_broken():
    finding = judge(replace(SOFTWARE, tries=(Try("vmcall", 13, 0, 0), Try("vmmcall", 0, -1, 0))))[RING3]
    assert finding.verdict is Verdict.BROKEN
    assert "pyvmm answered vmcall" in finding.reason


def test_ring_3_that_reaches_nobody_we_know_is_unproven():
    both = (Try("vmcall", 0, -1, 0), Try("vmmcall", 0, 7, 0))
    assert judge(replace(SOFTWARE, tries=both))[RING3].verdict is Verdict.UNPROVEN
    blind = (Try("vmcall", 0, -1, None), Try("vmmcall", 0, -1, None))
    finding = judge(replace(SOFTWARE, tries=blind))[RING3]
    assert finding.verdict is Verdict.UNPROVEN
    assert "statistic" in finding.reason


def test_two_exceptions_are_serviced():
    both = (Try("vmcall", 6, -1, 0), Try("vmmcall", 6, -1, 0))
    finding = judge(replace(SOFTWARE, tries=both))[RING3]
    assert finding.verdict is Verdict.SERVICED
    assert "below" not in finding.reason


def test_ring_3_leaves_by_hlt_alone():
    """I/O from ring 3 is for the TSS to allow, and hosts differ in reading it."""
    program = assemble(find("hypercalls"))
    begin, end = (program.symbols[name] for name in ("user_begin", "user_leave"))
    code = program.code[begin - program.base : end + 1 - program.base]
    found = [insn.text.split()[0] for insn in disassemble(code, begin)]
    assert [name for name in found if name != "mov"] == ["vmcall", "hlt", "vmmcall", "hlt"]
