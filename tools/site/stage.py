# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of pages that Sphinx makes the site of: guides as they are, and pages of the other modules here.

A page's address is its path: docs/debug.md is debug.html, the feature STEAL_TIME is features/STEAL_TIME.html. What an
installed pyvmm says of a page (vmm/base/docs_place.py) reads `pages.json`, which `index` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from . import commands, course, features, hosts, reference, tables
from .text import linked, page

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
# Guides by what somebody wants; each page of docs/ is in one of them.
GUIDES = {
    "Install it": ("install",),
    "Write a guest": ("learn", "begin", "payloads", "c", "images", "linux", "boards"),
    "See what happens": ("tour", "trace", "screen", "debug", "pages"),
    "Use it in Python and tests": ("library", "testing", "fuzz", "oracle", "ci"),
    "The machine": ("cpu", "memory", "interrupts", "virtio", "sandbox", "snapshots"),
    "Hosts and measurements": ("hosts", "fleet", "hostlab", "selftests", "kut", "bench"),
    "Take part": ("release",),
}
OTHERS = "More"
# Links of docs/ to what is no page of docs/.
ELSEWHERE = {"hosts/": "compared.md", "README.md": "guides.md", "../CONTRIBUTING.md": "contributing.md"}
WHOLE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def stage(into: Path) -> None:
    """Write every page into the folder, which is made."""
    into.mkdir(parents=True)
    for name, text in pages():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for picture in (*DOCS.glob("*.svg"), *DOCS.glob("*.png")):
        (into / picture.name).write_bytes(picture.read_bytes())


def pages() -> Iterator[tuple[str, str]]:
    """(path in the site's sources, text) of every page."""
    groups = grouped()
    yield "index.md", page("home", groups=groups)
    yield "guides.md", page("guides", groups=groups, asks=questions())
    for path in sorted(DOCS.glob("*.md")):
        if path.name != "README.md":
            yield path.name, _relinked(path.read_text(encoding="utf-8"))
    for source, name in WHOLE.items():
        yield name, linked((PROJECT / source).read_text(encoding="utf-8"))
    for module in (features, tables, commands, hosts, reference, course):
        yield from module.pages()


def grouped() -> dict[str, list[str]]:
    """The guides by group; a new page of docs/ that no group has is among "More"."""
    there = {path.stem for path in DOCS.glob("*.md")} - {"README"}
    found = {title: [name for name in names if name in there] for title, names in GUIDES.items()}
    rest = sorted(there - {name for names in GUIDES.values() for name in names})
    return found | ({OTHERS: rest} if rest else {})


def questions() -> dict[str, str]:
    """What each guide answers: the table of docs/README.md."""
    rows = re.findall(
        r"^\| \[(\w+)\.md\]\(\1\.md\) \| (.+) \|$", (DOCS / "README.md").read_text(encoding="utf-8"), re.M
    )
    return dict(rows)


def _relinked(text: str) -> str:
    for old, new in ELSEWHERE.items():
        text = text.replace(f"]({old}", f"]({new}")
    return text


def _title(name: str) -> str:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    title = next(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
    return title.partition(":")[0]


def menu() -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(page, name)]): what stands beside every page."""
    looked_up = [
        ("learn/index", "Lessons of the course"), ("compared", "Hosts side by side"),
        ("features/index", "Paravirtual features"), ("topics/index", "Topics of the KVM API"),
        ("tables/index", "Tables"), ("commands/index", "The command"), ("reference/index", "Reference of the library"),
        ("changelog", "What changed"), ("contributing", "Working on it"),
    ]  # fmt: skip
    guides = [(group, [(name, _title(name)) for name in names]) for group, names in grouped().items()]
    return [("Begin", [("index", "What this is"), ("guides", "All guides")]), *guides, ("Look up", looked_up)]
