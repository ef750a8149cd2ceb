# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --watch`: the run again whenever a file of the payload is saved, until ^C. It knows no guest.

What a save can mend is told, and waited for: a text that does not assemble, a host half that raises, a file that is
gone. What it cannot is an error as without --watch, if the first run meets it: a payload that is not there, no KVM.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vmm.base.watch import Watch
from vmm.errors import PayloadError, UsageError, VmmError
from vmm.payload.sources import sources
from vmm.report.style import Style, printable

if TYPE_CHECKING:
    import argparse

LOOK = 1.0  # seconds between two looks at whether anybody still reads
SHOWN = 4  # names of files on a line


def check(args: argparse.Namespace) -> None:
    """UsageError: together with an option that ends with its one run."""
    if args.gdb is not None or args.wait:
        raise UsageError(
            "--watch and --gdb: a debugger stays at one run", hint="`pyvmm run --watch` in a second terminal"
        )


def again(args: argparse.Namespace, file: str, out: TextIO, once: Callable[[], int], style: Style) -> int:
    """Run `once` now and at each save of what `file` is made of; it ends by KeyboardInterrupt.

    Raises:
        VmmError: the first run met what no save can mend.
        BrokenPipeError: nobody reads `out` any more.
    """
    sys.dont_write_bytecode = True  # a .pyc is told from its source by a time in seconds, and saves are faster
    aside = sys.stderr if args.json else out
    if aside is None:
        raise UsageError("standard error is closed", hint="`2>/dev/null`")
    watch = Watch(_names(args, file))
    number = 1
    while True:
        try:
            once()
        except VmmError as error:
            if number == 1 and not isinstance(error, PayloadError):
                raise
            out.flush()
            if sys.stderr is not None:
                _say(sys.stderr, f"pyvmm: {printable(str(error))}")
        out.flush()
        watch.follow(_names(args, file))
        _say(aside, style("dim", f"waits for a save of {_few(_there(watch.names))}; ^C ends it"))
        saved = wait(watch, out)
        number += 1
        _forget(saved)
        gone = [each for each in saved if not Path(each).exists()]
        what = f"{_few(gone)} gone" if len(gone) == len(saved) else f"{_few(_there(saved))} saved"
        _say(aside, "\n" + style("head", f"--- run {number}: {what} ---"))


def _names(args: argparse.Namespace, file: str) -> list[str]:
    """Files whose save begins another run. No disk or folder: the guest itself writes there."""
    from vmm.payload.catalog import find

    try:
        cflags: Sequence[str] = find(args.payload).header.cflags
    except VmmError:
        cflags = ()
    kernel = [each.partition(",")[0] for each in args.module] + ([args.initrd] if args.initrd else [])
    return list(dict.fromkeys([*sources(file, cflags), *kernel]))


def wait(watch: Watch, out: TextIO) -> tuple[str, ...]:
    """The names that were saved. BrokenPipeError: nobody reads `out` any more."""
    while True:
        saved = watch.wait(LOOK)
        if saved:
            return saved
        if _unread(out):
            raise BrokenPipeError(32, os.strerror(32))


def _unread(out: TextIO) -> bool:
    """Has the reader of a pipe or socket gone away, or the terminal?"""
    try:
        poll = select.poll()
        poll.register(out.fileno(), 0)
        return bool(poll.poll(0))  # POLLERR and POLLHUP are told unasked
    except (OSError, ValueError):
        return False  # no file: whoever stands in reads on


def _forget(saved: Sequence[str]) -> None:
    """A host half that comes with pyvmm is a module of a package, which is imported anew."""
    paths = {os.path.realpath(each) for each in saved}
    for name, module in list(sys.modules.items()):
        if name.startswith("guest_payloads.") and os.path.realpath(getattr(module, "__file__", None) or "") in paths:
            del sys.modules[name]


def _there(names: Sequence[str]) -> list[str]:
    return [each for each in names if Path(each).exists()] or list(names[:1])


def _few(names: Sequence[str]) -> str:
    shown = [printable(Path(each).name) for each in names[:SHOWN]]
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    *first, last = [*shown, *more]
    return f"{', '.join(first)} and {last}" if first else last


def _say(out: TextIO, text: str) -> None:
    print(text, file=out, flush=True)
