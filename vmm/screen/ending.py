# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest ended, as lines: why, what it counted, and of one that went wrong the post-mortem."""

from __future__ import annotations

from vmm.debug.session import Session
from vmm.debug.values import Stopped
from vmm.report.style import Style
from vmm.report.text import postmortem_lines

OURS = ("Debug", "Interrupted")
"""Exits that are the debugger's and the host's doing."""
NEXT = "c gives this result to whoever ran it (a host half); r goes back; q leaves"


def describe_end(session: Session, stopped: Stopped) -> list[str]:
    """Of a stop that has ended the run."""
    result = session.ending()
    lines = ["", f"the guest has ended: {stopped.text}"]
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(result.counts.items()) if kind not in OURS)
    if counts:
        lines.append(f"exits: {counts}")
    if result.stop.crashed or result.stop.limited:
        lines += postmortem_lines(session.postmortem(), Style())
    return [*lines, NEXT]
