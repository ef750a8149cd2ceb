# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run` with a trace: where the records go (terminal, file, drawing, page), and that none of it is lost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

from vmm.base.record import replace
from vmm.base.version import pyvmm_version
from vmm.cli import pages
from vmm.cli.colour import style_for
from vmm.cli.files import OutputFile
from vmm.errors import EXIT_INTERRUPTED, HostError, UsageError, VmmError, os_reason
from vmm.machine.machine import DEFAULT_TIMEOUT
from vmm.machine.memory.layout import parse_size
from vmm.machine.run.limits import MAX_TIMEOUT
from vmm.observe.trace import Record, Writer
from vmm.payload.catalog import Payload
from vmm.payload.options import Options, both
from vmm.payload.outcome import Outcome
from vmm.payload.replay.recorder import INTERRUPTED, Recording
from vmm.payload.run import run_payload
from vmm.payload.statistics import Statistics
from vmm.report.pages.story import Story
from vmm.report.timeline import Timeline
from vmm.report.trace import TraceText

SLOWNESS = 30  # of a guest whose every instruction is an exit: so many times the time limit, where none is given


def run_traced(
    payload: Payload,
    options: Options,
    args: argparse.Namespace,
    out: TextIO,
    live: Callable[[bytes], object] | None,
    keep: Callable[[bytes], object] | None = None,
    statistics: Statistics | None = None,
) -> Outcome:
    """Run the payload; `live` shows its console, where the trace is not printed and so shows it itself, and `keep` gets
    it then. `statistics` are for the page.

    Raises:
        UsageError: an output file cannot be written; nothing was run.
        HostError: it could be, and no longer can: the run went on without it.
    """
    files = [name for name in args.trace if name != "-"]
    if len(files) > 1:
        raise UsageError(f"--trace {files[0]} and --trace {files[1]}: one file is written")
    printing = "-" in args.trace or (args.step and not files)
    limit = parse_size(args.trace_limit)
    if args.step and options.timeout is None:
        given = payload.header.timeout or DEFAULT_TIMEOUT
        options = replace(options, timeout=min(given * SLOWNESS, MAX_TIMEOUT))
    with ExitStack() as stack:
        sinks: list[Callable[[Record], object]] = []
        written = _reserve(files[0], stack, args) if files else None
        drawn = _reserve(args.timeline, stack, args) if args.timeline else None
        paged = _reserve(args.html, stack, args) if args.html else None
        writer = Writer(written.file, limit) if written else None
        story = Story() if paged else None
        timeline = Timeline(f"exits of {payload.name}") if drawn else None
        if writer:
            sinks.append(writer.write)
        if timeline:
            sinks.append(timeline.add)
        if story:
            sinks.append(story.add)
        if printing:
            sinks.append(printer(args, sys.stderr if args.json else out))
        recording = Recording(
            payload,
            lambda record: [sink(record) for sink in sinks],
            pyvmm=pyvmm_version(),
            step=args.step,
            left=bool(files or paged),
        )
        ended, status = None, EXIT_INTERRUPTED
        try:
            ended = outcome = run_payload(
                payload, replace(options, watch=both(options.watch, recording.watch)), live=keep if printing else live
            )
            status = outcome.exit_code
        except VmmError as error:
            ended, status = Outcome(payload.name, "error", error.text), error.exit_code
            raise
        finally:  # also after ^C: what was seen is kept
            try:
                if writer:
                    recording.end(ended, status, recorded=writer.recorded, dropped=writer.dropped)
                else:
                    recording.end(ended, status)
            finally:
                if written and writer and writer.error is None:
                    written.keep()
                if drawn and timeline:
                    drawn.file.write(timeline.svg().encode())
                    drawn.keep()
                if paged and story:
                    _write_page(
                        paged, story, Outcome(payload.name, INTERRUPTED) if ended is None else ended, status, statistics
                    )
        if writer and writer.error is not None:
            raise HostError(f"writing {files[0]!r}: {os_reason(writer.error)}; the guest ended with: {outcome.outcome}")
        return outcome


def _write_page(paged: OutputFile, story: Story, outcome: Outcome, status: int, statistics: Statistics | None) -> None:
    from vmm.report.pages.run import run_page

    if statistics is not None:
        outcome = replace(outcome, stats=statistics.rows)
    pages.keep(paged, lambda: run_page(story, outcome, pages.command(), exit_code=status))


def _reserve(name: str, stack: ExitStack, args: argparse.Namespace) -> OutputFile:
    """An output file that is gone at the end of the stack unless it was kept."""
    output = OutputFile(name, in_place=bool(args.sandbox))
    stack.callback(output.discard)
    return output


def printer(args: argparse.Namespace, out: TextIO) -> Callable[[Record], None]:
    """Prints each record as it comes."""
    text = TraceText(style_for(args, out))

    def show(record: Record) -> None:
        for line in text.lines(record):
            print(line, file=out)

    return show
