# SPDX-License-Identifier: GPL-2.0-or-later
"""What went wrong, as one message on standard error and an exit status: every error that is no fault of ours."""

from __future__ import annotations

import errno
import os
import sys

from vmm.errors import EXIT_HOST, EXIT_INTERRUPTED, EXIT_USAGE, KvmCallError, VmmError, advised, os_reason

EXIT_PIPE = 128 + 13  # SIGPIPE, as a shell says it of any program whose reader went away
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)  # how writing fails but for EPIPE


def told(error: BaseException) -> int | None:
    """Say it: the exit status. None: nobody but us can have caused this, and it is not said."""
    match error:
        case VmmError():
            return complain(_message(error), error.exit_code)
        case KeyboardInterrupt() | RuntimeError(__cause__=KeyboardInterrupt()):
            # While a class names its members, as an enum's, Python before 3.12 makes a RuntimeError of it.
            # One that passed through exec() of text, as in making a dataclass, leaves CPython in the belief that nobody
            # caught it: `python -m vmm` would die by the signal after all. To evaluate any text makes it forget that.
            eval("0")
            return complain("interrupted", EXIT_INTERRUPTED)
        case OSError():
            return _of_the_system(error)
        case MemoryError():
            return complain(advised("the host is out of memory", "a smaller --memory"), EXIT_HOST)
        case ImportError(name="vmm.kvm._kvm"):
            return complain(
                advised("pyvmm's C binding has not been built", "`make`, or `python cffi_build.py`"), EXIT_HOST
            )
        case _:
            return None


def _of_the_system(error: OSError) -> int:
    if error.errno == errno.EPIPE:  # the reader went away (`pyvmm list | head`), and knows it
        _drop_output()
        return EXIT_PIPE
    if error.errno == errno.ENOENT and not error.filename and _nowhere():
        return complain(
            advised("the current folder is gone: somebody removed it", "`cd` to one that exists"), EXIT_USAGE
        )
    where = f"{error.filename}: " if error.filename else "writing the output: " if error.errno in FULL else ""
    return complain(f"{where}{os_reason(error)}", EXIT_HOST)


def _nowhere() -> bool:
    """Is the current folder no more?"""
    from pathlib import Path

    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _message(error: VmmError) -> str:
    """Its text; of a device that cannot be opened, what doctor would say of it. Nobody else pays for looking around."""
    if not isinstance(error, KvmCallError) or error.call != "open":
        return str(error)
    from vmm.host.unusable import message

    return message(error)


def complain(text: str, status: int) -> int:
    """One message on standard error; what was printed so far stays before it."""
    from vmm.report.style import printable

    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    if sys.stderr is not None:
        try:
            print(f"pyvmm: {printable(text)}", file=sys.stderr, flush=True)
        except OSError:
            pass  # nobody can be told
    return status


def _drop_output() -> None:
    """Output that cannot be written goes nowhere: nothing is left for the interpreter to flush and complain about."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # who runs an image has given up opening files: a pipe that this process holds takes what is left
        _, null = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
