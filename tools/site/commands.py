# SPDX-License-Identifier: GPL-2.0-or-later
"""The command's reference, from its parsers: what `--help` says, a page for each sub-command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import NamedTuple

from vmm.cli.arguments import COMMANDS, EXIT_STATUS, parser

from .text import cell, page

WIDTH = "100"  # of usage lines


class Option(NamedTuple):
    """An argument as its help shows it: `--json`, `-m SIZE, --memory SIZE`."""

    shown: str
    help: str


def pages() -> Iterator[tuple[str, str]]:
    """Each command, and the list of them."""
    yield "commands/index.md", page("commands", commands=COMMANDS, status=EXIT_STATUS)
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        for name, says in COMMANDS.items():
            yield f"commands/{name}.md", _page(name, says)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _page(name: str, says: str) -> str:
    made = of(name)
    groups = {group.title: (group.description or "", list(_options(made, group))) for group in made._action_groups}
    epilog = made.epilog if made.epilog != EXIT_STATUS else ""
    return page("command", name=name, says=says, usage=made.format_usage(), groups=groups, epilog=epilog or "")


def of(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    subs = next(each for each in parser(command)._actions if isinstance(each, argparse._SubParsersAction))
    found: argparse.ArgumentParser = subs.choices[command]
    return found


def _options(made: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[Option]:
    formatter = made._get_formatter()
    for action in group._group_actions:
        if action.help != argparse.SUPPRESS:
            shown = formatter._format_action_invocation(action)
            yield Option(shown.replace("|", "\\|"), cell(formatter._expand_help(action)) if action.help else "")
