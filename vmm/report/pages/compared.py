# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm diff` and `pyvmm baseline` as pages: what differs or is in common, above the hosts side by side.

The documents of vmm.report.compare and vmm.report.baseline in, with the probes that they were made of; HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmm.report import compare_text as words
from vmm.report.compare import Document
from vmm.report.pages.hosts import Table, hosts_page


def diff_page(doc: Document, probes: Sequence[tuple[str, Document]], command: str) -> str:
    """The page of a `diff` document and its two probes, which are named A and B. Errors as hosts_page."""
    changes = [
        (each["name"], before, after, each["change"], "; ".join([each["why"], *words.refusal_lines(each)]))
        for each in doc["features"]
        for before, after in [words.states(each)]
    ]
    facts = [(what, before, after) for what, before, _, after in words.facts(doc)]
    tables = (
        Table("What changed", ("feature", "A", "B", "change", "why"), changes),
        Table("How the hosts differ", ("fact", "A", "B"), facts),
    )
    return hosts_page(probes, command, told=_told(doc, words.diff_summary(doc)), tables=tables)


def baseline_page(doc: Document, probes: Sequence[tuple[str, Document]], command: str) -> str:
    """The page of a `baseline` document and its probes. Errors as hosts_page."""
    have = [(each["name"], words.bit(each), each["by"] or "-") for each in doc["features"] if each["in_baseline"]]
    lacking = [(each["name"], words.bit(each), each["why"]) for each in doc["features"] if not each["in_baseline"]]
    tables = (
        Table("Usable on every host", ("feature", "bit", "offered by"), have),
        Table("Left out", ("feature", "bit", "why"), lacking),
        Table("CPUID leaf 0x40000001", ("", "EAX", "EDX"), list(words.registers(doc))),
    )
    return hosts_page(probes, command, told=_told(doc, f"{len(have)} features are usable everywhere"), tables=tables)


def _told(doc: Document, summary: str) -> list[str]:
    gate = [f"required: {each['name']}: {each['why']}" for each in doc["failed"]]
    met = [f"required: {', '.join(doc['required'])}: all there"] if doc["required"] and not gate else []
    return [summary, *gate, *met, *doc.get("notes", ())]
