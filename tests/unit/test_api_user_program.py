# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on the user program, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.user_program import HELLO, REFUSED, SECRET, WANTED, Evidence, judge
from vmm.payload.proof.verdict import Verdict

NAMES = ("copy.txt", "hello.txt", "link", "out", "pipe", "sub")
GOOD = Evidence({name: wanted[0] for name, wanted in WANTED.items()}, (HELLO, HELLO[7:]), HELLO, HELLO, NAMES, 24)


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert f"{len(REFUSED)} were refused" in finding.summary


@pytest.mark.parametrize("name", WANTED)
def test_every_answer_counts(name: str) -> None:
    finding = judge(replace(GOOD, answers={**GOOD.answers, name: 77}))
    assert finding.verdict is Verdict.BROKEN
    assert finding.reason.startswith(name)


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, buffers=(SECRET, HELLO[7:])), "the program read"),
        (replace(GOOD, console=b""), "standard output"),
        (replace(GOOD, copy=None), "the new file"),
        (replace(GOOD, names=(*NAMES, "more")), "more"),
    ],
)
def test_so_does_what_came_of_it(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason
