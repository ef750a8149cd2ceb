# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypercall interface on this host: whoever answers, the answers are the ABI's, and each is put down to the right
one.
"""

from __future__ import annotations

import pytest

from guest_payloads.pv.hypercalls import POLL, RING3, UNKNOWN
from vmm.host import hypercall_insn as hypercall_probe
from vmm.kvm import Kvm
from vmm.machine.extra.hypercalls import HypercallService
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run(*, enforce: bool = False, **options) -> dict[str, Row]:
    rows = prove(find("hypercalls"), Options(**options), enforce=enforce)
    return {row.name: row for row in rows}


@pytest.mark.parametrize("enforce", [False, True])
def test_the_interface_by_whoever_answers(enforce):
    with Kvm.open() as kvm:
        arrives = hypercall_probe.measure(kvm).transport != "none"
    rows = run(enforce=enforce)
    for name in (POLL, UNKNOWN):
        row = rows[name]
        assert row.verdict is (Verdict.WORKS if arrives else Verdict.SERVICED), row.finding.reason
        assert bool(row.finding.evidence["counted"]) is arrives
        assert [each.kind for each in row.refusals] == ["control"]
        assert all(each.holds for each in row.refusals)
    ring3 = rows[RING3]
    if arrives:
        assert ring3.verdict is Verdict.WORKS, ring3.finding.reason
    else:
        assert ring3.verdict in (Verdict.SERVICED, Verdict.UNPROVEN), ring3.finding.reason


def test_another_number_is_no_poll():
    rows = run(params={"nr": 99})
    assert rows[POLL].verdict is Verdict.BROKEN
    assert rows[POLL].finding.evidence["RAX"] == -1000


@pytest.mark.sabotage
def test_a_service_that_serves_ring_3_is_broken(monkeypatch):
    serve = HypercallService.serve
    monkeypatch.setattr(
        HypercallService, "serve", lambda self, runner, nr, args, *, cpl=0: serve(self, runner, nr, args, cpl=0)
    )
    rows = run()
    if (
        rows[RING3].finding.evidence["vmcall"].find("raises")
        < 0
        > rows[RING3].finding.evidence["vmmcall"].find("raises")
    ):
        pytest.skip("neither instruction raises an exception in ring 3 here, so pyvmm is not asked")
    assert rows[RING3].verdict is Verdict.BROKEN
    assert "pyvmm answered" in rows[RING3].finding.reason
