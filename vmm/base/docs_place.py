# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a page of the documentation is: of the site that came with the wheel, else of one that `make docs` built in a
checkout, else the text in docs/ of it; `project_page` is for where none is. It reads names of files, and no page;
messages name pages as `pyvmm docs PAGE`.

A page is named by its path in the site without ending, `debug` or `features/STEAL_TIME`, with `#anchor` behind it where
a part is meant; the last part of the path is enough where only one page has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
INDEX = "pages.json"
FIRST = "index"


class Place(NamedTuple):
    """A page: its `name`, its `title`, and the `file` that has it, with the `anchor` of a part, or ""."""

    name: str
    title: str
    file: Path
    anchor: str = ""

    @property
    def url(self) -> str:
        """What a browser opens: a file: address."""
        return self.file.as_uri() + (f"#{self.anchor}" if self.anchor else "")


def site(roots: tuple[Path, ...] | None = None) -> Path | None:
    """The folder of the built site: the wheel's, or a checkout's; None where there is none."""
    for folder in roots if roots is not None else (PACKAGE / "site", CHECKOUT / "build" / "site"):
        if (folder / INDEX).is_file():
            return folder
    return None


def pages(roots: tuple[Path, ...] | None = None, docs: Path | None = None) -> dict[str, Place]:
    """Every page that is here, by name: those of the site, else those of docs/; none where neither is there.

    Raises:
        ValueError: the site's list of pages is no such list.
    """
    import json

    folder = site(roots)
    if folder is not None:
        listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return {name: Place(name, title, folder / f"{name}.html") for name, title in listed.items()}
    docs = CHECKOUT / "docs" if docs is None else docs
    found = {"guides" if path.stem == "README" else path.stem: path for path in sorted(docs.glob("*.md"))}
    return {name: Place(name, _title(path), path) for name, path in found.items()}


def project_page() -> str:
    """The address that the installed package's metadata has for its documentation; empty where it has none."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        listed = metadata("pyvmm").get_all("Project-URL") or []
    except (PackageNotFoundError, OSError):  # OSError: one who may not read it; importlib_metadata's finder says so
        return ""
    pairs = [each.partition(", ") for each in listed]
    return next((url for label, _, url in pairs if label.lower() == "documentation"), "")


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next((line[2:].strip() for line in lines if line.startswith("# ")), path.stem)


def find(word: str, every: dict[str, Place]) -> list[Place]:
    """The pages that a person can mean by the word: the one of that name, or the first of that folder; else those whose
    path ends so, in any case, written with or without docs/ and .md. Empty where there is none.
    """
    name, _, anchor = word.partition("#")
    plain = name.removeprefix("docs/").removesuffix(".md").removesuffix(".html").strip("/")
    for whole in (plain, f"{plain}/index"):
        if whole in every:
            return [every[whole]._replace(anchor=anchor)]
    low = plain.lower()
    same = [place for key, place in every.items() if key.lower() == low]
    ends = [place for key, place in every.items() if key.lower().endswith(f"/{low}")]
    return [place._replace(anchor=anchor) for place in same or ends]
