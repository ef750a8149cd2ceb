# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm debug`: a payload on a terminal screen that shows the machine. textual is loaded here and nowhere earlier."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TextIO

from vmm.base.record import replace
from vmm.cli.run import options_of
from vmm.cli.run_arguments import add_device_arguments, add_guest_arguments, add_image_arguments, add_shape_arguments
from vmm.errors import EXIT_HOST, HostError, UsageError
from vmm.payload.catalog import find
from vmm.payload.options import both
from vmm.payload.run import run_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.screen.app import DebugScreen
    from vmm.screen.control import Control

EXTRA = "pip install 'pyvmm[debug]'"
THEMES = ("terminal", "dark", "light")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shape_arguments(parser)
    add_guest_arguments(parser)
    add_device_arguments(parser)
    add_image_arguments(parser)
    parser.add_argument(
        "--theme", choices=THEMES, default="terminal", help="colours: the terminal's own (the default), dark, or light"
    )
    parser.add_argument("--no-color", action="store_true", help="no colours at all")
    parser.set_defaults(timeout=None, exit_limit=None, output_limit=None, trace=[])


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.payload is None:
        raise UsageError("the following arguments are required: PAYLOAD", hint="`pyvmm debug --help`")
    payload, options = find(args.payload), options_of(args)
    app_class = _screen()
    if not out.isatty() or sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "debugging needs a terminal for its screen, and input or output is none",
            hint="`pyvmm run NAME --trace`, or vmm.debug.session.Session from Python",
        )
    if args.no_color:
        os.environ["NO_COLOR"] = "1"
    control = control_of(payload, options)
    app = app_class(control, payload.name, args.theme)
    return _run(app, control, payload.name, out)


def control_of(payload: Any, options: Any) -> Control:
    """Who runs this payload for the screen."""
    from vmm.report.style import Style
    from vmm.report.text import outcome_lines
    from vmm.screen.control import Control
    from vmm.screen.ending import describe_end

    def work(watch: Callable[[Any, Any], None]) -> list[str]:
        watched = replace(options, watch=both(options.watch, lambda guest: watch(guest.machine, guest.program)))
        return outcome_lines(run_payload(payload, watched), Style())

    return Control(work, payload.name, describe_end)


def _screen() -> type[DebugScreen]:
    """HostError: textual is not here."""
    try:
        from vmm.screen.app import DebugScreen
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("textual", "rich"):
            raise
        raise HostError(f"`pyvmm debug` needs {error.name}, which is not installed", hint=EXTRA) from None
    return DebugScreen


def _run(app: DebugScreen, control: Control, name: str, out: TextIO) -> int:
    """Show it until somebody leaves; then the terminal is as it was, and a few lines say how it ended."""
    status = 0
    try:
        app.run()
    finally:
        ended = control.leave()
    if app.failed is not None:
        raise HostError(
            f"the screen failed: {type(app.failed).__name__}: {app.failed}", hint="this is an error of pyvmm's"
        )
    if control.error is not None and not app.ended_by:
        raise control.error
    for line in control.outcome:
        print(line, file=out)
    if not control.outcome:
        print(f"{name}: left by its debugger", file=out)
    if not ended:
        print("pyvmm: its host half did not end in time; the process ends all the same", file=sys.stderr)
        status = EXIT_HOST
    if app.ended_by == signal.SIGINT:
        raise KeyboardInterrupt  # as ^C ends every other command
    if app.ended_by:
        out.flush()
        signal.signal(app.ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), app.ended_by)
    return status
