# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on memory faults, on made-up evidence."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from guest_payloads.api.memory_fault import CONTENT, Evidence, judge
from vmm.kvm.exits import MemoryFault
from vmm.payload.proof.verdict import Verdict

FAULT = MemoryFault(flags=0, gpa=0x40003000, size=0x1000, errno=errno.EFAULT)
GOOD = Evidence(0x40003000, FAULT, CONTENT)


@pytest.mark.parametrize("read", [CONTENT, None])
def test_works(read):
    assert judge(replace(GOOD, read=read)).verdict is Verdict.WORKS


@pytest.mark.parametrize("read", [CONTENT, None])
def test_an_efault_that_says_nothing_is_inert(read):
    finding = judge(replace(GOOD, fault=None, read=read))
    assert finding.verdict is Verdict.INERT
    assert ("repaired" in finding.reason) == (read is not None)


@pytest.mark.parametrize(
    "fault",
    [
        replace(FAULT, gpa=0x40004000),
        replace(FAULT, gpa=0x40002000),
        replace(FAULT, size=0),
        replace(FAULT, flags=8),
        replace(FAULT, errno=errno.EIO),
    ],
)
def test_another_exit_is_broken(fault):
    assert judge(replace(GOOD, fault=fault)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("fault", [FAULT, None])
def test_an_access_that_did_not_go_through_is_broken(fault):
    assert judge(replace(GOOD, fault=fault, read=0)).verdict is Verdict.BROKEN
