# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm bench`: what pyvmm costs beside a C program that makes the same calls, row by row as they are measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from vmm.base.version import pyvmm_version
from vmm.cli import pages
from vmm.cli.colour import can_colour, style_for
from vmm.cli.files import OutputFile, check_outputs, read_json
from vmm.errors import EXIT_FAIL, UsageError
from vmm.report.columns import one_line

EPILOG = """\
cost: how far an operation goes. kernel: KVM alone; C core: to pyvmm's C and back; Python: to a Python handler and back;
process: a whole program or machine. The floor is bench/floor.c with the same guest, unless the group names another.
noisy: the times scatter too much to be quoted. Each row, and the way they are measured, is described by `pyvmm docs
bench`.

exit status: 0 measured, 1 worse than --against by more than 10 %, 2 usage, 99 no usable KVM, 130 interrupted (^C)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row, or a group of them: goals, exits, growth")
    parser.add_argument("--json", action="store_true", help="print one JSON document (schema 1)")
    parser.add_argument("--against", metavar="FILE", help="compare with the JSON document of another bench")
    parser.add_argument(
        "--from",
        nargs="+",
        metavar="FILE",
        dest="shown",
        help="measure nothing: show these JSON documents, the last of them row by row, those before it as its history",
    )
    parser.add_argument(
        "--history",
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --html: JSON documents of earlier benches, the oldest first, beside what is measured now",
    )
    pages.add_option(parser, "each row with its interval, beside its floor and its goal, and its history")
    parser.add_argument("--plot", metavar="FILE", help="also draw the growth and the ratios (.png, .svg or .pdf)")
    parser.add_argument("--quick", action="store_true", help="few samples: seconds for the whole, for a look only")
    parser.add_argument("--no-color", action="store_true", help="plain lines, also on a terminal")
    parser.epilog = EPILOG


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.bench.ending import in_order

    if args.history and args.html is None:
        from vmm.cli.warn import ignored

        ignored("--history", "it is for the page of `--html FILE`")
    if args.shown is not None:
        return _show(args, out)
    with in_order(), ExitStack() as stack:
        return _run(args, out, stack)
    raise AssertionError("the signal that ended it has ended the process")


def _run(args: argparse.Namespace, out: TextIO, stack: ExitStack) -> int:
    from vmm.bench import quiet, table
    from vmm.bench.quiet import machine_facts
    from vmm.bench.stats import noise_verdict
    from vmm.kvm.system import Kvm
    from vmm.report import bench as report

    chosen = table.select(args.rows)
    before = _earlier(args.against, "--against") if args.against is not None else None
    history = _named(args.history, "--history")
    files = _Files(args, stack)
    with Kvm.open():
        pass  # said once, and not by every row
    style = style_for(args, out)
    columns = report.widths([spec.row.name for spec in chosen])
    budget = table.QUICK if args.quick else table.Budget()
    rows, group, begin = [], "", time.monotonic()
    bar: Any = nullcontext()
    watch = quiet.Watch()
    if not args.json and can_colour(args, out):
        from vmm.cli.live import Bar

        bar = Bar(out, len(chosen))
    host = f"Linux {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    with bar as progress:
        say = progress.print if progress is not None else lambda text: print(text, file=out, flush=True)
        if not args.json:
            say(f"{host}\n{report.LEGEND}\n")
        for done, spec in enumerate(chosen):
            if progress is not None:
                progress.at(done, f"{spec.row.name}: {spec.row.what}")
            with watch.row():
                row = table.measure(spec, budget)
            if row.median is not None and row.unit != "bytes":
                row = replace(row, disturbed=watch.said)
            rows.append(row)
            if args.json:
                continue
            if row.group != group:
                group = row.group
                say(("\n" if done else "") + report.GROUPS[group])
                say(report.head(columns, style))
            say(report.row_line(report.row_document(row), columns, style))
    timed = [row for row in rows if row.median is not None and row.unit == "ns"]
    noise = noise_verdict(sum(row.noisy for row in timed), len(timed), os.getloadavg()[0], os.cpu_count() or 1)
    took = time.monotonic() - begin
    when, version = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), pyvmm_version()
    doc = report.document(
        rows, host, noise, took, quick=args.quick, when=when, pyvmm=version, machine=machine_facts()
    )  # fmt: skip
    return _end(args, doc, before, files, [*history, ("now", doc)], out)


def _show(args: argparse.Namespace, out: TextIO) -> int:
    """`--from`: documents of other days, as if the last had just been measured. It needs no KVM."""
    from vmm.report import bench as report

    if args.rows or args.history or args.quick:
        raise UsageError("--from measures nothing: it goes without rows, --quick and --history")
    every = _named(args.shown, "--from")
    before = _earlier(args.against, "--against") if args.against is not None else None
    with ExitStack() as stack:
        files = _Files(args, stack)
        doc, style = every[-1][1], style_for(args, out)
        if not args.json:
            columns = report.widths([row["name"] for row in doc["rows"]])
            print(f"{one_line(doc['host'])}\n{report.LEGEND}", file=out)
            for group, heading in report.GROUPS.items():
                rows = [row for row in doc["rows"] if row["group"] == group]
                if rows:
                    print(f"\n{heading}", report.head(columns, style), sep="\n", file=out)
                for row in rows:
                    print(report.row_line(row, columns, style), file=out)
        return _end(args, doc, before, files, every, out)


class _Files:
    """The picture and the page, found out to be writable before anything is measured."""

    def __init__(self, args: argparse.Namespace, stack: ExitStack) -> None:
        inputs = [*filter(None, (args.against,)), *args.history, *(args.shown or ())]
        check_outputs({"--plot": args.plot, "--html": args.html}, inputs)
        if args.plot is not None:
            from vmm.report import bench_plot

            bench_plot.check(args.plot)
        self.picture, self.page = (None if name is None else OutputFile(name) for name in (args.plot, args.html))
        for each in filter(None, (self.picture, self.page)):
            stack.callback(each.discard)


def _end(
    args: argparse.Namespace,
    doc: dict[str, Any],
    before: dict[str, Any] | None,
    files: _Files,
    every: list[tuple[str, dict[str, Any]]],
    out: TextIO,
) -> int:
    """What follows the rows: the document or the closing lines, picture, page, comparison."""
    from vmm.report import bench as report

    if args.json:
        print(json.dumps(doc, indent=2, allow_nan=False), file=out)
    else:
        for found in doc["rows"]:
            for line in report.plot(found):
                print(line, file=out)
        print(file=out)
        for line in report.closing(doc):
            print(line, file=out)
    if files.page is not None:
        from vmm.report.bench_read import read
        from vmm.report.pages.bench import bench_page

        known = [(name, read(each, name)) for name, each in every]
        pages.keep(files.page, lambda: bench_page(known, pages.command()))
    if files.picture is not None:
        from vmm.report import bench_plot

        bench_plot.draw(doc, args.plot, files.picture.file)
        files.picture.keep()
    if before is None:
        return 0
    lines, worse = report.against(doc, before)
    where = sys.stderr if args.json else out
    print(f"against {args.against} ({before.get('host', 'an unknown host')}):", *lines, sep="\n  ", file=where)
    return EXIT_FAIL if worse else 0


def _named(files: list[str], option: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, document) of each file: its name without what all have in common is enough to tell it.

    Raises:
        UsageError: a file is none, or named twice: a history has each once.
    """
    for at, file in enumerate(files):
        for other in files[:at]:
            if Path(file).resolve() == Path(other).resolve():
                raise UsageError(f"{option} names one file twice: {file}" + f", as {other}" * (file != other))
    stems = [Path(file).stem for file in files]
    names = files if len(set(stems)) < len(stems) else stems
    return [(name, _earlier(file, option)) for name, file in zip(names, files, strict=True)]


def _earlier(name: str, option: str) -> dict[str, Any]:
    """The document of another bench.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    from vmm.report.bench_read import read

    try:
        found = read_json(name)
    except UsageError as error:
        raise UsageError(f"{option} {name}: {error}") from error
    return read(found, f"{option} {name}")
