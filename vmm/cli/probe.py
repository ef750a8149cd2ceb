# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm probe`: the proofs of the features that are meant, shown as they come or as one document at the end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

from vmm.abi import pv
from vmm.cli import pages, warn
from vmm.cli.colour import can_colour
from vmm.cli.files import OutputFile, check_outputs
from vmm.errors import HostError, UsageError, os_reason
from vmm.payload.options import Options

if TYPE_CHECKING:
    from vmm.host.measured import HostFacts
    from vmm.payload.proof.probe import Probe, Table, Target
    from vmm.payload.proof.prove import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help="a feature (STEAL_TIME, KVM_FEATURE_PV_EOI, send_ipi) or a payload that proves some; all if none is named",
    )
    parser.add_argument(
        "--api", action="store_true", help="topics of the KVM API too, as a second table (irqfd, dirty_log, ...)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    form.add_argument("--markdown", action="store_true", help="a Markdown table, for the summary of a CI step")
    form.add_argument("--tap", action="store_true", help="TAP version 14, a test point per feature, as they come")
    parser.add_argument("--junit", metavar="FILE", help="also write JUnit XML, a test case per feature")
    parser.add_argument("--save", metavar="FILE", help="also write the JSON document, for `pyvmm diff`")
    pages.add_option(parser, "the table, each verdict with its evidence behind it")
    parser.add_argument(
        "--ci",
        action="store_true",
        help="annotations of what is broken or deviates, on standard error; status 77 where KVM is not usable, "
        "unless required",
    )
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="FEATURE",
        help="hide a feature from every guest, to see what becomes of the proofs; may repeat",
    )
    parser.add_argument(
        "--enforce", action="store_true", help="let KVM refuse what is hidden (KVM_CAP_ENFORCE_PV_FEATURE_CPUID)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="let a deviation fail too: a detail of a feature that works"
    )
    parser.add_argument(
        "--no-refusals", action="store_true", help="do not ask what must be refused; takes half the time"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="evidence and refusals below each row (text)")
    parser.add_argument("--no-color", action="store_true", help="plain lines, also on a terminal")
    parser.epilog = (
        "exit status: 0 nothing is broken, 1 something is (with --strict: or deviates),\n"
        "             2 usage or a file that cannot be written,\n"
        "             99 no usable KVM (77 with --ci, unless PYVMM_REQUIRE_KVM=1) or an error of pyvmm's own,\n"
        "             130 interrupted (^C)\n"
        "verdicts:    works, serviced, advertised; inert, absent, unproven (not shown here); broken"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Show the table; what came before ^C is shown too."""
    from vmm.payload.proof.probe import select

    chosen = select(args.features, api=args.api)
    check_outputs({"--junit": args.junit, "--save": args.save, "--html": args.html})
    form = next((each for each in ("json", "markdown", "tap") if getattr(args, each)), None)
    if args.verbose and form:
        warn.ignored("-v", f"--{form} has all that it would add" if form == "json" else f"--{form} has no room for it")
    if args.mask:
        warn.tell()
    with ExitStack() as stack:
        written = {name: _reserve(name, stack) for name in (args.junit, args.save, args.html) if name is not None}
        return _probe(args, chosen, written, out)


def _reserve(name: str, stack: ExitStack) -> OutputFile:
    """A file that can be written, found out before anything is measured; gone again unless it is kept."""
    output = OutputFile(name)
    stack.callback(output.discard)
    return output


def _probe(args: argparse.Namespace, chosen: Sequence[Target], written: dict[str, OutputFile], out: TextIO) -> int:
    from vmm.host import measured as host
    from vmm.kvm.system import Kvm
    from vmm.payload.proof.probe import Probe

    options = Options(mask=tuple(_feature(name) for name in args.mask))
    try:
        with Kvm.open() as kvm:
            facts = host.measure(kvm)
    except HostError as error:
        if not args.ci:
            raise
        from vmm.cli.ci import cannot_use
        from vmm.host.unusable import why_unusable

        found = why_unusable(error)
        if args.tap:
            from vmm.report import tap

            out.write(tap.skip_all(found.reason))
            out.flush()
        return cannot_use(found)
    probe = Probe(chosen, options, enforce=args.enforce, refusals=not args.no_refusals, strict=args.strict)
    interrupted = _run(args, probe, facts, out)
    table = probe.table(facts, interrupted=interrupted)
    _end(args, table, out)
    out.flush()
    if args.junit is not None:
        from vmm.report import junit

        _write(written[args.junit], junit.render(table))
    if args.save is not None:
        _write(written[args.save], _json(table))
    if args.html is not None:
        _write(written[args.html], _page(table))
    if args.ci:
        from vmm.cli.ci import annotate

        annotate(_annotations(table))
    if interrupted:
        raise KeyboardInterrupt
    return table.exit_code


def _write(output: OutputFile, text: str) -> None:
    """The whole file; UsageError as OutputFile has it, where the disk is full by now."""
    try:
        output.file.write(text.encode())
    except OSError as error:
        raise UsageError(f"writing {output.name!r}: {os_reason(error)}") from error
    output.keep()


def _json(found: Table) -> str:
    import json

    from vmm.report import probe

    return json.dumps(probe.document(found), indent=2) + "\n"


def _page(found: Table) -> str:
    import json

    from vmm.report.pages.hosts import hosts_page

    return hosts_page([("this host", json.loads(_json(found)))], pages.command())


def _annotations(found: Table) -> Iterator[tuple[str, str, str]]:
    """What is broken, what deviates, and where pyvmm itself failed; what cannot be shown here is no fault, and in the
    table.
    """
    for row in found.broken:
        yield "error", f"KVM {'API topic' if row.topic else 'feature'} {row.name} is broken", row.finding.line
    for row in found.rows:
        for each in row.deviations:
            yield "error" if found.strict else "warning", f"KVM deviates at {row.name}", each.line
    for row in found.errors:
        yield "error", f"pyvmm failed at {row.name}", row.finding.line
    if found.interrupted:
        yield "warning", "pyvmm probe was interrupted", f"{len(found.missing)} features were not probed"


def _feature(name: str) -> str:
    """A feature's plain name.

    Raises:
        UsageError: there is none of that name.
    """
    feature = pv.find(name)
    if feature is None:
        raise UsageError(f"--mask: {pv.unknown(name)}", hint="`pyvmm explain` lists them")
    return feature.name


def _run(args: argparse.Namespace, probe: Probe, facts: HostFacts, out: TextIO) -> bool:
    """Run everything; whether ^C ended it early."""
    shown: set[str] = set()
    show: Callable[[Row], object] = _nothing
    with ExitStack() as stack:
        try:
            show = _view(args, probe, facts, out, stack)
            for row in probe:
                show(row)
                shown.add(row.name)
        except KeyboardInterrupt:
            for target in probe.chosen:  # proven, and not yet their turn
                if target.name in probe.done and target.name not in shown:
                    show(probe.done[target.name])
            return True
    return False


def _nothing(row: Row) -> None:
    """Shows no row: a document is printed at the end."""


def _view(
    args: argparse.Namespace, probe: Probe, facts: HostFacts, out: TextIO, stack: ExitStack
) -> Callable[[Row], object]:
    """Begin the output; what shows a row when it comes."""
    from vmm.report import table, tap
    from vmm.report.style import Style

    if args.json or args.markdown:
        return _nothing
    names = [target.name for target in probe.chosen]
    if args.tap:
        out.write(tap.head(len(names)))
        numbers = {name: number for number, name in enumerate(names, 1)}

        def write_point(row: Row) -> None:
            out.write(tap.point(numbers[row.name], row))
            out.flush()

        return write_point
    topics = bool(probe.chosen) and probe.chosen[0].group == "api"
    colour = can_colour(args, out)
    if colour and not args.verbose:
        from vmm.cli.live import Live

        live = stack.enter_context(Live(out, table.host_line(facts), names, topics=topics))
        probe.on_start = live.running
        return live.row
    style, columns = Style(colour), table.widths(names)
    print(table.host_line(facts), table.head(columns, style, topics=topics), sep="\n", file=out)

    def write_lines(row: Row) -> None:
        nonlocal topics
        if row.topic and not topics:
            topics = True
            print("", table.head(columns, style, topics=True), sep="\n", file=out)
        print(table.row_line(row, columns, style), file=out)
        for line in table.details(row, style) if args.verbose else ():
            print(line, file=out)
        out.flush()

    return write_lines


def _end(args: argparse.Namespace, found: Table, out: TextIO) -> None:
    """What follows the rows, or all of a document."""
    if args.json:
        out.write(_json(found))
    elif args.markdown:
        from vmm.report import markdown

        out.write(markdown.render(found))
    elif args.tap:
        from vmm.report import tap

        out.write(tap.bail("interrupted") if found.interrupted else tap.tail(found.deviations))
    else:
        from vmm.report import table
        from vmm.report.style import Style

        for line in table.closing(found, Style(can_colour(args, out))):
            print(line, file=out)
