# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm diff` and `pyvmm baseline` as pages: what differs or is in common, above the hosts side by side.

The documents of vmm.report.compare and vmm.report.baseline in, with the probes that they were made of; HTML out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from vmm.report import compare_text as words
from vmm.report.compare import Document
from vmm.report.pages.hosts import Table, hosts_page


def diff_page(doc: Document, probes: Sequence[tuple[str, Document]], command: str) -> str:
    """The page of a `diff` document and its two probes, which are named A and B. Errors as hosts_page."""
    changes = [
        (each["name"], before, after, each["change"], _why(each))
        for each in doc["features"]
        for before, after in [words.states(each)]
    ]
    facts = [(what, before, after) for what, before, _, after in words.facts(doc)]
    tables = (
        Table("What changed", ("feature", "A", "B", "change", "why"), changes),
        Table("How the hosts differ", ("fact", "A", "B"), facts),
    )
    return hosts_page(
        probes,
        command,
        title="What changed from A to B",
        named=[
            (key.upper(), f"{doc[key]['file']}: Linux {doc[key]['kernel']}; {doc[key]['text']}") for key in ("a", "b")
        ],
        told=_told(doc, words.diff_summary(doc)),
        tables=tables,
    )


def _why(each: Document) -> str:
    """The reason that the worse of the two gives, and what else changed; each sentence once."""
    given = [(key.upper(), each[key]["reason"]) for key in ("b", "a") if each[key] is not None and each[key]["reason"]]
    said = [f"{host}: {reason}" for host, reason in given[:1]]
    return "; ".join(dict.fromkeys([*said, *words.refusal_lines(each)]))


def baseline_page(doc: Document, probes: Sequence[tuple[str, Document]], command: str) -> str:
    """The page of a `baseline` document and its probes. Errors as hosts_page."""
    have = [(each["name"], words.bit(each), each["by"] or "-") for each in doc["features"] if each["in_baseline"]]
    short = _short(doc)
    lacking = [
        (each["name"], words.bit(each), _named_so(doc, short, each["why"]))
        for each in doc["features"]
        if not each["in_baseline"]
    ]
    tables = (
        Table("Usable on every host", ("feature", "bit", "offered by"), have),
        Table("Left out", ("feature", "bit", "why"), lacking),
        Table("CPUID leaf 0x40000001", ("", "EAX", "EDX"), list(words.registers(doc))),
    )
    told = [_named_so(doc, short, line) for line in _told(doc, f"{len(have)} features are usable everywhere")]
    return hosts_page(
        [
            (f"{number} {name}", each)
            for number, (name, (_, each)) in enumerate(zip(short.values(), probes, strict=True), 1)
        ],
        command,
        title=f"What {len(probes)} hosts have in common",
        told=told,
        tables=tables,
    )


def _short(doc: Document) -> dict[int, str]:
    """A name for each host's file: its stem, where no two have the same; the footer has the whole command."""
    files = [each["file"] for each in doc["hosts"]]
    stems = [PurePath(each).stem for each in files]
    return dict(enumerate(stems if len(set(stems)) == len(stems) else files))


def _named_so(doc: Document, short: Mapping[int, str], text: str) -> str:
    for number, each in enumerate(doc["hosts"]):
        text = text.replace(each["file"], short[number])
    return text


def _told(doc: Document, summary: str) -> list[str]:
    gate = [f"required: {each['name']}: {each['why']}" for each in doc["failed"]]
    met = [f"required: {', '.join(doc['required'])}: all there"] if doc["required"] and not gate else []
    return [summary, *gate, *met, *doc.get("notes", ())]
