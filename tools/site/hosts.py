# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts said, by the documents of docs/hosts/: side by side, and for one feature. `pyvmm matrix` does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tools.hostlab.keep import kept
from vmm.report import matrix
from vmm.report.snapshot import Entry, Snapshot, read

from .text import page


@cache
def documents() -> dict[str, dict[str, Any]]:
    """Host -> what `pyvmm probe --api --json` printed there."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in kept()}


@cache
def snapshots() -> dict[str, Snapshot]:
    """The same, as it is compared."""
    return {name: read(doc, f"{name}.json") for name, doc in documents().items()}


def said(name: str) -> dict[str, Entry]:
    """Host -> what it said of a feature, or of a topic: `api NAME`."""
    found = {host: snapshot.entries.get(name) for host, snapshot in snapshots().items()}
    return {host: entry for host, entry in found.items() if entry is not None}


def pages() -> Iterator[tuple[str, str]]:
    """The matrix of features and topics."""
    doc = matrix.matrix(list(snapshots().items()), api=True)
    yield "compared.md", page("compared", table=matrix.markdown(doc, noted=True))


def extra(into: Path) -> None:
    """The page of `pyvmm matrix --html`, with evidence on click, beside the site's own pages."""
    from vmm.report.pages.hosts import hosts_page

    text = hosts_page(list(documents().items()), "pyvmm matrix docs/hosts/*.json --html evidence.html")
    (into / "evidence.html").write_text(text, encoding="utf-8")
