# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm docs`: the pages of the documentation on this machine, and where one is. It needs no network and no KVM."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from vmm.base.docs_place import Place

NONE = "no documentation is installed here"
ENDING = "`pyvmm docs PAGE` says where it is, --open opens it in a browser"
NONE_HINT = "`make docs` in pyvmm's source builds it, and its docs/ has the text; `pyvmm help` needs neither"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "page", nargs="?", metavar="PAGE[#PART]", help="debug, features/STEAL_TIME, STEAL_TIME, exits#kvm-exit-io; "
        "all are listed if none is named",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--path", action="store_true", help="only the file's path, for a program")
    how.add_argument("--open", action="store_true", help="open it in a browser; the first page without PAGE")
    how.add_argument("--json", action="store_true", help="one JSON document (schema 1)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.base import docs_place
    from vmm.errors import UsageError

    every = docs_place.pages()
    if not every:
        page = docs_place.project_page()
        raise UsageError(NONE, hint=f"{page}; {NONE_HINT}" if page else NONE_HINT)
    word = args.page or (docs_place.FIRST if args.open or args.path else None)
    found = list(every.values()) if word is None else [one(word, every)]
    if args.json:
        rows = [{"name": each.name, "title": each.title, "file": str(each.file), "url": each.url} for each in found]
        out.write(json.dumps({"schema": 1, "pages": rows}, indent=2) + "\n")
    elif word is None:
        _list(found, out)
    elif args.path:
        out.write(f"{found[0].file}\n")
    else:
        out.write(f"{found[0].title}: {found[0].url}\n")
        if args.open:
            _open(found[0])
    return 0


def one(word: str, every: dict[str, Place]) -> Place:
    """The page that the word names.

    Raises:
        UsageError: none is, or several are; or its file is gone, or it has no such part.
    """
    from vmm.base import docs_place, names
    from vmm.errors import UsageError

    if word == docs_place.FIRST and word not in every:
        word = "guides"
    found = docs_place.find(word, every)
    if not found and docs_place.site() is None and (made := _made(word)):
        page, instead = made
        raise UsageError(
            f"the page {page} is of the site, which {docs_place.CHECKOUT} has not built yet",
            hint=f"`make docs` there builds it, and `pyvmm {instead}` tells what is on it",
        )
    if not found:
        raise UsageError(names.unknown("page", word.partition("#")[0], list(every)), hint="`pyvmm docs` lists them")
    if len(found) > 1:
        raise UsageError(f"{word!r} is the end of several pages' names", hint=", ".join(each.name for each in found))
    place = found[0]
    if not place.file.is_file():
        raise UsageError(f"the page {place.name} is not there any more: {place.file}", hint="install pyvmm again")
    if place.anchor and place.file.suffix == ".html" and f'id="{place.anchor}"' not in place.file.read_text("utf-8"):
        raise UsageError(f"the page {place.name} has no part #{place.anchor}", hint=f"`pyvmm docs {place.name}`")
    return place


def _made(word: str) -> tuple[str, str] | None:
    """(its page, what tells the same without one) of a word that has no file in docs/ and a page that the site is given
    of the project's rows: a feature, a command, a lesson.
    """
    from vmm.abi import pv
    from vmm.cli.arguments import COMMANDS
    from vmm.learn.course import ORDER

    rows = (
        ("features", "explain", [each.name for each in pv.FEATURES]),
        ("commands", "help", list(COMMANDS)),
        ("learn", "learn show", list(ORDER)),
    )
    folder, _, name = word.partition("#")[0].rpartition("/")
    for group, command, names in rows:
        same = [each for each in names if each.lower() == name.lower()]
        if same and folder in ("", group):
            return f"{group}/{same[0]}", f"{command} {same[0]}"
    return None


def _list(found: list[Place], out: TextIO) -> None:
    from vmm.report.columns import aligned

    shown = [(each.name, each.title) for each in found if not each.name.endswith("/index")]
    out.write("\n".join([*aligned(shown), ENDING]) + "\n")


def _open(place: Place) -> None:
    """UsageError: there is no browser."""
    import webbrowser

    from vmm.errors import UsageError

    if not webbrowser.open(place.url):
        raise UsageError("this system has no browser that can be started", hint=f"open {place.url} in one")
