# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut` as a GitHub-flavoured Markdown table: for the summary of a CI step, and for a page of documentation."""

from __future__ import annotations

from vmm.payload.kut.suite import Done, Suite
from vmm.payload.kut.verdict import State
from vmm.report.gfm import escape, head, line
from vmm.report.kut import HEAD, QEMU_HEAD, beside, said, summary, took


def render(suite: Suite) -> str:
    """The table and what it comes to."""
    qemu = any(done.qemu is not None for done in suite.done)
    lines = [*head(QEMU_HEAD if qemu else HEAD), *(line(_cells(done, qemu=qemu)) for done in suite.done)]
    lines += ["", escape(summary(suite))]
    if qemu:
        lines += ["", escape(beside(suite))]
    return "\n".join(lines) + "\n"


def _cells(done: Done, *, qemu: bool) -> list[str]:
    ended = done.ended
    cells = [escape(done.test.name), _shown(ended.state), took(ended), escape(said(ended))]
    if qemu:
        cells.insert(2, _shown(done.qemu.state) if done.qemu is not None else "-")
    return cells


def _shown(state: State) -> str:
    return str(state) if state is State.PASS else f"*{state}*"
