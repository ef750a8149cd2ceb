# SPDX-License-Identifier: GPL-2.0-or-later
"""What `pyvmm diff` and `pyvmm baseline` share: their options, the files they read, the forms they print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from vmm.cli import pages
from vmm.cli.files import write_file
from vmm.errors import EXIT_FAIL, UsageError

if TYPE_CHECKING:
    from vmm.report.snapshot import Snapshot
    from vmm.report.style import Style

STATES = "works, serviced, advertised (usable); inert, absent, unproven, error, not probed, broken"


def add_options(parser: argparse.ArgumentParser, require: str) -> None:
    parser.add_argument("--require", nargs="+", action="extend", default=[], metavar="FEATURE", help=require)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    form.add_argument("--markdown", action="store_true", help="Markdown, for the summary of a CI step")
    pages.add_option(parser, "the hosts side by side, with what differs above them")
    parser.add_argument("--ci", action="store_true", help="an ::error annotation for each failure, on standard error")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def read_all(names: Iterable[str]) -> list[tuple[Snapshot, Any]]:
    """Every file read and checked, before anything is said of one: as values, and as it stands there.

    Raises:
        UsageError: one of them is no document of `pyvmm probe --json`.
    """
    from vmm.cli.files import read_json
    from vmm.report.snapshot import read

    names = list(names)
    if names.count("-") > 1:
        raise UsageError("- is standard input, and can be read once only")
    docs = [(read_json(name), "standard input" if name == "-" else name) for name in names]
    return [(read(doc, shown), doc) for doc, shown in docs]


def show(
    args: argparse.Namespace,
    doc: dict[str, Any],
    text: Callable[[dict[str, Any], Style], str],
    markdown: Callable[[dict[str, Any]], str],
    out: TextIO,
    page: Callable[[], str],
) -> int:
    """Print the document in the form that was asked for, and write the page if one was; its exit status."""
    from vmm.cli.colour import style_for
    from vmm.report.compare_text import failures

    if args.json:
        print(json.dumps(doc, indent=2), file=out)
    else:
        out.write(markdown(doc) if args.markdown else text(doc, style_for(args, out)))
    if args.html is not None:
        write_file(args.html, page())
    status: int = doc["exit_code"]
    if args.ci and status == EXIT_FAIL:
        from vmm.cli.ci import annotate

        out.flush()
        annotate(("error", f"KVM feature {name}", why) for name, why in failures(doc))
    return status
