# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm new`: a guest of one's own to begin with, which runs as it is. Nothing that is there is written over."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vmm.errors import UsageError, os_reason
from vmm.payload.templates import BY_KIND, STARTS, Start, files

MAX_NAME = 100  # characters: a label and a file name for anybody


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the guest: NAME.asm or NAME.c is written; a path is taken too"
    )
    parser.add_argument("--kind", metavar="KIND", help=f"what it begins with: {', '.join(BY_KIND)} (plain)")
    parser.add_argument("--c", action="store_true", dest="in_c", help="a guest in C, as --kind c")
    parser.add_argument("--list", action="store_true", help="the kinds, a line each")
    parser.add_argument(
        "--json", action="store_true", help="with --list, or of what was written: a JSON document (schema 1)"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.list:
        return _list(args.json, out)
    if args.name is None:
        raise UsageError("the following arguments are required: NAME", hint="`pyvmm new first`, `pyvmm new --list`")
    start = _start(args)
    given = Path(args.name)
    stem = given.name.removesuffix(start.suffix) if not start.folder else given.name
    if not _is_name(stem) or (args.name.endswith("/") and not start.folder):
        raise UsageError(
            f"{args.name[:80]!r} cannot name a guest",
            hint="letters, digits, `_` and `-`, at most 100, for example `pyvmm new first`",
        )
    folder = given if start.folder else given.parent
    wanted = {folder / name: text for name, text in files(start, stem).items()}
    _write(wanted, folder if start.folder else None)
    shown = [os.fspath(file) for file in wanted]
    if args.json:
        import json

        print(json.dumps({"schema": 1, "kind": start.kind, "name": stem, "files": shown}, indent=2), file=out)
        return 0
    then = f"cd {os.fspath(folder)} && pytest" if start.folder else f"pyvmm run {shown[0]}"
    print(f"{', '.join(shown)} {'is' if len(shown) == 1 else 'are'} written.  {then}", file=out)
    return 0


def _list(as_json: bool, out: TextIO) -> int:
    if as_json:
        import json

        rows = [{"kind": each.kind, "what": each.what, "files": [to for _, to in each.files]} for each in STARTS]
        print(json.dumps({"schema": 1, "kinds": rows}, indent=2), file=out)
        return 0
    width = max(map(len, BY_KIND))
    for each in STARTS:
        print(f"{each.kind.ljust(width)}  {each.what}", file=out)
    print("\npyvmm new NAME --kind KIND writes one", file=out)
    return 0


def _start(args: argparse.Namespace) -> Start:
    """UsageError: there is no such kind, or two were asked for."""
    kind = "plain" if args.kind is None else args.kind.strip().lower().replace("_", "-")
    if args.in_c:
        if args.kind is not None and kind != "c":
            raise UsageError(f"--c and --kind {args.kind}: one of them")
        kind = "c"
    if kind not in BY_KIND:
        from vmm.base.names import unknown

        raise UsageError(unknown("kind of guest", args.kind, BY_KIND), hint=f"one of {', '.join(BY_KIND)}")
    return BY_KIND[kind]


def _write(wanted: dict[Path, str], folder: Path | None) -> None:
    """All of the files or none. UsageError: one is there already, or cannot be written."""
    written: list[Path] = []
    made = False
    file = folder or next(iter(wanted))
    try:
        for each in wanted:  # before the first is written
            if os.path.lexists(each):
                raise FileExistsError(17, "File exists", os.fspath(each))
        if folder is not None and not folder.is_dir():
            folder.mkdir()
            made = True
        for file, text in wanted.items():
            with file.open("x", encoding="utf-8") as opened:
                written.append(file)
                opened.write(text)
    except (OSError, ValueError) as error:
        for each in written:
            with suppress(OSError):
                each.unlink()
        if made and folder is not None:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, FileExistsError):
            there = error.filename or os.fspath(file)
            raise UsageError(f"{there} is there already, and stays as it is", hint="another name") from None
        raise UsageError(f"writing {os.fspath(file)}: {os_reason(error)}") from error


def _is_name(stem: str) -> bool:
    return (
        stem.isascii()
        and stem[:1] != "-"
        and stem.replace("_", "a").replace("-", "a").isalnum()
        and len(stem) <= MAX_NAME
    )
