# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU modes on this host, and a guest that does not climb, or is not in the mode it is said to be in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api import cpu_modes
from vmm.errors import UsageError
from vmm.machine.machine import Machine
from vmm.machine.x86 import modes
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("cpu_modes")


def verdicts(**params: int) -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(PAYLOAD, Options(params=params))}


def test_modes() -> None:
    found = verdicts()
    for mode in ("real", "protected16", "protected32", "long"):
        assert found[cpu_modes.NAMES[mode]] is Verdict.WORKS, found
    for mode in ("paging32", "pae"):
        assert found[cpu_modes.NAMES[mode]] in (Verdict.WORKS, Verdict.INERT), found


def test_a_guest_that_stays_in_real_mode_proves_no_other() -> None:
    found = verdicts(climb=0)
    assert found.pop("mode_real") is Verdict.WORKS
    assert set(found.values()) <= {Verdict.BROKEN}


def test_registers_of_another_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modes.MODES, "protected32", replace(modes.MODES["protected32"], bits=16))
    assert verdicts()["mode_protected32"] is Verdict.BROKEN


def test_what_is_no_mode_is_refused() -> None:
    with Machine() as machine:
        vcpu = machine.cpus[0].vcpu
        with pytest.raises(UsageError, match="virtual86"):
            modes.enter(vcpu, "virtual86", 0)
        for base in (0x20008, 0x100000):
            with pytest.raises(UsageError, match="cannot begin"):
                modes.enter(vcpu, "real", 0, base=base)
