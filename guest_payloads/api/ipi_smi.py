# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ipi_smi: the handler was entered once, and the vCPU went on afterwards."""

from __future__ import annotations

from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding


def prove(lab: Lab) -> Finding:
    with lab.guest() as guest:
        run_to_pass(guest)
        return judge(results(guest))


def judge(found: dict[str, int]) -> Finding:
    return compare(found, {"entered": 1, "answers": 1}, "its handler ran once, and the vCPU went on where it was")
