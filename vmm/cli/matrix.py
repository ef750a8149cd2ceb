# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm matrix`: what several hosts said of every feature, side by side. It needs no KVM."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vmm.cli import pages
from vmm.cli.files import check_outputs, write_file
from vmm.errors import EXIT_PASS, UsageError, os_reason

if TYPE_CHECKING:
    from vmm.report.snapshot import Snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="[NAME=]FILE.json",
        help="output of `pyvmm probe --json`, one of each host, with the name of its column: by default that of the "
        "file, or of its folder where the file is called probe.json; - is standard input",
    )
    parser.add_argument("--api", action="store_true", help="topics of the KVM API too, where a probe asked for them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    form.add_argument("--markdown", action="store_true", help="Markdown, for a page or the summary of a CI step")
    form.add_argument(
        "--into",
        nargs="+",
        action="extend",
        default=[],
        metavar="PAGE.md",
        help="write the Markdown between the two marks of these pages",
    )
    pages.add_option(parser, "the same table, each verdict with its evidence behind it")
    parser.add_argument("--no-notes", action="store_true", help="the table without the reasons below it")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")
    parser.epilog = "exit status: 0, or 2 usage, a file that is none of `pyvmm probe --json`, a page without the marks"


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.colour import style_for
    from vmm.report import matrix

    check_outputs({"--html": args.html}, [file for _, file in map(_pair, args.files)])
    named = _named(args.files)
    every = [(name, snapshot) for name, (snapshot, _) in named]
    doc, noted = matrix.matrix(every, api=args.api), not args.no_notes
    if args.html is not None:
        from vmm.report.pages.hosts import hosts_page

        write_file(args.html, hosts_page([(name, each) for name, (_, each) in named], pages.command()))
    if args.json:
        print(json.dumps(doc, indent=2), file=out)
    elif args.into:
        _write(args.into, matrix.markdown(doc, noted=noted), out)
    elif args.markdown:
        out.write(matrix.markdown(doc, noted=noted))
    else:
        out.write(matrix.text(doc, style_for(args, out), noted=noted))
    return EXIT_PASS


def _named(words: list[str]) -> list[tuple[str, tuple[Snapshot, Any]]]:
    """(column, what read_all gives) of each argument.

    Raises:
        UsageError: a file is no probe, or two columns have one name.
    """
    from vmm.cli.comparing import read_all

    pairs = [_pair(word) for word in words]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two columns are called {name}", hint=f"NAME={pairs[names.index(name)][1]}")
    return list(zip(names, read_all(file for _, file in pairs), strict=True))


def _pair(word: str) -> tuple[str, str]:
    """`svm=build/x.json` -> ("svm", "build/x.json"); an existing file of that very name is one."""
    name, equals, file = word.partition("=")
    if equals and name and file and "/" not in name and not Path(word).exists():
        return name, file
    path = Path(word)
    stem = path.parent.name if path.stem == "probe" and path.parent.name else path.stem
    return ("standard input" if word == "-" else stem), word


def _write(pages: list[str], table: str, out: TextIO) -> None:
    """Every page is looked at before one is written."""
    from vmm.cli.files import write_file
    from vmm.report.matrix import BEGIN, END, placed

    done = []
    for page in pages:
        try:
            text = Path(page).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"reading {page!r}: {os_reason(error)}") from error
        new = placed(text, table)
        if new is None:
            raise UsageError(f"{page}: it has not one pair of marks", hint=f"the lines {BEGIN} and {END}, each once")
        done.append((page, text, new))
    for page, text, new in done:
        if new != text:
            write_file(page, new)
        print(f"{page}: {'written' if new != text else 'as it was'}", file=out)
