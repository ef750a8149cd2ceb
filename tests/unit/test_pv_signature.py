# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on KVM's CPUID leaves, on made-up evidence."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from guest_payloads.pv.signature import MOVED, REST, SIGNATURE, Evidence, Leaves, edit, expected, judge, move
from vmm.abi.cpuid import CpuidEntry
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.proof.verdict import Verdict

BASE = 0x40000000
FOUND = Leaves(1, BASE, BASE + 1, SIGNATURE, REST, 0x01007EFB, 0, 0)
NOTHING = Leaves(1, 0, 0, 0, 0, 0, 0, 0)
ELSEWHERE = replace(FOUND, base=MOVED, last=MOVED + 1)
GOOD = Evidence((FOUND, FOUND), (FOUND, FOUND), (ELSEWHERE, ELSEWHERE), (NOTHING, NOTHING))


def test_works():
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS, finding
    assert "0x01007efb" in finding.line
    assert "0x40000100" in finding.line


@pytest.mark.parametrize("guest", ["plain", "edited", "moved", "absent"])
@pytest.mark.parametrize("field", [each.name for each in fields(Leaves)])
def test_one_number_that_the_guest_sees_otherwise_is_broken(guest, field):
    exposed, seen = getattr(GOOD, guest)
    wrong = replace(seen, **{field: getattr(seen, field) ^ 1})
    finding = judge(replace(GOOD, **{guest: (exposed, wrong)}))
    assert finding.verdict is Verdict.BROKEN
    assert guest in finding.reason
    assert field in finding.reason


def test_a_guest_that_cannot_know_it_is_one():
    alone = replace(FOUND, hypervisor=0)
    finding = judge(replace(GOOD, plain=(alone, alone)))
    assert finding.verdict is Verdict.BROKEN
    assert "ECX[31]" in finding.reason


def test_leaves_that_end_before_they_begin():
    short = replace(FOUND, last=BASE)
    assert judge(replace(GOOD, plain=(short, short))).verdict is Verdict.BROKEN


def test_a_very_old_host_says_0_for_its_last_leaf():
    old = replace(FOUND, last=0)
    assert judge(replace(GOOD, plain=(old, old))).verdict is Verdict.WORKS


def model() -> CpuidModel:
    model = CpuidModel([CpuidEntry(1, ecx=1 << 31), CpuidEntry(BASE + 1, eax=0x01007EFB)])
    model.set_kvm_signature()
    model.set_register(BASE + 1, 0, "eax", 0x01007EFB)
    return model


def test_what_is_expected_of_a_guest_comes_from_its_cpuid():
    assert expected(model()) == FOUND
    edited = model()
    edit(edited)
    assert expected(edited) == replace(FOUND, features=0x01007EF9, hints=1)
    moved = model()
    move(moved)
    assert expected(moved) == ELSEWHERE
    bare = model()
    bare.remove_kvm_leaves()
    assert expected(bare) == NOTHING
