# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.share DIR`: what a package puts below share/, made of the command's own parsers: the manual page
pyvmm(1) and the completions of bash, zsh and fish, each where its reader looks for those of packages.

setup.py runs it while a wheel is made, with the wheel's own modules; so nothing of it is kept, or typed twice.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from datetime import date
from pathlib import Path

from vmm.cli.arguments import EXIT_STATUS, whole
from vmm.cli.completion import script

ROOT = Path(__file__).resolve().parents[1]
MANUAL = "man/man1/pyvmm.1"
COMPLETIONS = {
    "bash": "bash-completion/completions/pyvmm",
    "zsh": "zsh/site-functions/_pyvmm",
    "fish": "fish/vendor_completions.d/pyvmm.fish",
}


def manual() -> str:
    """pyvmm(1) in troff: each command with its options, as `pyvmm COMMAND --help` has them. Its day is today's, or the
    one that SOURCE_DATE_EPOCH says.
    """
    from argparse_manpage.manpage import Manpage

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    os.environ["COLUMNS"] = "10000"  # troff breaks the lines
    top = whole()
    for parser in (top, *_commands(top)):
        if parser.epilog == EXIT_STATUS:
            parser.epilog = None  # once, below
        parser.description = None if parser is not top else parser.description  # it is the line in the list of commands
    page = Manpage(top, format="single-commands-section")
    page.description = project["description"]
    page.source = f"{project['name']} {project['version']}"
    page.manual = "User Commands"
    page.date = date.fromisoformat(page.date).strftime("%B %-d, %Y")  # its hyphens would be minus signs
    statuses = re.findall(r"(\d+) ([^,]+)", EXIT_STATUS.partition(":")[2].replace("\n", " "))
    page.add_section(
        "exit status", "=", "\n".join(f".TP\n.B {each}\n{' '.join(what.split())}" for each, what in statuses)
    )
    return str(page)


def _commands(top: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [each for action in top._actions if isinstance(action.choices, dict) for each in action.choices.values()]
    return [*below, *(deeper for each in below for deeper in _commands(each))]


def write(folder: Path) -> list[Path]:
    """Write them all below the folder, which stands for share/; the files, relative to it."""
    files = {MANUAL: manual(), **{path: script(shell) for shell, path in COMPLETIONS.items()}}
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return [Path(path) for path in files]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
