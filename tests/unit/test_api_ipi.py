# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of ipi on made-up tables of counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.ipi import FIXED, LAST, NMI, Evidence, Row, judge

RESULTS = {"sent": 10, "sipi_alone": 0, "started": 1, "real_mode": 0}
ADDED = [(*(want or (0, 0, 1, 0)), 0, 0, 0, 0) for _, want in FIXED]
ADDED += [(0, 0, 0, 0, *want) for _, want in NMI]
ADDED += [(*LAST[1], 0, 0, 0, 0)]


def evidence(added: list[Row], **results: int) -> Evidence:
    total = (0,) * 8
    rows = []
    for row in added:
        total = tuple(a + b for a, b in zip(total, row, strict=True))
        rows.append(total)
    return Evidence(RESULTS | results, tuple(rows))


def verdicts(seen: Evidence) -> list[str]:
    return [str(each.verdict) for each in judge(seen).values()]


def test_works_whoever_has_the_lowest_priority() -> None:
    assert verdicts(evidence(ADDED)) == ["works"] * 3
    other = [*ADDED[:2], (0, 1, 0, 0, 0, 0, 0, 0), *ADDED[3:]]
    assert verdicts(evidence(other)) == ["works"] * 3


@pytest.mark.parametrize("number", range(len(ADDED)))
@pytest.mark.parametrize("change", [(0, 0, 0, 1), (0, 0, -1, 0)])
def test_one_too_many_or_too_few_breaks_the_row(number: int, change: tuple[int, ...]) -> None:
    nmi = len(FIXED) <= number < len(FIXED) + len(NMI)
    row = ADDED[number]
    wrong = list(row)
    for at, each in enumerate(change):
        wrong[at + 4 * nmi] += each
    added = [*ADDED[:number], tuple(wrong), *ADDED[number + 1 :]]
    assert verdicts(evidence(added)) == (["works", "broken", "works"] if nmi else ["broken", "works", "works"])


@pytest.mark.parametrize("change", [{"sipi_alone": 1}, {"started": 0}, {"real_mode": 1}])
def test_start_up(change: dict[str, int]) -> None:
    assert verdicts(evidence(ADDED, **change)) == ["works", "works", "broken"]


def test_a_table_that_is_too_short_is_broken() -> None:
    seen = evidence(ADDED)
    assert verdicts(replace(seen, rows=seen.rows[:-1])) == ["broken"] * 3
