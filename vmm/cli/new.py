# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm new`: a guest of one's own to begin with, which runs as it is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TextIO

from vmm.errors import UsageError
from vmm.payload.templates import template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the guest: NAME.asm or NAME.c is written; a path is taken too")
    parser.add_argument("--c", action="store_true", dest="in_c", help="a guest in C, for the system's gcc or clang")


def run(args: argparse.Namespace, out: TextIO) -> int:
    suffix = ".c" if args.in_c else ".asm"
    given = Path(args.name)
    file = given if given.suffix == suffix else Path(f"{args.name}{suffix}")
    if not _is_name(file.stem):
        raise UsageError(
            f"{args.name!r} cannot name a guest", hint="letters, digits, `_` and `-`, for example `pyvmm new first`"
        )
    text = template(suffix, file.stem)
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already, and stays as it is", hint="another name") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"writing {file}: {getattr(error, 'strerror', None) or error}") from error
    shown = os.fspath(file)
    print(f"{shown} is written.  pyvmm run {shown}", file=out)
    return 0


def _is_name(stem: str) -> bool:
    return stem.isascii() and stem.replace("_", "a").replace("-", "a").isalnum()
