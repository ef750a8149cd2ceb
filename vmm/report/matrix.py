# SPDX-License-Identifier: GPL-2.0-or-later
"""What several hosts said of every feature, side by side: a document for programs from snapshots, and its table as text
and as Markdown. Values in, text out.

A cell is a host's verdict. What is more than a plain verdict, the reason of one that is no `works` or `advertised` and
each deviation, is a note below the table with a number in the cell; hosts that say the same share a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmm.report import gfm
from vmm.report.columns import aligned, one_line
from vmm.report.compare import Document, host_of, names_of
from vmm.report.snapshot import NOT_PROBED, Entry, Snapshot
from vmm.report.style import Style

SCHEMA = 1
EVIDENT = frozenset({"works", "advertised", NOT_PROBED})  # verdicts that the legend explains, without a note
BEGIN, END = "<!-- matrix: `pyvmm matrix` writes what is between these lines -->", "<!-- matrix ends -->"


def matrix(every: Sequence[tuple[str, Snapshot]], *, api: bool = False) -> Document:
    """Each named host's state of each feature (schemas/matrix.schema.json). `api`: topics of the KVM API as well, those
    that any of the hosts was asked for.
    """
    hosts = [snapshot for _, snapshot in every]
    names = [name for name in names_of(*hosts) if not name.startswith("api ")]
    if api:
        topics = (name for host in hosts for name, entry in host.entries.items() if entry.topic)
        names += dict.fromkeys(topics)
    return {
        "schema": SCHEMA,
        "hosts": [{"name": name, **host_of(snapshot)} for name, snapshot in every],
        "rows": [_row(name, hosts) for name in names],
        "exit_code": 0,
    }


def _row(name: str, hosts: Sequence[Snapshot]) -> Document:
    known = next(entry for host in hosts if (entry := host.entries.get(name)))
    return {
        "name": name.removeprefix("api ") if known.topic else name,
        "topic": known.topic,
        "bit": known.bit,
        "register": known.register,
        "cells": [_cell(host.entries.get(name)) for host in hosts],
    }


def _cell(entry: Entry | None) -> Document:
    if entry is None:
        return {"state": NOT_PROBED, "reason": "", "deviations": []}
    deviations = [f"{what}: {seen}, and the ABI says {said}" for what, (seen, said) in entry.deviations.items()]
    return {"state": entry.state, "reason": entry.reason, "deviations": deviations}


def _state(cell: Document, notes: _Notes) -> str:
    """The verdict; where no note says so, with the word that it deviates."""
    deviates = cell["deviations"] and not notes.wanted
    return f"{cell['state']}, deviates" if deviates else str(cell["state"])


class _Notes:
    """Notes in the order of their first mention, each with the hosts that share it; none if they are not wanted."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.hosts: dict[str, list[str]] = {}

    def mark(self, host: str, texts: Iterator[str]) -> str:
        """The mark in a cell: `[2,3]`, or nothing."""
        numbers = [str(self.number(host, text)) for text in texts] if self.wanted else []
        return f"[{','.join(numbers)}]" if numbers else ""

    def number(self, host: str, text: str) -> int:
        self.hosts.setdefault(text, [])
        if host not in self.hosts[text]:
            self.hosts[text].append(host)
        return list(self.hosts).index(text) + 1

    def __iter__(self) -> Iterator[str]:
        """`1. svm-6.1, vmx-6.1: PV_UNHALT: ...`, without the number."""
        return (f"{', '.join(hosts)}: {text}" for text, hosts in self.hosts.items())


def _texts(row: Document, cell: Document) -> Iterator[str]:
    """What a cell has to say beside its verdict."""
    if cell["state"] not in EVIDENT:
        yield one_line(f"{row['name']} {cell['state']}: {cell['reason'] or 'no reason given'}")
    for each in cell["deviations"]:
        yield one_line(f"{row['name']} deviates: {each}")


def _cells(doc: Document, notes: _Notes) -> Iterator[tuple[Document, list[tuple[str, str]]]]:
    """Each row with its cells: (verdict, numbers of notes)."""
    names = [host["name"] for host in doc["hosts"]]
    for row in doc["rows"]:
        pairs = zip(names, row["cells"], strict=True)
        yield row, [(_state(cell, notes), notes.mark(host, _texts(row, cell))) for host, cell in pairs]


def _sections(doc: Document) -> Iterator[tuple[str, Document]]:
    for heading, topic in (("feature", False), ("topic of the KVM API", True)):
        rows = [row for row in doc["rows"] if row["topic"] == topic]
        if rows:
            yield heading, {**doc, "rows": rows}


def _host_lines(doc: Document) -> Iterator[tuple[str, str]]:
    for host in doc["hosts"]:
        yield host["name"], one_line("; ".join([f"Linux {host['kernel']}", host["text"], *host["notes"]]))


def text(doc: Document, style: Style, *, noted: bool = True) -> str:
    """The hosts, the table, the notes if they are wanted."""
    lines = list(aligned(_host_lines(doc), indent=""))
    notes = _Notes(wanted=noted)
    for heading, part in _sections(doc):
        head = (heading, *(host["name"] for host in doc["hosts"]))
        rows = [
            (row["name"], *(f"{state} {mark}".rstrip() for state, mark in cells)) for row, cells in _cells(part, notes)
        ]
        first, *rest = aligned([head, *rows], indent="")
        lines += ["", style("head", first), *rest]
    numbered = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*lines, *([""] if numbered else []), *numbered]) + "\n"


def markdown(doc: Document, *, noted: bool = True) -> str:
    """The same as GitHub-flavoured Markdown."""
    lines: list[str] = []
    notes = _Notes(wanted=noted)
    for heading, part in _sections(doc):
        lines += [*gfm.head((heading, *(gfm.escape(host["name"]) for host in doc["hosts"]))), *_lines(part, notes), ""]
    lines += [f"- **{gfm.escape(name)}**: {gfm.escape(told)}" for name, told in _host_lines(doc)]
    numbered = [f"{number}. {gfm.escape(note)}" for number, note in enumerate(notes, 1)]
    return "\n".join([*lines, *([""] if numbered else []), *numbered]) + "\n"


def _lines(part: Document, notes: _Notes) -> Iterator[str]:
    for row, cells in _cells(part, notes):
        yield gfm.line([gfm.escape(row["name"]), *(_marked(state, mark) for state, mark in cells)])


def _marked(state: str, mark: str) -> str:
    shown = f"**{state}**" if state == "broken" else state
    return f"{shown} <sup>{mark.strip('[]')}</sup>" if mark else shown


def placed(page: str, table: str, first: str = BEGIN, last: str = END) -> str | None:
    """The page with the table between its two marks in place of what was there; None if it has not one pair of them."""
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in before or last in after:
        return None
    return f"{before}{first}\n\n{table}\n{last}{after}"
