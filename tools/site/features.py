# SPDX-License-Identifier: GPL-2.0-or-later
"""A page of each paravirtual feature and each topic of the KVM API: its ABI as `pyvmm explain` has it, of the same
rows, what hosts said of it, and the guest that proves it with its listing.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmm.abi import structs
from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.proof.prove import proofs
from vmm.report import explain
from vmm.report.bytemap import draw

from . import hosts
from .text import page

LISTINGS = Path(__file__).resolve().parents[2] / "tests" / "listings"
KINDS = ("feature", "row")


def pages() -> Iterator[tuple[str, str]]:
    """Every feature, every topic, and the two lists of them."""
    proven = proofs({})
    told = [topic for topic in explain.topics(proven) if topic.kind in KINDS]
    yield "features/index.md", page("features", topics=told, name=file_name)
    for topic in told:
        doc = explain.document(topic, proven)
        how = doc["proof"] and find(doc["proof"]["payload"])
        yield f"features/{file_name(topic.name)}.md", _page(topic.name, doc, how, hosts.said(topic.name))
    topics = proofs({}, "api")
    yield "topics/index.md", page("topics", topics=topics, name=file_name)
    for name, payload in topics.items():
        yield f"topics/{file_name(name)}.md", _page(name, None, payload, hosts.said(f"api {name}") or hosts.said(name))


def file_name(name: str) -> str:
    """`hypercall from ring 3` -> `hypercall-from-ring-3`."""
    return name.replace(" ", "-")


def _page(name: str, doc: dict[str, Any] | None, payload: Payload | None, said: dict[str, Any]) -> str:
    drawn = {each["name"]: "\n".join(draw(structs.BY_NAME[each["name"]])) for each in doc["structures"]} if doc else {}
    half = payload.host_half() if payload else None
    return page(
        "feature", name=name, doc=doc, drawn=drawn, said=said, payload=payload, file_name=file_name,
        how=inspect.cleandoc(half.doc) if half else "",
        registers=explain.ARGUMENT_REGISTERS,
    )  # fmt: skip


def extra(into: Path) -> None:
    """Beside the pages, as plain text: the source of every payload, and its listing as it is kept under review."""
    folder = into / "guests"
    folder.mkdir()
    for name in shipped():
        (folder / f"{name}.asm.txt").write_text(find(name).text or "", encoding="utf-8")
        shutil.copyfile(LISTINGS / f"{name}.lst", folder / f"{name}.lst.txt")
