# SPDX-License-Identifier: GPL-2.0-or-later
"""Every link of the built site: the file is there, and so is the anchor; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Of a page: the names that can be pointed to, where it points, what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.points: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and "href" in values:
            self.points.add(values["href"])
        elif tag in LOADS and LOADS[tag] in values:
            self.loads.add(values[LOADS[tag]])


@cache
def _read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def problems(site: Path) -> list[str]:
    """What is wrong, a sentence for each link; links to other hosts are not followed."""
    _read.cache_clear()
    return [wrong for path in sorted(site.rglob("*.html")) for wrong in _of(path, site)]


def _of(path: Path, site: Path) -> Iterator[str]:
    page, name = _read(path), path.relative_to(site)
    for link in sorted(page.loads):
        if not link.startswith("data:") and (urlsplit(link).scheme or link.startswith("//")):
            yield f"{name}: loads {link}, which is not of the site"
    for link in sorted(page.points | page.loads):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = path if not parts.path else path.parent / unquote(parts.path)
        if not target.is_file():
            yield f"{name}: {link}: there is no such file"
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _read(target).names:
            yield f"{name}: {link}: the page has no such anchor"
