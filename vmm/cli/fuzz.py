# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm fuzz`: what is fuzzed and for how long, shown as it goes and as one document at the end."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vmm.cli.colour import style_for
from vmm.errors import EXIT_FAIL, EXIT_PASS, UsageError, VmmError

if TYPE_CHECKING:
    from vmm.fuzz.workers import Plan, Tally

QUIET = 10.0  # seconds between two lines where nobody sees a line move
MOVING = 0.5
MOST_JOBS = 256
LONGEST = 1 << 16
GUEST = ("call", "input", "length", "timeout")
EXIT_STATUS = """\
exit status: 0 no crash, 1 at least one, 2 usage, 99 no usable KVM or an error of pyvmm's own,
             130 interrupted (^C)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="one that comes with pyvmm (--list), a guest with --call or --input, or a Python file with device()",
    )
    parser.add_argument("--list", action="store_true", help="the targets that come with pyvmm")
    parser.add_argument("--replay", metavar="FILE", help="run the input of a crash once more: crashes/KIND.json")
    guest = parser.add_argument_group("a guest")
    guest.add_argument(
        "--call", metavar="SYM|A", help="call this function: RDI points to the input, RSI is its length in bytes"
    )
    guest.add_argument(
        "--input", metavar="SYM|A", help="run the whole guest, with the input at this label, object or address"
    )
    guest.add_argument(
        "--length",
        type=int,
        metavar="N",
        help="the most bytes of an input (default 256 with --call, with --input the size of an object in C or ELF)",
    )
    guest.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="a run that takes longer hangs (default 1 second, counted from its start)",
    )
    how = parser.add_argument_group("how long, and where")
    how.add_argument("--corpus", metavar="DIR", help="inputs and crashes, also of earlier runs (default fuzz-TARGET)")
    how.add_argument("--seconds", type=float, metavar="S", help="end after so many seconds (default: ^C ends it)")
    how.add_argument("--execs", type=int, metavar="N", help="end after so many executions, of all processes together")
    how.add_argument(
        "--seed", type=int, metavar="N", help="the same seed, target and corpus make the same inputs (-j 1)"
    )
    how.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="so many processes (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON document at the end (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")
    parser.epilog = EXIT_STATUS


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.list:
        return _list(args, out)
    if args.replay is not None:
        return _replay(args, out)
    if args.target is None:
        raise UsageError("no TARGET", hint="`pyvmm fuzz uart --seconds 60`, `pyvmm fuzz --list`")
    return _fuzz(args, _plan(args), out)


def _list(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.fuzz.targets.catalog import SHIPPED

    if args.json:
        rows = [{"name": name, "about": about} for name, (_, _, about) in SHIPPED.items()]
        print(json.dumps({"schema": 1, "targets": rows}, indent=2), file=out)
        return EXIT_PASS
    wide = max(map(len, SHIPPED))
    for name, (_, _, about) in SHIPPED.items():
        print(f"{name:{wide}}  {about}", file=out)
    return EXIT_PASS


def _plan(args: argparse.Namespace) -> Plan:
    """What the arguments ask for. UsageError for what cannot be."""
    from vmm.fuzz.folder import Folder
    from vmm.fuzz.targets.asked import asked
    from vmm.fuzz.workers import Plan

    for option, value, least in (("--jobs", args.jobs, 1), ("--execs", args.execs, 1), ("--length", args.length, 1)):
        if value is not None and value < least:
            raise UsageError(f"{option} {value}: give at least {least}")
    if args.jobs > MOST_JOBS:
        raise UsageError(f"--jobs {args.jobs}: give at most {MOST_JOBS}")
    if args.length is not None and args.length > LONGEST:
        raise UsageError(f"--length {args.length}: give at most {LONGEST}")
    if args.timeout is not None and not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: give more than 0")
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError(f"--seconds {args.seconds:g}: give more than 0")
    options = {name: value for name in GUEST if (value := getattr(args, name)) is not None}
    found = asked(args.target, options)
    folder = Folder(Path(args.corpus or f"fuzz-{Path(args.target).stem}"), found.name)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    return Plan(found.make, folder, seed, args.jobs, args.seconds, args.execs, options, found.files)


def _fuzz(args: argparse.Namespace, plan: Plan, out: TextIO) -> int:
    from vmm.fuzz.workers import fuzz

    show = _Show(args, plan, out)
    interrupted = False
    tally = None
    before = plan.folder.known()
    running = fuzz(plan)
    try:
        for tally in running:
            show.at(tally)
    except KeyboardInterrupt:
        interrupted = True
    except VmmError:
        plan.folder.give_up()
        raise
    finally:
        running.close()  # type: ignore[attr-defined]
        show.clear()
    assert tally is not None or interrupted
    status = EXIT_FAIL if tally is not None and tally.crashed + tally.lost else EXIT_PASS
    _end(args, plan, tally, before, out, status, interrupted)
    if interrupted:
        raise KeyboardInterrupt
    return status


class _Show:
    """What is seen while it runs: each crash as it is found, and how far it is, as a line that moves or lines."""

    def __init__(self, args: argparse.Namespace, plan: Plan, out: TextIO) -> None:
        self._json, self._plan, self._style = args.json, plan, style_for(args, out)
        self._out = out
        self._moves = out.isatty() and not args.json
        self._shown, self._next = 0, time.monotonic() + (0 if self._moves else QUIET)
        self._line = 0
        if not args.json:
            several = f"{plan.jobs} processes" if plan.jobs > 1 else "1 process"
            print(f"{plan.folder.target}: {several}, seed {plan.seed}, corpus and crashes in {plan.folder.path}",
                  file=out, flush=True)  # fmt: skip

    def at(self, tally: Tally) -> None:
        """So far it has come."""
        if self._json:
            return
        for path in tally.found[self._shown :]:
            self.clear()
            print(f"{self._style('bad', 'crash')}  {path.stem}  {path}", file=self._out, flush=True)
        self._shown = len(tally.found)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (MOVING if self._moves else QUIET)
        text = f"{tally.seconds:6.0f} s  {_numbers(tally)}"
        if self._moves:
            self.clear()
            self._line = len(text)
            self._out.write(text)
            self._out.flush()
        else:
            print(text, file=self._out, flush=True)

    def clear(self) -> None:
        """Take the moving line away."""
        if self._line:
            self._out.write("\r" + " " * self._line + "\r")
            self._line = 0


def _numbers(tally: Tally) -> str:
    lost = f"  {tally.lost} processes lost" if tally.lost else ""
    return (
        f"{tally.execs:,} execs  {tally.rate:,.0f}/s  corpus {tally.corpus}  reached {tally.reached}  "
        f"{tally.crashed} crashed{lost}"
    )


def _end(
    args: argparse.Namespace,
    plan: Plan,
    tally: Tally | None,
    before: set[str],
    out: TextIO,
    status: int,
    interrupted: bool,
) -> None:
    from vmm.fuzz.workers import Tally

    tally = tally or Tally()
    kept = sorted(plan.folder.known())
    if args.json:
        crashes = [
            {"kind": kind, "file": os.fspath(plan.folder.crashes / f"{kind}.json"), "new": kind not in before}
            for kind in kept
        ]
        document: dict[str, Any] = {
            "schema": 1, "target": plan.folder.target, "folder": os.fspath(plan.folder.path), "seed": plan.seed,
            "jobs": plan.jobs, "seconds": round(tally.seconds, 3), "execs": tally.execs, "corpus": tally.corpus,
            "reached": tally.reached, "crashed": tally.crashed, "lost": tally.lost, "crashes": crashes,
            "interrupted": interrupted, "exit_code": 130 if interrupted else status,
        }  # fmt: skip
        print(json.dumps(document, indent=2), file=out)
        return
    style = style_for(args, out)
    fresh = len(set(kept) - before)
    said = f"{len(kept)} kinds of crash kept, {fresh} of them new" if kept else "no crash"
    word = style("bad", "crashed") if status else style("good", "ended")
    print(f"{word}  {tally.seconds:.1f} s  {_numbers(tally)}  {said}", file=out)
    if kept:
        print(f"  again: pyvmm fuzz --replay {plan.folder.crashes / kept[0]}.json", file=out)


def _replay(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.fuzz.folder import read_crash
    from vmm.fuzz.targets.asked import asked
    from vmm.fuzz.workers import replay

    if args.target is not None:
        raise UsageError(f"--replay with TARGET {args.target}: the file says what it is for")
    found = read_crash(Path(args.replay))
    target = asked(found["target"], found["options"]).make()
    try:
        crash = replay(target, found["input"])
    finally:
        target.close()
    same = crash is not None and crash.kind == found["kind"]
    status = EXIT_PASS if crash is None else EXIT_FAIL
    if args.json:
        document = {
            "schema": 1, "target": found["target"], "replayed": args.replay, "kind": found["kind"],
            "met": None if crash is None else crash.kind, "text": "" if crash is None else crash.text,
            "exit_code": status,
        }  # fmt: skip
        print(json.dumps(document, indent=2), file=out)
        return status
    style = style_for(args, out)
    if crash is None:
        print(f"{style('good', 'no crash')}  {found['target']}: {found['kind']} does not happen any more", file=out)
        return status
    print(crash.text.rstrip(), file=out)
    other = "" if same else f" (it was {found['kind']})"
    print(f"{style('bad', 'crash')}  {found['target']}  {crash.kind}{other}", file=out)
    return status
