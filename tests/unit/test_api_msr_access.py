# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on MSRs, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.msr_access import (
    FILTER,
    INVAL,
    LSTAR_ANSWER,
    LSTAR_VALUE,
    STAR_VALUE,
    UNKNOWN,
    UNKNOWN_ANSWER,
    Exits,
    Filtered,
    Partial,
    judge_exits,
    judge_filter,
    judge_partial,
)
from vmm.payload.proof.verdict import Verdict

WRITTEN = 0x123
BAD, STAR, LSTAR, EFER = 0x12345678, 0xC0000081, 0xC0000082, 0xC0000080
PARTIAL = Partial(1, 1, 1, STAR_VALUE, 0)
PLAIN = {
    "star": STAR_VALUE, "star_gp": 0, "lstar": LSTAR_VALUE, "lstar_gp": 0,
    "unknown": 0, "unknown_gp": 1, "unknown_write_gp": 1, "invalid_gp": 1,
}  # fmt: skip
FILTERED = Filtered(PLAIN, PLAIN | {"star": 0, "star_gp": 1}, PLAIN | {"lstar": 0, "lstar_gp": 1})
SEEN = (
    ("read", LSTAR, FILTER, 0),
    ("read", BAD, UNKNOWN, 0),
    ("write", BAD, UNKNOWN, WRITTEN),
    ("write", EFER, INVAL, 0x700),
)
HANDED = PLAIN | {"lstar": LSTAR_ANSWER, "unknown": UNKNOWN_ANSWER, "unknown_gp": 0, "unknown_write_gp": 0}
EXITS = Exits(HANDED, SEEN, BAD, WRITTEN)


def test_works() -> None:
    for finding in (judge_partial(PARTIAL), judge_filter(FILTERED), judge_exits(EXITS)):
        assert finding.verdict is Verdict.WORKS, finding


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(PARTIAL, set_count=3), "KVM_SET_MSRS says that it took 3"),
        (replace(PARTIAL, set_count=0), "took 0"),
        (replace(PARTIAL, get_count=2), "KVM_GET_MSRS says that it took 2"),
        (replace(PARTIAL, before=0), "around the bad MSR"),
        (replace(PARTIAL, after=LSTAR_VALUE), "around the bad MSR"),
    ],
)
def test_partial_success_broken(evidence: Partial, text: str) -> None:
    finding = judge_partial(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(FILTERED, plain=FILTERED.denied), "without a filter, STAR #GPs"),
        (replace(FILTERED, denied=PLAIN), "with STAR denied, STAR reads"),
        (replace(FILTERED, denied=FILTERED.allowed), "with STAR denied, STAR reads"),
        (replace(FILTERED, denied=FILTERED.denied | {"lstar": 0, "lstar_gp": 1}), "LSTAR #GPs"),
        (replace(FILTERED, allowed=PLAIN), "with only STAR allowed, LSTAR reads"),
        (replace(FILTERED, allowed=PLAIN | {"star": 7}), "with only STAR allowed, STAR reads 0x7"),
        (replace(FILTERED, plain=PLAIN | {"unknown_gp": 0}), "unknown MSR"),
        (replace(FILTERED, plain=PLAIN | {"invalid_gp": 0}), "bad value"),
    ],
)
def test_filter_broken(evidence: Filtered, text: str) -> None:
    finding = judge_filter(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(EXITS, seen=()), "0 came"),
        (replace(EXITS, seen=SEEN[1:]), "the read of 0xc0000082"),
        (replace(EXITS, seen=(*SEEN[:3], ("write", EFER, UNKNOWN, 0))), "the write of 0xc0000080"),
        (replace(EXITS, seen=(*SEEN, SEEN[3])), "5 came"),
        (replace(EXITS, seen=(*SEEN[:2], ("write", BAD, UNKNOWN, 1), SEEN[3])), "the guest wrote"),
        (replace(EXITS, results=HANDED | {"lstar": LSTAR_VALUE}), "lstar reads"),
        (replace(EXITS, results=HANDED | {"unknown_gp": 1}), "unknown reads"),
        (replace(EXITS, results=HANDED | {"star_gp": 1}), "star reads"),
        (replace(EXITS, results=HANDED | {"unknown_write_gp": 1}), "a WRMSR"),
        (replace(EXITS, results=HANDED | {"invalid_gp": 0}), "refused is none"),
    ],
)
def test_exits_broken(evidence: Exits, text: str) -> None:
    finding = judge_exits(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason
