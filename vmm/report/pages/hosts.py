# SPDX-License-Identifier: GPL-2.0-or-later
"""One host's probe, or several side by side, as a page: each verdict with its evidence, refusals and deviations behind
it. Documents of `pyvmm probe --json` in, HTML out.

A document is checked by snapshot.read before it comes here: what that does not look at is shown if it is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vmm.abi import pv
from vmm.payload.proof.verdict import Verdict
from vmm.report.pages.render import page
from vmm.report.snapshot import ERROR, LADDER, NOT_PROBED, Snapshot, read

Document = Mapping[str, Any]
MEANINGS = (
    *((str(each), each.meaning) for each in Verdict),
    (ERROR, "pyvmm itself failed at it; the traceback is in the JSON document"),
    (NOT_PROBED, "nobody asked this host"),
)


class Table(NamedTuple):
    """One more table above the hosts; without rows it is not shown, and `folded` it is closed at first."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def hosts_page(
    every: Sequence[tuple[str, Document]],
    command: str,
    *,
    title: str = "",
    named: Sequence[tuple[str, str]] = (),
    told: Sequence[str] = (),
    tables: Sequence[Table] = (),
) -> str:
    """The page of these named documents, each as json.loads gave it. `command` is what the user typed, for the footer;
    `told` are sentences at the top, `named` says what a short name stands for.

    Raises:
        UsageError: one of them is no document of `pyvmm probe --json`, or the template library is missing.
    """
    snapshots = [read(doc, name) for name, doc in every]
    rows = {name: _rows(doc) for name, doc in every}
    sections = list(_sections(every, rows, snapshots))
    used = {state for section in sections for row in section["rows"] for state in row["states"]}
    names = [name for name, _ in every]
    return page(
        "hosts.html",
        title=title or f"What KVM does on {names[0] if len(names) == 1 else f'{len(names)} hosts'}",
        lead="Each row is a feature of KVM's paravirtual interface, or a topic of its API, as its guest saw it. "
        "A row opens: why, by which numbers, and what was refused.",
        command=command,
        told=told,
        named=named,
        tables=[each for each in (*tables, _missing(rows, snapshots)) if each.rows],
        hosts=[_host(name, doc, snapshot) for (name, doc), snapshot in zip(every, snapshots, strict=True)],
        sections=sections,
        states=[each for each in (*LADDER, "deviates") if each.replace(" ", "-") in used],
        meanings=[(state, meaning) for state, meaning in MEANINGS if state.replace(" ", "-") in used],
    )


def _host(name: str, doc: Document, snapshot: Snapshot) -> dict[str, Any]:
    counts = Counter(entry.state for entry in snapshot.entries.values())
    return {
        "name": name,
        "text": doc["host"]["text"],
        "kernel": doc["host"]["kernel"],
        "cpus": doc["host"].get("cpus", "?"),
        "counts": [(state, counts[state]) for state in LADDER if counts[state]],
        "deviations": sum(len(entry.deviations) for entry in snapshot.entries.values()),
        "notes": list(snapshot.notes),
    }


def _missing(rows: Mapping[str, Mapping[tuple[bool, str], Document]], snapshots: Sequence[Snapshot]) -> Table:
    """What a guest cannot use on a host, and why, broken things first."""
    several = len(snapshots) > 1
    found = []
    for (host, of), snapshot in zip(rows.items(), snapshots, strict=True):
        for (topic, name), row in of.items():
            entry = snapshot.entries.get(f"api {name}" if topic else name)
            if entry is not None and not entry.usable:
                what = f"{name} (topic of the API)" if topic else name
                cells = (what, host, entry.state, row["reason"]) if several else (what, entry.state, row["reason"])
                found.append((-LADDER.index(entry.state), pv.order(name), cells))
    head = ("what", "host", "verdict", "why") if several else ("what", "verdict", "why")
    ordered = [cells for *_, cells in sorted(found, key=lambda each: each[:2])]
    return Table("Not usable, and why", head, ordered, folded=several)


def _rows(doc: Document) -> dict[tuple[bool, str], Document]:
    features = {(False, row["name"]): row for row in doc["features"]}
    return features | {(True, row["name"]): row for row in doc.get("topics", ())}


def _sections(
    every: Sequence[tuple[str, Document]],
    rows: Mapping[str, Mapping[tuple[bool, str], Document]],
    snapshots: Sequence[Snapshot],
) -> Iterator[dict[str, Any]]:
    for topic, heading, first in (
        (False, "Features of the paravirtual interface", "feature"),
        (True, "Topics of the KVM API", "topic"),
    ):
        names = dict.fromkeys(key for found in rows.values() for key in found if key[0] == topic)
        if not names:
            continue
        ordered = [name for _, name in names]
        yield {
            "heading": heading,
            "first": first,
            "rows": [
                _row(name, topic, [(host, rows[host].get((topic, name))) for host, _ in every], snapshots)
                for name in (ordered if topic else sorted(ordered, key=pv.order))
            ],
        }


def _row(
    name: str, topic: bool, found: Sequence[tuple[str, Document | None]], snapshots: Sequence[Snapshot]
) -> dict[str, Any]:
    cells = [
        _cell(host, row, snapshot, f"api {name}" if topic else name)
        for (host, row), snapshot in zip(found, snapshots, strict=True)
    ]
    known = next(row for _, row in found if row is not None)
    fact = None if topic else pv.find(name)
    states = {cell["state"].replace(" ", "-") for cell in cells}
    differs = {"differs"} if len(states) > 1 else set()
    deviates = {"deviates"} if any(cell["deviations"] for cell in cells) else set()
    return {
        "name": name,
        "id": f"{'topic' if topic else 'feature'}-{anchor(name)}",
        "meaning": fact.meaning if fact else "",
        "since": fact.since if fact else "",
        "bit": known.get("bit"),
        "register": known.get("register", ""),
        "payload": known.get("payload", ""),
        "cells": cells,
        "states": sorted(states | differs | deviates),
    }


def anchor(name: str) -> str:
    """What a link calls a row: a word without spaces, and the same for the same name."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda found: "-" if found[0] == " " else f"-{ord(found[0]):x}-", name)


def _cell(host: str, row: Document | None, snapshot: Snapshot, key: str) -> dict[str, Any]:
    if row is None:
        empty = {"reason": "", "summary": "", "evidence": [], "refusals": [], "deviations": []}
        return {"host": host, "state": NOT_PROBED, **empty}
    entry = snapshot.entries.get(key)
    return {
        "host": host,
        "state": entry.state if entry else row["verdict"],
        "reason": row["reason"],
        "summary": row.get("summary", ""),
        "evidence": list(evidence.items()) if isinstance(evidence := row.get("evidence"), Mapping) else [],
        "refusals": [
            {**each, "expected": each.get("expected", ""), "holds": each.get("holds") is not False}
            for each in row["refusals"]
        ],
        "deviations": [
            {**each, "since": _known(each)} for each in row.get("deviations", ()) if isinstance(each, Mapping)
        ],
    }


def _known(deviation: Document) -> str:
    commit = deviation.get("commit") or ""
    known = [deviation.get("kernels") or "", f'changed by "{commit}"' if commit else ""]
    return "; ".join(each for each in known if each)
