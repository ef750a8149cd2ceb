# SPDX-License-Identifier: GPL-2.0-or-later
"""MSRs on this host: what is refused, filtered and handed over, and that each needs what was set up for it."""

from __future__ import annotations

import pytest

from guest_payloads.api import msr_access
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("msr_access")


def verdicts(**params: int) -> list[Verdict]:
    return [row.verdict for row in prove(PAYLOAD, Options(params=params))]


def test_works() -> None:
    rows = prove(PAYLOAD)
    assert [row.name for row in rows] == list(find("msr_access").header.proves)
    for row in rows:
        assert row.verdict is Verdict.WORKS, row.finding


@pytest.mark.parametrize("name", ["deny_star", "allow_star"])
def test_without_the_filter(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(msr_access, name, lambda guest: None)
    assert verdicts() == [Verdict.WORKS, Verdict.BROKEN, Verdict.WORKS]


def test_without_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msr_access, "hand_over", lambda guest: None)
    assert verdicts() == [Verdict.WORKS, Verdict.WORKS, Verdict.BROKEN]


def test_an_msr_that_does_exist_is_no_bad_one() -> None:
    assert verdicts(unknown=0xC0000083)[0] is Verdict.BROKEN
