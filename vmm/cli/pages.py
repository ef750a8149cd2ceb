# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands share that write a page for a browser: the option, the words for the page's foot, and what is said
when a page cannot be written at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.errors import VmmError, os_reason
from vmm.report.style import printable

if TYPE_CHECKING:
    from vmm.cli.files import OutputFile

HELP = "also write a page for a browser, whole in one file: {}"


def add_option(parser: argparse._ActionsContainer, shows: str) -> None:
    """`--html FILE`; `shows` says what is to see there."""
    parser.add_argument("--html", metavar="FILE", type=_file, help=HELP.format(shows))


def _file(name: str) -> str:
    """ArgumentTypeError: no page goes there, or none can be made; nothing has been run."""
    if name == "-":
        raise argparse.ArgumentTypeError("a page goes into a file; standard output has the text")
    if importlib.util.find_spec("jinja2") is None:
        raise argparse.ArgumentTypeError("a page needs Jinja2, which is not installed (`pip install Jinja2`)")
    return name


def keep(output: OutputFile, page: Callable[[], str]) -> None:
    """Make the page of what has been run and put it into its place. What keeps it from that is said on standard error:
    the result, and the status that tells it, are worth more.
    """
    try:
        output.file.write(page().encode())
        output.keep()
    except (OSError, VmmError) as error:
        text = error.text if isinstance(error, VmmError) else f"writing {output.name!r}: {os_reason(error)}"
        if sys.stderr is not None:
            print(f"pyvmm: --html: {printable(text)}; the run is told all the same", file=sys.stderr, flush=True)


def command() -> str:
    """What the user typed, for the foot of a page."""
    return shlex.join(["pyvmm", *sys.argv[1:]])
