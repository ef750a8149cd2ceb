# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs started by INIT and SIPI on this host, and without the SIPI."""

from __future__ import annotations

import pytest

from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("sipi")


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_works(cpus: int) -> None:
    (row,) = prove(PAYLOAD, Options(cpus=cpus))
    assert row.verdict is Verdict.WORKS, row.finding
    assert row.finding.evidence["CS:IP at the start"] == ["0x0800:0x0"] * (cpus - 1)


def test_init_alone_starts_nobody() -> None:
    (row,) = prove(PAYLOAD, Options(params={"sipi": 0}))
    assert row.verdict is Verdict.BROKEN
    assert "1 of 3 CPUs" in row.finding.reason
