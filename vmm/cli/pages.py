# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands share that write a page for a browser: the option, and the words for the page's foot."""

from __future__ import annotations

import argparse
import shlex
import sys

HELP = "also write a page for a browser, whole in one file: {}"


def add_option(parser: argparse._ActionsContainer, shows: str) -> None:
    """`--html FILE`; `shows` says what is to see there."""
    parser.add_argument("--html", metavar="FILE", help=HELP.format(shows))


def command() -> str:
    """What the user typed, for the foot of a page."""
    return shlex.join(["pyvmm", *sys.argv[1:]])
