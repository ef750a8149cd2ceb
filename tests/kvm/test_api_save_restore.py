# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that changes machines on this host, and one part of it that stays behind."""

from __future__ import annotations

import pytest

from guest_payloads.api import save_restore
from vmm.kvm.vcpu import Vcpu
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("save_restore")


def run() -> Row:
    (row,) = prove(PAYLOAD, Options(timeout=0.5))
    return row


def test_works() -> None:
    row = run()
    assert row.verdict is Verdict.WORKS, row.finding
    assert row.finding.evidence["moves"] == 9


def test_without_a_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_restore, "restore", lambda guest, saved: None)
    assert run().verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("call", "answer"),
    [("set_lapic", None), ("set_xsave", None), ("set_debugregs", None), ("set_msrs", 1 << 20)],
)
def test_a_part_that_stays_behind(monkeypatch: pytest.MonkeyPatch, call: str, answer: int | None) -> None:
    restore = save_restore.restore

    def partly(guest, saved) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Vcpu, call, lambda self, value: answer)
            restore(guest, saved)

    monkeypatch.setattr(save_restore, "restore", partly)
    assert run().verdict is Verdict.BROKEN
