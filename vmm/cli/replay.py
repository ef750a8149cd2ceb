# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm replay`: a recorded trace, shown again and handled again; no device, no guest code."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any, TextIO

from vmm.cli import pages
from vmm.cli.colour import style_for
from vmm.cli.files import OutputFile, check_outputs, write_file
from vmm.cli.tracing import printer
from vmm.observe.trace import read
from vmm.payload.replay.recorder import INTERRUPTED
from vmm.payload.replay.replay import Replayed, replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.jsonl", help="what `pyvmm run NAME --trace FILE.jsonl` wrote")
    parser.add_argument("--quiet", action="store_true", help="only the outcome, and what was handled again")
    parser.add_argument("-v", "--verbose", action="store_true", help="the whole post-mortem, as `pyvmm run -v`")
    parser.add_argument("--timeline", metavar="FILE.svg", help="draw the exits of each vCPU over time")
    pages.add_option(parser, "what `pyvmm run --html` shows of a run")
    parser.add_argument(
        "--json", action="store_true", help="one JSON document (schema 1): the outcome, what was handled"
    )
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    check_outputs({"--timeline": args.timeline, "--html": args.html}, [args.file])
    with ExitStack() as stack:
        page = OutputFile(args.html) if args.html else None
        if page is not None:
            stack.callback(page.discard)
        found = _replayed(args, out)
        if page is not None:
            pages.keep(page, lambda: _page(args.file, found))
        return found.exit_code


def _replayed(args: argparse.Namespace, out: TextIO) -> Replayed:
    """Handle it all again, and tell of it."""
    from vmm.report.short import short_lines
    from vmm.report.text import outcome_lines
    from vmm.report.timeline import Timeline

    found = replay(args.file)  # the whole of it before the first line is shown
    style = style_for(args, out)
    if not args.quiet and not args.json:
        show = printer(args, out)
        for _, record in read(args.file):
            show(record)
    if args.timeline:
        timeline = Timeline(f"exits of {found.trace.payload}")
        for _, record in read(args.file):
            timeline.add(record)
        write_file(args.timeline, timeline.svg())
    if args.json:
        print(json.dumps(document(found), indent=2), file=out)
        return found
    if found.outcome.outcome == INTERRUPTED:
        print(f"{style('warn', INTERRUPTED)}  {style('head', found.trace.payload)}", file=out)
    else:
        for line in outcome_lines(found.outcome, style, None if args.verbose else short_lines):
            print(line, file=out)
    for line in summary(found):
        print(line, file=out)
    return found


def document(found: Replayed) -> dict[str, Any]:
    """schemas/replay.schema.json; `outcome` is run.schema.json's, or null where the run was interrupted."""
    outcome = None if found.outcome.outcome == INTERRUPTED else found.outcome.as_json()
    return {
        "schema": 1,
        "payload": found.trace.payload,
        "exit_code": found.exit_code,
        "handled": found.handled,
        "taken": found.taken,
        "judged": found.judged,
        "notes": list(found.notes),
        "outcome": outcome,
    }


def _page(file: str, found: Replayed) -> str:
    from vmm.report.pages.run import run_page
    from vmm.report.pages.story import Story

    story = Story()
    for _, record in read(file):
        story.add(record)
    return run_page(story, found.outcome, pages.command(), exit_code=found.exit_code, told=tuple(summary(found)))


def summary(found: Replayed) -> list[str]:
    """What a replay proves and what not."""
    taken = f", {found.taken} of them answered by the record" if found.taken else ""
    lines = [f"replay: {found.handled} exits handled again without a device{taken}: all as recorded"]
    if found.judged:
        lines.append("replay: the outcome follows from them")
    return lines + [f"replay: {note}" for note in found.notes]
