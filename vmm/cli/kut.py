# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut`: the tests of a unittests.cfg, shown as they are done or as one document at the end."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vmm.cli.colour import can_colour
from vmm.cli.files import OutputFile, check_outputs
from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.payload.kut.one import Ended
    from vmm.payload.kut.suite import Done, Runner, Suite, Test

DEFAULT_QEMU = "qemu-system-x86_64"
EXIT_STATUS = """\
exit status: 0 something passed and nothing failed, 1 a test failed, crashed or was not done in time,
             2 usage or a file that cannot be read or written, 77 nothing could be shown here (all skipped),
             99 no usable KVM or an error of pyvmm's own, 130 interrupted (^C)
verdicts:    pass, fail, skip (the test's own, or a condition of the file's); cannot run (this host or the
             testdev board lacks what the reason names); timeout, crash; error (pyvmm's own)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="DIR",
        help="the folder with the images and unittests.cfg, or the tree of kvm-unit-tests (its x86/ is taken)",
    )
    parser.add_argument(
        "tests", nargs="*", metavar="TEST", help="run these only: names of the file, or patterns like 'vmexit_*'"
    )
    parser.add_argument(
        "-g", "--group", action="append", default=[], metavar="GROUP", help="run tests of this group only; may repeat"
    )
    parser.add_argument("-a", "--all", action="store_true", help="also tests of the group nodefault")
    parser.add_argument(
        "--cfg", metavar="FILE", help="another unittests.cfg; images are still those in DIR, or in its x86/"
    )
    parser.add_argument(
        "--arch", choices=("x86_64", "i386"), default="x86_64", help="what the images were built for (default x86_64)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="at most so many seconds for each test, whatever the file says (default: the file's, else 90)",
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="run N tests at a time (default 1)")
    parser.add_argument(
        "--env", metavar="FILE", help="NAME=VALUE lines that the tests find in their environment, as their initrd"
    )
    parser.add_argument(
        "--qemu",
        nargs="?",
        const=DEFAULT_QEMU,
        metavar="BINARY",
        help=f"also run each in QEMU ({DEFAULT_QEMU}), beside",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--list", action="store_true", help="run nothing: show each test, and what it would run with")
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    form.add_argument("--markdown", action="store_true", help="a Markdown table, for the summary of a CI step")
    form.add_argument("--tap", action="store_true", help="TAP version 14, a test point per test, as they come")
    parser.add_argument("--junit", metavar="FILE", help="also write JUnit XML, a test case per test")
    parser.add_argument("--logs", metavar="DIR", help="also write each test's output there, as TEST.log")
    parser.add_argument("-v", "--verbose", action="store_true", help="notes and failed checks below each row (text)")
    parser.add_argument("--no-color", action="store_true", help="plain lines, also on a terminal")
    parser.epilog = EXIT_STATUS


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Show what becomes of the tests; what came before ^C is shown too."""
    suite = _suite(args)
    if args.list:
        _list(suite, out)
        return 0
    check_outputs({"--junit": args.junit})
    beside = _beside(args.qemu)
    logs = None if args.logs is None else _logs(Path(args.logs))
    with ExitStack() as stack:
        junit = None
        if args.junit is not None:
            junit = OutputFile(args.junit)
            stack.callback(junit.discard)
        _check_kvm()
        return _run(args, suite, beside, logs, junit, out)


def _suite(args: argparse.Namespace) -> Suite:
    """The tests that are meant. UsageError for what cannot be."""
    from vmm.machine.run.limits import time_limit
    from vmm.payload.kut import suite

    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: give at least 1")
    limit = None if args.timeout is None else time_limit(args.timeout)
    env = None if args.env is None else Path(args.env)
    if env is not None and not env.is_file():
        raise UsageError(f"--env {args.env}: there is no such file")
    folder = Path(args.folder)
    if args.cfg is not None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        cfg, folder = Path(args.cfg), suite.images_in(folder)
    else:
        cfg = suite.find_cfg(folder)
        folder = cfg.parent
    chosen = suite.select(suite.load(cfg), args.tests, args.group)
    if not chosen:
        raise UsageError("no test has one of these names and is in one of these groups", hint="`pyvmm kut DIR --list`")
    named = bool(args.all or args.tests or args.group)
    tests = [suite.prepare(each, folder, limit=limit, named=named, env=env, arch=args.arch) for each in chosen]
    return suite.Suite(folder, tuple(tests))


def _check_kvm() -> None:
    """HostError where KVM cannot be used: said once, and not by each test."""
    from vmm.kvm.system import Kvm

    Kvm.open().close()


def _beside(qemu: str | None) -> Callable[[Test], Ended] | None:
    if qemu is None:
        return None
    from vmm.payload.kut import beside_qemu

    path = beside_qemu.find(qemu)
    if path is None:
        raise UsageError(f"--qemu {qemu}: there is no such program", hint="Debian's package is qemu-system-x86")
    return lambda test: beside_qemu.run_in_qemu(test, path)


def _logs(folder: Path) -> Path:
    """The folder, made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--logs {folder}: {error.strerror or error}") from error
    return folder


def _list(suite: Suite, out: TextIO) -> None:
    from vmm.report.columns import aligned
    from vmm.report.kut import listed

    for text in aligned([listed(test) for test in suite.tests], ""):
        print(text, file=out)


def _run(
    args: argparse.Namespace,
    suite: Suite,
    beside: Callable[[Test], Ended] | None,
    logs: Path | None,
    junit: OutputFile | None,
    out: TextIO,
) -> int:
    from vmm.payload.kut.suite import Runner

    runner = Runner(suite, jobs=args.jobs, beside=beside)
    with ExitStack() as stack:
        show = _view(args, suite, runner, out, stack)
        try:
            for done in runner:
                show(done)
                if logs is not None:
                    _log(logs, done)
        except KeyboardInterrupt:
            pass  # the suite knows; what there is is shown
    _end(args, suite, out)
    out.flush()
    if junit is not None:
        from vmm.report import kut_junit

        _write(junit, kut_junit.render(suite))
    if suite.interrupted:
        raise KeyboardInterrupt
    return suite.exit_code


def _log(folder: Path, done: Done) -> None:
    """A test's output; a name of the file's cannot lead out of the folder."""
    name = "".join(char if char.isalnum() or char in "-_." else "_" for char in done.test.name)
    try:
        (folder / f"{name}.log").write_text(done.ended.console.replace("\r", ""), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--logs: {error.filename}: {error.strerror or error}") from error


def _write(output: OutputFile, text: str) -> None:
    try:
        output.file.write(text.encode())
    except OSError as error:
        raise UsageError(f"writing {output.name!r}: {error.strerror or error}") from error
    output.keep()


def _view(
    args: argparse.Namespace, suite: Suite, runner: Runner, out: TextIO, stack: ExitStack
) -> Callable[[Done], object]:
    """Begin the output; what shows a test when it is done."""
    from vmm.report import kut, kut_tap, tap
    from vmm.report.style import Style

    if args.json or args.markdown:
        return lambda done: None
    if args.tap:
        out.write(tap.head(len(suite.tests)))

        def write_point(done: Done) -> None:
            out.write(kut_tap.point(len(suite.done), done))
            out.flush()

        return write_point
    colour, qemu = can_colour(args, out), args.qemu is not None
    style, columns = Style(colour), kut.widths(suite.tests, qemu=qemu)
    say: Callable[[str], object] = functools.partial(print, file=out, flush=True)
    if colour:
        from vmm.cli.live import Bar

        bar = stack.enter_context(Bar(out, len(suite.tests)))
        runner.on_start = lambda name: bar.at(len(suite.done), name)
        say = bar.print
    say(kut.head(columns, style, qemu=qemu))

    def write_lines(done: Done) -> None:
        say(kut.row(done, columns, style, qemu=qemu))
        for text in kut.details(done, style) if args.verbose else ():
            say(text)

    return write_lines


def _end(args: argparse.Namespace, suite: Suite, out: TextIO) -> None:
    """What follows the rows, or all of a document."""
    from vmm.report import kut, kut_markdown, tap

    if args.json:
        import json

        out.write(json.dumps(kut.document(suite), indent=2) + "\n")
    elif args.markdown:
        out.write(kut_markdown.render(suite))
    elif args.tap:
        out.write(tap.bail("interrupted") if suite.interrupted else "")
    else:
        print("", kut.summary(suite), sep="\n", file=out)
        if args.qemu is not None:
            print(kut.beside(suite), file=out)
