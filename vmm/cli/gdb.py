# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --gdb`: a gdb server around a payload's runs, however many machines its host half makes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.base.record import replace
from vmm.debug.gdb.server import GdbServer
from vmm.debug.session import KILLED
from vmm.errors import UsageError
from vmm.payload.options import both

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from vmm.payload.catalog import Payload
    from vmm.payload.options import Options
    from vmm.payload.outcome import Outcome

ELF = b"\x7fELF"


def check(args: argparse.Namespace) -> None:
    """UsageError: options that do not go together."""
    if args.step:
        raise UsageError("--gdb and --step: both step the guest", hint="one of them")
    if args.wait and args.gdb is None:
        raise UsageError("--wait: for whom?", hint="--gdb --wait")


def served(args: argparse.Namespace, payload: Payload, options: Options, run: Callable[[Options], Outcome]) -> Outcome:
    """Run with a server, and again as often as its client wants; the client is told the exit status."""
    server = GdbServer(args.gdb, wait=args.wait, limit=args.timeout, say=_say, again=True)
    image = payload.code if payload.code and payload.code.startswith(ELF) else None

    def hold(guest: Any) -> None:
        server.attach(guest.machine, guest.program, image)

    status = 1
    try:
        while True:
            outcome = run(replace(options, watch=both(options.watch, hold)))
            if server.killed:
                kind = "fail" if outcome.outcome == "pass" else outcome.outcome
                outcome = replace(outcome, outcome=kind, reason=KILLED)
            status = outcome.exit_code
            if not server.anew(status):
                break
            status = 1
    finally:
        server.close(status)
    return outcome


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
