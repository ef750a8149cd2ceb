# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `pyvmm`: arguments in, text out, one exit status. The only floor that prints.

Each sub-command is a module with `add_arguments(parser)` and `run(args, out) -> int`; it is imported only when it is
the one that was asked for (`pyvmm --help` needs just the names below).

Signals: ^C (SIGINT) ends a run with one line and status 130. SIGTERM is left as it is: it ends the process at once, and
the kernel takes the VM, its memory and its threads down with it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from vmm.errors import EXIT_HOST, EXIT_INTERRUPTED, EXIT_USAGE, HostError, UsageError, VmmError

# name -> one line of help; the module is vmm.cli.<name>
COMMANDS = {
    "run": "run a payload (or your own .asm or .bin) on /dev/kvm and report what happened",
    "replay": "show a recorded trace, and handle its exits again without a device",
    "list": "the payloads that come with pyvmm",
    "disasm": "show a payload's listing: addresses, bytes, source",
    "doctor": "is KVM usable here, what kind of host is it, and what does it offer",
    "probe": "prove every paravirtual feature of this KVM by running guests, and print the table",
    "diff": "what changed between two probes: hosts, kernels; exit status 1 on a regression",
    "baseline": "what the hosts of several probes have in common: what a guest may use and still be migrated",
    "bench": "what pyvmm costs beside a C program and beside QEMU, with the goals it has to meet",
    "cpuid": "the CPUID leaves that KVM offers, with every bit named; explain a value from a log",
    "explain": "what a paravirtual feature, MSR or hypercall is, and how pyvmm proves it",
}

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)  # how writing fails but for EPIPE

EXIT_STATUS = """\
exit status: 0 pass, 1 the guest failed or crashed, 2 usage, 77 cannot be shown on this host,
             99 no usable KVM or an error of pyvmm's own, 124 time limit, 130 interrupted (^C)"""


def pyvmm_version() -> str:
    """The installed version; the metadata of a package is slow to read, so only --version asks for it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pyvmm")
    except PackageNotFoundError:
        return "(not installed)"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse makes one for every argument, and would import shutil and with it the
    compressors to know the width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)


def columns() -> int:
    """Of the terminal; $COLUMNS wins, and 80 is the guess where there is none."""
    width = os.environ.get("COLUMNS", "")
    if width.isascii() and width.isdecimal():
        return max(int(width), 40)
    with contextlib.suppress(OSError):
        return max(os.get_terminal_size().columns, 40)
    return 80


class Parser(argparse.ArgumentParser):
    """Arguments that cannot be are a UsageError like any other bad input, and not a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n  try: `{self.prog} --help`")


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; with a command, of that alone: no other is imported, and each takes time to make."""
    top = Parser(
        prog="pyvmm",
        description="A virtual machine monitor that shows what this host's KVM really does, by running guests.",
        epilog=EXIT_STATUS,
        formatter_class=Formatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    subs = top.add_subparsers(prog="pyvmm", dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS if command is None else (command,):
        text = COMMANDS[name]
        sub = subs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EXIT_STATUS,
            formatter_class=Formatter,
        )
        if name == command:
            importlib.import_module(f"vmm.cli.{name}").add_arguments(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Never a traceback for what a user, a guest or a host can cause."""
    # No list(...) in this module: once imported, vmm.cli.list is what `list` means here.
    if argv is not None:
        return _main(argv)
    # A process of its own: most of what is made while it starts stays to its end, so the collector looks rarely, and at
    # the end not at all. Together that is a sixth of the time of a short run.
    gc.set_threshold(20_000)
    try:
        return _main(sys.argv[1:])
    finally:
        gc.freeze()


def _main(arguments: Sequence[str]) -> int:
    try:
        return _run(arguments, _output())
    except VmmError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        # One that passed through exec() of text, as in making a dataclass, leaves CPython in the belief that nobody
        # caught it: `python -m vmm` would die by the signal after all. To evaluate any text makes it forget that.
        eval("0")
        return _complain("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader went away (`pyvmm list | head`), and knows it
            _drop_output()
            return EXIT_HOST
        where = f"{error.filename}: " if error.filename else "writing the output: " if error.errno in FULL else ""
        return _complain(f"{where}{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})", EXIT_HOST)
    except MemoryError:
        return _complain("the host is out of memory\n  try: a smaller --memory", EXIT_HOST)
    except ImportError as error:
        if error.name != "vmm.kvm._kvm":
            raise
        return _complain("pyvmm's C binding has not been built\n  try: `make`, or `python cffi_build.py`", EXIT_HOST)


def _run(arguments: Sequence[str], out: TextIO) -> int:
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        from vmm.abi.names import unknown

        raise UsageError(f"{unknown('command', command, COMMANDS)}\n  try: `pyvmm --help`")
    args = parser(command).parse_args(arguments)
    if args.version:
        print(f"pyvmm {pyvmm_version()}", file=out)
        return 0
    if args.command is None:
        parser().print_help(out)
        return EXIT_USAGE
    try:
        status: int = importlib.import_module(f"vmm.cli.{args.command}").run(args, out)
        out.flush()
        return status
    finally:
        _say_what_the_cache_said()


def _output() -> TextIO:
    """Standard output, where a character that its encoding lacks appears as `\\u20ac` and is no error.

    Raises:
        HostError: it is closed.
    """
    if sys.stdout is None:
        raise HostError("standard output is closed\n  try: `>/dev/null`, if only the exit status is of interest")
    with contextlib.suppress(AttributeError, ValueError):  # a test, or a program that calls main, may stand in
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return sys.stdout


def _say_what_the_cache_said() -> None:
    """A cache that cannot be written costs time and nothing else; that is said once, and is no error."""
    cache: Any = sys.modules.get("vmm.asm.cache")
    if cache is not None and cache.notice:
        _complain(cache.notice, 0)
        cache.notice = ""  # said


def _complain(text: str, status: int) -> int:
    """One message on standard error; what was printed so far stays before it."""
    from vmm.report.style import printable

    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"pyvmm: {printable(text)}", file=sys.stderr, flush=True)
    return status


def _drop_output() -> None:
    """Output that cannot be written goes nowhere: nothing is left for the interpreter to flush and complain about."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
