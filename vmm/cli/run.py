# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run`: one payload, its console as it comes, and the outcome as text or JSON."""

from __future__ import annotations

import sys

from vmm.base.record import replace
from vmm.cli.colour import style_for
from vmm.errors import UsageError, VmmError
from vmm.payload.catalog import find
from vmm.payload.options import BootOptions, Options, both, check_timeout, parse_param
from vmm.payload.run import run_payload
from vmm.report.style import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any, TextIO

    from vmm.cli.files import OutputFile
    from vmm.payload.catalog import Payload
    from vmm.payload.options import Watch
    from vmm.payload.outcome import Outcome
    from vmm.payload.statistics import Statistics


TRACE_LIMIT = "64M"
FREE_PORT = "127.0.0.1:0"
PICTURES = (".png", ".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vmm.cli import run_arguments

    run_arguments.add_arguments(parser, TRACE_LIMIT, FREE_PORT)


def plain(payload: str) -> Any:
    """What the parser gives for `pyvmm run NAME`, without making one."""
    namespace: Any = type(sys.implementation)  # types.SimpleNamespace, without the module
    return namespace(
        payload=payload, cpus=None, memory=None, board=None, timeout=None, exit_limit=None, output_limit=None, mask=[],
        expose=[], param=[], strict=False, json=False, stats=False, folder=None, folder_rw=None, net=[], disk=[],
        rng=False, virtio_console=False, trace=[], trace_limit=TRACE_LIMIT, step=False, timeline=None, html=None,
        elf_out=None, console=None, no_color=False, kernel_args="", initrd=None, module=[], base=None, entry=None,
        mode=None, protocol=None, gdb=None, wait=False, watch=False, verbose=False, sandbox=None,
        snapshot_out=None, snapshot_at=None, from_snapshot=None,
    )  # fmt: skip


def payload_of(args: argparse.Namespace) -> str:
    """The payload's name; `--trace hello` means the payload hello, and a trace that is printed.

    Raises:
        UsageError: there is none.
    """
    if args.payload is None and args.trace and args.trace[-1] != "-" and not args.trace[-1].endswith(".jsonl"):
        args.payload, args.trace[-1] = args.trace[-1], "-"
    if args.payload is None and args.gdb is not None and not any(each in args.gdb for each in ":/"):
        args.payload, args.gdb = args.gdb, FREE_PORT
    if args.payload is None:
        raise UsageError("the following arguments are required: PAYLOAD", hint="`pyvmm run --help`")
    name: str = args.payload
    return name


def traced(args: argparse.Namespace) -> bool:
    """Is any exit to be seen?"""
    return bool(args.trace or args.step or args.timeline or args.html)


def options_of(args: argparse.Namespace) -> Options:
    """The arguments as Options.

    Raises:
        UsageError: one of them cannot be.
    """
    from vmm.machine.memory.layout import parse_size

    if args.cpus is not None and args.cpus < 1:
        raise UsageError(f"--cpus {args.cpus}: give at least 1")
    if args.exit_limit is not None and args.exit_limit < 1:
        raise UsageError(f"--exit-limit {args.exit_limit}: give at least 1")
    options: dict[str, Any] = {}
    boot = boot_of(args)
    if boot.named:
        options["boot"] = boot
    if args.timeout is not None:
        options["timeout"] = check_timeout(args.timeout)
    if args.output_limit is not None:
        options["output_limit"] = parse_size(args.output_limit)
    return Options(
        cpus=args.cpus,
        memory=args.memory,
        mask=tuple(args.mask),
        expose=tuple(args.expose),
        params=dict(parse_param(text) for text in args.param),
        strict=args.strict,
        exit_limit=args.exit_limit,
        board=args.board,
        nets=nets_of(args.net),
        disks=tuple(args.disk),
        rng=args.rng,
        virtio_console=args.virtio_console,
        **options,
    )


def boot_of(args: argparse.Namespace) -> BootOptions:
    """Those of images."""
    return BootOptions(
        args.kernel_args, args.initrd, tuple(args.module), args.base, args.entry, args.mode, args.protocol
    )


def nets_of(words: list[str]) -> tuple[str, ...]:
    """--net, each checked before anything is opened. UsageError: one of them says nothing."""
    if words:
        from vmm.machine.virtio.links.words import parse

        for each in words:
            parse(each)
    return tuple(words)


def run(args: argparse.Namespace, out: TextIO, seen: Watch | None = None) -> int:
    """`seen` is called with the guest before it runs (vmm.payload.options)."""
    if not args.watch:
        return _found(args, out, seen)
    from vmm.cli import watch

    payload = _watched(args)
    watch.check(args)
    return watch.again(args, payload, out, lambda: _found(args, out), style_for(args, out))


def _watched(args: argparse.Namespace) -> str:
    """The payload's file. A header that is wrong is for the first run to tell: a save can mend it."""
    from vmm.errors import PayloadError

    name = payload_of(args)
    try:
        return find(name).file
    except PayloadError:
        return name


def _found(args: argparse.Namespace, out: TextIO, seen: Watch | None = None) -> int:
    if args.from_snapshot is not None:
        from vmm.cli import snapshots

        snapshots.begin(args)
    payload = find(payload_of(args))
    options = options_of(args)
    if args.from_snapshot is not None:
        options = snapshots.going_on(args, options)
    if seen is not None:
        options = replace(options, watch=seen)
    if args.gdb is not None or args.wait:
        from vmm.cli import gdb

        gdb.check(args)
    if args.mask or args.expose:
        from vmm.cli import warn

        warn.tell()
    if payload.image:
        from vmm.cli import emulated

        options = replace(options, watch=both(options.watch, emulated.watch))
    if args.sandbox or (args.sandbox is None and payload.code is not None):
        from vmm.cli import sandbox

        args.sandbox = sandbox.sandboxed(args, payload)
        if args.sandbox:
            options = sandbox.around(args, payload, options)
    if args.console or args.elf_out or traced(args) or args.trace_limit != TRACE_LIMIT:
        _check_files(args, payload.file)
    if args.elf_out:
        from vmm.cli import elf_out

        elf_out.write(payload, args.elf_out, dict(options.params))
    if args.snapshot_at is not None and args.snapshot_out is None:
        raise UsageError(f"--snapshot-at {args.snapshot_at}: into which file?", hint="--snapshot-out FILE")
    if args.snapshot_out is None:
        return _with_input(args, payload, options, out)
    from vmm.cli import snapshots

    options, keeper = snapshots.kept(args, payload, options)
    return snapshots.told(keeper, _with_input(args, payload, options, out))


def _with_input(args: argparse.Namespace, payload: Payload, options: Options, out: TextIO) -> int:
    console = Console(out)
    live = None if args.json else console.write
    if payload.code is None and args.board in (None, "own"):
        return _run_kept(args, payload, options, out, console, live)
    from vmm.cli.stdin import Stdin  # what has a board for an operating system may have a person at its serial port

    with Stdin(console, options, shown=out.isatty() and not args.json) as stdin:
        options = replace(options, watch=both(options.watch, stdin.watch))
        return _run_kept(args, payload, options, out, console, live)


def _run_kept(
    args: argparse.Namespace,
    payload: Payload,
    options: Options,
    out: TextIO,
    console: Console,
    live: Callable[[bytes], object] | None,
) -> int:
    if args.console:
        from vmm.cli.files import OutputFile

        kept = OutputFile(args.console, in_place=bool(args.sandbox))
        try:
            return _run(args, payload, options, out, console, Both(kept, live))
        except VmmError:
            kept.discard()
            raise
        finally:  # also after ^C: what came is there
            kept.keep()
    return _run(args, payload, options, out, console, live)


def _check_files(args: argparse.Namespace, source: str) -> None:
    """UsageError: an output would overwrite a source, or another; nothing is run."""
    from vmm.cli.files import check_outputs

    traces = [name for name in args.trace if name != "-"]
    trace = traces[0] if len(traces) == 1 else None
    outputs = {"--trace": trace, "--timeline": args.timeline, "--html": args.html, "--console": args.console}
    outputs["--elf-out"] = args.elf_out
    check_outputs(outputs, [source])
    if args.timeline is not None:
        other = next((each for each in PICTURES if args.timeline.lower().endswith(each)), "")
        if other:
            raise UsageError(f"--timeline {args.timeline}: the drawing is SVG, and not {other}", hint="the suffix .svg")
    if args.trace_limit != TRACE_LIMIT and not traces:
        from vmm.cli.warn import ignored

        ignored("--trace-limit", "nothing is recorded without `--trace FILE.jsonl`")


class Both:
    """The console goes into a file, and to whoever shows it."""

    def __init__(self, file: OutputFile, live: Callable[[bytes], object] | None) -> None:
        self.keep: Callable[[bytes], object] = file.file.write
        self._live = live

    def __call__(self, data: bytes) -> None:
        self.keep(data)
        if self._live is not None:
            self._live(data)


def _run(
    args: argparse.Namespace,
    payload: Payload,
    options: Options,
    out: TextIO,
    console: Console,
    live: Callable[[bytes], object] | None,
) -> int:
    statistics = None
    if args.stats or args.folder or args.folder_rw:
        if args.stats:
            from vmm.payload.statistics import Statistics

            statistics = Statistics()
            options = replace(options, watch=both(options.watch, statistics.watch))
        if args.folder or args.folder_rw:
            from vmm.payload.folder import serve_folder

            if args.folder and args.folder_rw:
                raise UsageError("--folder and --folder-rw: one folder is served, to be read or to be written too")
            serve = serve_folder(args.folder_rw or args.folder, writable=bool(args.folder_rw))
            options = replace(options, watch=both(options.watch, serve))
    if args.json:
        from contextlib import redirect_stdout

        with redirect_stdout(sys.stderr):  # what a host half prints is no part of the document
            outcome = _outcome(args, payload, options, out, live, statistics)
    else:
        outcome = _outcome(args, payload, options, out, live, statistics)
    if statistics is not None:
        outcome = replace(outcome, stats=statistics.rows)
    if args.json:
        more = {}
        if args.snapshot_out is not None or args.from_snapshot is not None:
            from vmm.cli import snapshots

            more = snapshots.document(args, outcome.exit_code)
        print(document(outcome, more), file=out)
        return outcome.exit_code
    from vmm.report.text import outcome_lines

    postmortem = None
    if outcome.postmortem and not args.verbose:
        from vmm.report.short import short_lines

        postmortem = short_lines
    console.end()
    for line in outcome_lines(outcome, style_for(args, out), postmortem):
        print(line, file=out)
    return outcome.exit_code


def _outcome(
    args: argparse.Namespace,
    payload: Payload,
    options: Options,
    out: TextIO,
    live: Callable[[bytes], object] | None,
    statistics: Statistics | None,
) -> Outcome:
    if args.gdb is not None:
        from vmm.cli.gdb import served

        return served(args, payload, options, lambda held: _plainly(args, payload, held, out, live, statistics))
    return _plainly(args, payload, options, out, live, statistics)


def _plainly(
    args: argparse.Namespace,
    payload: Payload,
    options: Options,
    out: TextIO,
    live: Callable[[bytes], object] | None,
    statistics: Statistics | None,
) -> Outcome:
    if not traced(args):
        return run_payload(payload, options, live=live)
    from vmm.cli.tracing import run_traced

    return run_traced(payload, options, args, out, live, live.keep if isinstance(live, Both) else None, statistics)


def document(outcome: Outcome, more: dict[str, Any]) -> str:
    """The outcome as JSON, with `more` of the command's. UsageError: the host half has left evidence that is none."""
    import json

    try:
        return json.dumps(outcome.as_json() | more, indent=2)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the evidence of {outcome.payload} cannot be written as JSON: {error}") from error


class Console:
    """The guest's console, shown as it comes. On a terminal, control characters are shown and not obeyed, but where the
    guest has the keyboard, too.
    """

    def __init__(self, out: TextIO) -> None:
        import codecs

        self._out = out
        self._safe = out.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._last = "\n"
        self._obeyed = False

    def obey(self) -> None:
        """A person and the guest share a terminal: it gets every character, at once."""
        self._safe, self._obeyed = False, True

    def say(self, text: str) -> None:
        """Lines of our own, in between."""
        self.end()
        self._out.write(text)
        self._out.flush()
        self._last = "\n"

    def write(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if not text:
            return
        self._out.write(printable(text) if self._safe else text)
        self._last = text[-1]
        if self._last == "\n" or self._obeyed:
            self._out.flush()

    def end(self) -> None:
        """Let what follows start on a line of its own."""
        if self._last != "\n":
            self._out.write("\n")
        self._out.flush()
        if sys.stderr is not None:
            sys.stderr.flush()
