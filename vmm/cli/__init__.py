# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `pyvmm`: arguments in, text out, one exit status. The only floor that prints.

Signals: ^C (SIGINT) ends a run with one line and status 130: where work is done, by KeyboardInterrupt, else at once.
SIGTERM is left as it is: it ends the process at once, and the kernel takes the VM, its memory and its threads with it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` without its enums, which take longer than a guest
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any, NoReturn, TextIO


own_process = False
"""Is this process the command's alone, which may give up what it does not need? Who calls main() has other plans."""


def command() -> NoReturn:
    """The process `pyvmm`: runs the command of sys.argv and ends with its status."""
    # Most of what is made while it starts stays to its end, so the collector looks rarely, and at the end not at all.
    gc.set_threshold(20_000)
    global own_process
    own_process = True
    _at_ctrl_c(_leave)
    sys.unraisablehook = _nothing_lost
    try:
        status = main()
    finally:
        gc.freeze()
    if not _awaited():
        os._exit(status)  # all is written and closed: to take every module apart lasts longer than a guest
    sys.exit(status)


def _at_ctrl_c(handler: Callable[[int, FrameType | None], object]) -> None:
    """What ^C does from here on, if this process is the command's and whoever started it lets ^C be heard."""
    if own_process and _signal.getsignal(_signal.SIGINT) in (_leave, _signal.default_int_handler):
        _signal.signal(_signal.SIGINT, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    """^C before anything has begun, or when all is done. KeyboardInterrupt is not for here: Python would raise it in
    the middle of an import, or of its own end, and tell of it in its own way.
    """
    try:
        if sys.stderr is not None:
            os.write(2, b"pyvmm: interrupted\n")
    finally:
        os._exit(128 + number)


def _nothing_lost(unraisable: sys.UnraisableHookArgs) -> None:
    """What Python cannot raise, as in a callback of a weak reference (an import has some), it tells and forgets; a ^C
    is to be heard right behind it. This thread would hear it in here, so another one says it.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        import _thread

        _thread.start_new_thread(os.kill, (os.getpid(), _signal.SIGINT))
    else:
        sys.__unraisablehook__(unraisable)


def _find_quickly() -> None:
    """From here on many modules are loaded (vmm/base/finder.py)."""
    try:
        from vmm.base.finder import install
    except ImportError:
        return  # another Python than CPython
    install("vmm")


def _awaited() -> bool:
    """Whether anybody waits for the interpreter's own end: a function of atexit, another thread, a profiler, `-i`.

    What could not be written counts too, for the interpreter has a status of its own for it.
    """
    import atexit

    tools = getattr(sys, "monitoring", None)
    watched = sys.getprofile() or sys.gettrace() or (tools and any(tools.get_tool(each) for each in range(6)))
    waiting = getattr(atexit, "_ncallbacks", lambda: 1)()  # CPython tells
    if watched or sys.flags.inspect or waiting or "threading" in sys.modules:
        return True
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, of sys.argv or these arguments. Never a traceback for what a user, a guest or a host can cause.

    Raises:
        SystemExit: by `--help`.
    """
    # No list(...) in this module: once imported, vmm.cli.list is what `list` means here.
    try:
        return _run(sys.argv[1:] if argv is None else argv, _output(), own=argv is None)
    except (Exception, KeyboardInterrupt) as error:
        _at_ctrl_c(_leave)
        from vmm.cli import wrong  # who goes well needs no errors

        status = wrong.told(error)
        if status is None:
            raise
        return status


def _run(arguments: Sequence[str], out: TextIO, *, own: bool) -> int:
    """`own`: this process is the command's."""
    try:
        if len(arguments) == 2 and arguments[0] == "run" and not arguments[1].startswith("-"):
            status = _plainly(arguments[1], out, own)
        else:
            if own:
                _find_quickly()
            status = _parsed(arguments, out)
        out.flush()
        _at_ctrl_c(_leave)
        return status
    finally:
        _say_what_the_cache_said()


def _plainly(payload: str, out: TextIO, own: bool) -> int:
    """`pyvmm run PAYLOAD`. Nothing is parsed: argparse takes longer than the guest."""
    if not own:
        from vmm.cli.run import plain, run

        return run(plain(payload), out)
    from vmm.cli import prepared

    status = prepared.run(payload, out)
    if status is not None:
        return status
    _find_quickly()
    from vmm.cli.run import plain, run

    _at_ctrl_c(_signal.default_int_handler)
    return run(plain(payload), out, prepared.keeper(payload))


def _parsed(arguments: Sequence[str], out: TextIO) -> int:
    from vmm.cli.arguments import COMMANDS, module, parser
    from vmm.errors import EXIT_USAGE, UsageError

    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        from vmm.base.names import unknown

        raise UsageError(unknown("command", command, COMMANDS), hint="`pyvmm --help`")
    from contextlib import redirect_stdout
    from io import StringIO

    told = StringIO()  # by `--help`: argparse would pass over what cannot be written
    try:
        with redirect_stdout(told):
            args = parser(command).parse_args(arguments)
    except SystemExit:
        out.write(told.getvalue())
        out.flush()
        raise
    if args.version:
        return _versions(args.version_json, out)
    if args.version_json:
        raise UsageError("--json says of which command", hint="`pyvmm --version --json`, or `pyvmm COMMAND --json`")
    if args.command is None:
        parser().print_help(out)
        return EXIT_USAGE
    chosen = module(args.command)
    _at_ctrl_c(_signal.default_int_handler)
    status: int = chosen.run(args, out)
    return status


def _versions(as_json: bool, out: TextIO) -> int:
    from vmm.host.versions import versions
    from vmm.report.versions import document, text

    if as_json:
        import json

        print(json.dumps(document(versions()), indent=2), file=out)
    else:
        out.write(text(versions()))
    return 0


def _output() -> TextIO:
    """Standard output, where a character that its encoding lacks appears as `\\u20ac` and is no error.

    Raises:
        HostError: it is closed.
    """
    if sys.stdout is None:
        from vmm.errors import HostError

        raise HostError("standard output is closed", hint="`>/dev/null`, if only the exit status is of interest")
    try:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        pass  # a test, or a program that calls main, may stand in
    return sys.stdout


def _say_what_the_cache_said() -> None:
    """A cache that cannot be written costs time and nothing else; that is said once, and is no error."""
    cache: Any = sys.modules.get("vmm.asm.cache")
    if cache is not None and cache.notice:
        from vmm.cli.wrong import complain

        complain(cache.notice, 0)
        cache.notice = ""  # said
