# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `pyvmm`: arguments in, text out, one exit status. The only floor that prints.

Each sub-command is a module with HELP, `add_arguments(parser)` and `run(args, out) -> int`; it is imported only when it
is the one that was asked for (`pyvmm --help` needs just the names below).
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from vmm.errors import EXIT_HOST, EXIT_INTERRUPTED, EXIT_USAGE, VmmError

# name -> one line of help; the module is vmm.cli.<name>
COMMANDS = {
    "run": "run a payload (or your own .asm or .bin) on /dev/kvm and report what happened",
    "list": "the payloads that come with pyvmm",
    "disasm": "show a payload's listing: addresses, bytes, source",
    "doctor": "is KVM usable here, what kind of host is it, and what does it offer",
}

EXIT_STATUS = """\
exit status: 0 pass, 1 the guest failed or crashed, 2 usage, 77 cannot be shown on this host,
             99 no usable KVM or an error of pyvmm's own, 124 time limit, 130 interrupted (^C)"""


def pyvmm_version() -> str:
    try:
        return version("pyvmm")
    except PackageNotFoundError:
        return "(not installed)"


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the named sub-command gets its arguments, so that no other module is imported."""
    top = argparse.ArgumentParser(
        prog="pyvmm",
        description="A virtual machine monitor that shows what this host's KVM really does, by running guests.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    subs = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in COMMANDS.items():
        sub = subs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EXIT_STATUS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == command:
            importlib.import_module(f"vmm.cli.{name}").add_arguments(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Never a traceback for what a user, a guest or a host can cause."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = parser(command).parse_args(arguments)
        if args.version:
            print(f"pyvmm {pyvmm_version()}")
            return 0
        if args.command is None:
            parser().print_help()
            return EXIT_USAGE
        status: int = importlib.import_module(f"vmm.cli.{args.command}").run(args, sys.stdout)
        sys.stdout.flush()
        return status
    except VmmError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _broken_pipe()
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where} ({errno.errorcode.get(error.errno or 0, '?')})", EXIT_HOST)
    except MemoryError:
        return _complain("the host is out of memory\n  try: a smaller --memory", EXIT_HOST)


def _complain(text: str, status: int) -> int:
    """One message on standard error; what was printed so far stays before it."""
    try:
        sys.stdout.flush()
        print(f"pyvmm: {text}", file=sys.stderr, flush=True)
    except OSError:
        _broken_pipe()
    return status


def _broken_pipe() -> int:
    """The reader went away (`pyvmm list | head`): no message, and nothing left for the interpreter to flush."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return EXIT_HOST
