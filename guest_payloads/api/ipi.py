# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ipi: what every vCPU had counted after each IPI, beside who should have had it."""

from __future__ import annotations

from dataclasses import dataclass

from vmm.payload.proof.compare import compare, results
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

ROWS = ("ipi", "ipi_nmi", "ipi_init_sipi")
HALF = 4  # words of a row are of the vector, as many of NMIs: one of each vCPU

# What each IPI of the .asm adds to the counts of the vector, by vCPU; None: one of vCPU 1 and 2, whichever.
FIXED: tuple[tuple[str, tuple[int, ...] | None], ...] = (
    ("fixed, to APIC id 1", (0, 1, 0, 0)),
    ("fixed, logical, to 1 and 2", (0, 1, 1, 0)),
    ("lowest priority, to one of 1 and 2", None),
    ("self", (1, 0, 0, 0)),
    ("all including self", (1, 1, 1, 1)),
    ("all but self", (0, 1, 1, 1)),
    ("broadcast id", (1, 1, 1, 1)),
)
NMI = (("NMI to APIC id 2", (0, 0, 1, 0)), ("NMI to all but self", (0, 1, 1, 1)))
LAST = ("self by its own MSR", (1, 0, 0, 0))
ONE_OF_TWO = ((0, 1, 0, 0), (0, 0, 1, 0))
Row = tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """The guest's results by name; after each IPI the counts of 4 vCPUs of the vector, then of NMIs."""

    results: dict[str, int]
    rows: tuple[Row, ...]


def prove(lab: Lab) -> dict[str, Finding]:
    return judge(observe(lab))


def observe(lab: Lab) -> Evidence:
    with lab.guest() as guest:
        run_to_pass(guest)
        found, table = results(guest), guest.constant("TABLE")
        rows = [guest.machine.memory.unpack("8Q", table + 64 * n) for n in range(min(found["sent"], 16))]
        return Evidence(found, tuple(tuple(row) for row in rows))


def judge(seen: Evidence) -> dict[str, Finding]:
    added = [
        tuple(b - a for a, b in zip(*pair, strict=True))
        for pair in zip(((0,) * 8, *seen.rows), seen.rows, strict=False)
    ]
    if len(added) != len(FIXED) + len(NMI) + 1:
        return dict.fromkeys(ROWS, Finding(Verdict.BROKEN, f"{len(added)} IPIs were sent, and there are 10"))
    vectors = [*zip((*FIXED, LAST), (*added[: len(FIXED)], added[-1]), strict=True)]
    nmis = [*zip(NMI, added[len(FIXED) : -1], strict=True)]
    numbers = {what: _text(row[:HALF]) for (what, _), row in vectors}
    wrong = [what for (what, want), row in vectors if row[HALF:] != (0,) * HALF or not _right(row[:HALF], want)]
    ipi = _finding(
        wrong, numbers, "fixed and lowest priority; by id, logical id, shorthand, broadcast and the self MSR"
    )
    numbers = {what: _text(row[HALF:]) for (what, _), row in nmis}
    wrong = [what for (what, want), row in nmis if row[:HALF] != (0,) * HALF or row[HALF:] != want]
    nmi = _finding(wrong, numbers, "an NMI to one, and to all others")
    summary = "a start-up IPI alone is ignored; after INIT the vCPU starts at its page, in real mode"
    init = compare(seen.results, {"sipi_alone": 0, "started": 1, "real_mode": 0}, summary)
    return dict(zip(ROWS, (ipi, nmi, init), strict=True))


def _right(row: Row, want: Row | None) -> bool:
    return row in ONE_OF_TWO if want is None else row == want


def _text(row: Row) -> str:
    return ", ".join(map(str, row))


def _finding(wrong: list[str], numbers: dict[str, str], summary: str) -> Finding:
    if wrong:
        return Finding(Verdict.BROKEN, f"{wrong[0]}: vCPUs 0 to 3 counted {numbers[wrong[0]]}", numbers)
    return Finding(Verdict.WORKS, "", numbers, summary)
