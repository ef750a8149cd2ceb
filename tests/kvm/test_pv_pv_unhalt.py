# SPDX-License-Identifier: GPL-2.0-or-later
"""PV_UNHALT on this host, and the same proof where the kick is refused, goes elsewhere, or is another hypercall."""

from __future__ import annotations

import pytest

from guest_payloads.pv import pv_unhalt
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

ENOSYS = "-KVM_ENOSYS (-1000)"


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not supported().has("PV_UNHALT"):
        pytest.skip("this KVM does not offer PV_UNHALT")


def run(*, enforce: bool = False, refusals: bool = False, **options) -> Row:
    (row,) = prove(find("pv_unhalt"), Options(**options), enforce=enforce, refusals=refusals)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_a_kick_wakes_and_an_early_one_is_kept(enforce):
    row = run(enforce=enforce, refusals=True)
    numbers = row.finding.evidence
    assert row.verdict is (Verdict.SERVICED if numbers["served by pyvmm"] else Verdict.WORKS), row.finding.reason
    assert numbers["looks (HLT, halt_exits, woken)"] == "1: 1, 0, 1: 1, 0, 3: 3, 2, 4: 4, 3"
    assert [each.observed for each in row.refusals][:3] == ["0", "0", ENOSYS]
    assert [each.observed for each in row.refusals][3:] in ([], ["set", "clear"])


def test_masked_it_is_absent():
    for enforce in (False, True):
        row = run(mask=("PV_UNHALT",), enforce=enforce)
        assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Parameters for a guest that soon gives up waiting for a kick that never comes."""
    monkeypatch.setattr(pv_unhalt, "PATIENCE", 0.05)
    return {"patience": 20_000_000}


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"nr": 1}, "the number of wakings after the kick is 0"),  # returns 0, and does nothing
        ({"nr": 99}, "RAX of a kick for an id that does not exist is -1000"),
        ({"target": 0x5B}, "the number of wakings after the kick is 0"),
    ],
)
def test_a_kick_that_does_not_kick_is_broken(impatient, params, reason):
    row = run(params=impatient | params)
    assert row.verdict is Verdict.BROKEN
    assert reason in row.finding.reason


def test_masked_and_enforced_nothing_wakes(monkeypatch, impatient):
    """The same, without looking at what is offered first."""
    monkeypatch.setattr(pv_unhalt.Lab, "absent", lambda lab, feature: None)
    row = run(mask=("PV_UNHALT",), enforce=True, params=impatient)
    assert row.verdict is Verdict.BROKEN
    assert row.finding.evidence["RAX of the kick"] == -1000
