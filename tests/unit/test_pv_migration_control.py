# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on MIGRATION_CONTROL, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.migration_control import BIT, Evidence, Way, judge
from vmm.machine.extra.migration_control import UNKNOWN
from vmm.machine.run.handed_over import FILTERED
from vmm.payload.proof.verdict import Verdict

BY_FILTER = Way(
    "filter", FILTERED, 0x01007EFB | BIT, initial=1, denied=0, allowed=1, bad_faults=2, kept=1, faults=2, reads=4,
    writes=4, reasons=frozenset({FILTERED}), state=True, in_text=(4, 4),
)  # fmt: skip
AS_UNKNOWN = replace(BY_FILTER, name="unknown", reason=UNKNOWN, reasons=frozenset({UNKNOWN}))


def test_works_both_ways():
    finding = judge(Evidence((BY_FILTER, AS_UNKNOWN)))
    assert finding.verdict is Verdict.WORKS, finding
    assert "16 MSR exits" in finding.line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", 0x01007EFB),
        ("initial", 0),
        ("denied", 1),
        ("allowed", 0),
        ("bad_faults", 0),
        ("bad_faults", 1),
        ("kept", 0),
        ("kept", 3),
        ("faults", 3),
        ("reads", 0),
        ("writes", 3),
        ("state", False),
        ("reasons", frozenset()),
        ("reasons", frozenset({1})),
        ("reasons", frozenset({FILTERED, UNKNOWN})),
    ],
)
@pytest.mark.parametrize("way", [0, 1])
def test_broken(field, value, way):
    ways = [BY_FILTER, AS_UNKNOWN]
    ways[way] = replace(ways[way], **{field: value})
    finding = judge(Evidence(tuple(ways)))
    assert finding.verdict is Verdict.BROKEN
    assert ways[way].name in finding.reason
