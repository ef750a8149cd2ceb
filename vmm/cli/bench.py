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
from typing import Any, TextIO

from vmm.cli.colour import can_colour, style_for
from vmm.cli.files import OutputFile, check_outputs, read_json
from vmm.errors import EXIT_FAIL, UsageError

EPILOG = """\
cost: how far an operation goes. kernel: KVM alone; C core: to pyvmm's C and back; Python: to a Python handler and back;
process: a whole program or machine. The floor is bench/floor.c with the same guest, unless the group names another.
noisy: the times scatter too much to be quoted. Each row, and the way they are measured, is described in docs/bench.md.

exit status: 0 measured, 1 worse than --against by more than 10 %, 2 usage, 99 no usable KVM, 130 interrupted (^C)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row, or a group of them: goals, exits, growth")
    parser.add_argument("--json", action="store_true", help="print one JSON document (schema 1)")
    parser.add_argument("--against", metavar="FILE", help="compare with the JSON document of another bench")
    parser.add_argument("--plot", metavar="FILE", help="also draw the growth and the ratios (.png, .svg or .pdf)")
    parser.add_argument("--quick", action="store_true", help="few samples: seconds for the whole, for a look only")
    parser.add_argument("--no-color", action="store_true", help="plain lines, also on a terminal")
    parser.epilog = EPILOG


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.bench.ending import in_order

    with in_order(), ExitStack() as stack:
        return _run(args, out, stack)
    raise AssertionError("the signal that ended it has ended the process")


def _run(args: argparse.Namespace, out: TextIO, stack: ExitStack) -> int:
    from vmm.bench import quiet, table
    from vmm.bench.stats import noise_verdict
    from vmm.kvm.system import Kvm
    from vmm.report import bench as report

    chosen = table.select(args.rows)
    before = _earlier(args.against) if args.against is not None else None
    if args.plot is not None:
        from vmm.report import bench_plot

        bench_plot.check(args.plot)
        check_outputs({"--plot": args.plot}, [args.against] if args.against is not None else [])
        picture = OutputFile(args.plot)
        stack.callback(picture.discard)
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
    doc = report.document(rows, host, noise, time.monotonic() - begin, quick=args.quick)
    if args.json:
        print(json.dumps(doc, indent=2, allow_nan=False), file=out)
    else:
        for found in doc["rows"]:
            for line in report.plot(found):
                print(line, file=out)
        print(file=out)
        for line in report.closing(doc):
            print(line, file=out)
    if args.plot is not None:
        bench_plot.draw(doc, args.plot, picture.file)
        picture.keep()
    if before is None:
        return 0
    lines, worse = report.against(doc, before)
    where = sys.stderr if args.json else out
    print(f"against {args.against} ({before.get('host', 'an unknown host')}):", *lines, sep="\n  ", file=where)
    return EXIT_FAIL if worse else 0


def _earlier(name: str) -> dict[str, Any]:
    """The document of another bench.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        found = read_json(name)
    except UsageError as error:
        raise UsageError(f"--against {name}: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != 1 or not isinstance(found.get("rows"), list):
        raise UsageError(f"--against {name}: no document of `pyvmm bench --json`")
    for row in found["rows"]:
        if not isinstance(row, dict) or not {"name", "median", "ratio"} <= row.keys():
            raise UsageError(f"--against {name}: a row in it is none of `pyvmm bench --json`")
    return found
