# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm fleet`: every host of a Dask cluster probed, side by side or against one that is known; a target fuzzed on
every worker.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vmm.errors import EXIT_FAIL, EXIT_HOST, EXIT_PASS, EXIT_TIMEOUT, UsageError, os_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmm.fleet.cluster import Fleet, Lost
    from vmm.fleet.fuzzing import Fuzzed
    from vmm.fleet.probing import Probed
    from vmm.report.snapshot import Snapshot

SCHEMA = 1
ACTIONS = {
    "probe": "prove every paravirtual feature on every host, and print the matrix",
    "diff": "the same, and what differs from a known good one, or from the first host",
    "fuzz": "fuzz a target on every worker, each with seeds of its own; what one finds, all go on from",
}
HELP = "actions:\n" + "".join(f"  {name:<7} {text}\n" for name, text in ACTIONS.items())
EPILOG = (
    "exit status: 0, 1 something is broken (diff: a regression), 2 usage, or a worker with another pyvmm,\n"
    "             99 no scheduler, no worker, no usable KVM, or a host that was lost, 124 time limit, 130 interrupted"
)
LIMIT = 600.0
SECONDS = 60.0
OF_FUZZ = ("corpus", "seconds", "seed")
OF_PROBES = ("api", "no_refusals", "strict", "against", "save", "markdown")
PER = {"host": 1, "core": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{HELP}\n{EPILOG}"
    parser.add_argument("action", choices=tuple(ACTIONS), metavar="ACTION", help="one of those below")
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help="as of `pyvmm probe`, all if none is named; fuzz: the target, as of `pyvmm fuzz`",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler, tcp://HOST:8786; else a cluster on this machine"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="of the cluster on this machine (2; with --per core: its CPUs)"
    )
    parser.add_argument(
        "--per",
        choices=tuple(PER),
        default="host",
        help="tasks at a time: one a host (the default: guests that measure time want it quiet), or one a core",
    )
    parser.add_argument("--api", action="store_true", help="topics of the KVM API too")
    parser.add_argument("--no-refusals", action="store_true", help="do not ask what must be refused")
    parser.add_argument("--strict", action="store_true", help="let a deviation fail too")
    parser.add_argument("--against", metavar="A.json", help="diff: the known good, output of `pyvmm probe --json`")
    parser.add_argument("--timeout", type=float, default=LIMIT, metavar="S", help="seconds for all of it (600)")
    parser.add_argument("--save", metavar="DIR", help="write what each host said there, as HOST.json")
    parser.add_argument("--corpus", metavar="DIR", help="fuzz: inputs and crashes (default fuzz-TARGET)")
    parser.add_argument("--seconds", type=float, default=None, metavar="S", help="fuzz: so long (60)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="fuzz: what the seeds of all are made of")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    form.add_argument("--markdown", action="store_true", help="Markdown, for the summary of a CI step")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.action == "fuzz":
        return _fuzz(args, out)
    from vmm.fleet.cluster import fleet
    from vmm.fleet.probing import probe

    known = _check(args)
    begin = time.monotonic()
    shown = _Progress()
    with fleet(args.scheduler, _workers(args), shown.say) as found:
        shown.say(f"{len(found.workers)} workers on {', '.join(found.hosts)}")
        if args.action == "diff" and known is None and len(found.hosts) < 2:
            raise UsageError(f"{found.hosts[0]} is the one host: with what is it compared?", hint="--against A.json")
        try:
            probed = probe(
                found, args.features, api=args.api, refusals=not args.no_refusals, strict=args.strict,
                deadline=begin + args.timeout, at_once=PER[args.per], progress=shown.step,
            )  # fmt: skip
        finally:
            shown.end()
        doc = _document(args, found, probed, known, time.monotonic() - begin)
    for host, why in probed.unusable.items():
        shown.say(f"{host} cannot be probed: {why}")
    if probed.left:
        late = "no time was left" if doc["exit_code"] == EXIT_TIMEOUT else "no worker was left"
        shown.say(
            f"{late} for {len(probed.left)} tasks: {', '.join(f'{name} on {host}' for host, name in probed.left)}"
        )
    if args.save is not None:
        _save(args.save, doc["probes"])
    _show(args, doc, out)
    status: int = doc["exit_code"]
    return status


def _check(args: argparse.Namespace) -> Snapshot | None:
    """What --against names. UsageError: options that cannot be, features that are not; before a cluster is made."""
    from vmm.cli.comparing import read_all
    from vmm.payload.options import check_timeout
    from vmm.payload.proof.probe import select

    check_timeout(args.timeout)
    _check_workers(args)
    wrong = next((each for each in OF_FUZZ if getattr(args, each) is not None), None)
    if wrong:
        raise UsageError(f"--{wrong} goes with fuzz, not with {args.action}")
    if args.against is not None and args.action != "diff":
        raise UsageError("--against goes with diff", hint=f"`pyvmm fleet diff --against {args.against}`")
    select(args.features, api=args.api)
    return read_all([args.against])[0][0] if args.against is not None else None


def _workers(args: argparse.Namespace) -> int:
    """How many processes a cluster of this machine has."""
    few = args.per == "host" and args.action != "fuzz"
    return args.workers or (2 if few else os.cpu_count() or 1)


def _check_workers(args: argparse.Namespace) -> None:
    """UsageError: as many as cannot be."""
    if args.workers is not None and args.workers < 1:
        raise UsageError(f"--workers {args.workers}: give at least 1")
    if args.workers is not None and args.scheduler is not None:
        raise UsageError("--workers and --scheduler: a cluster that is there has its own", hint="one of them")


def _fuzz(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.fleet.cluster import fleet
    from vmm.fleet.fuzzing import folder_of, fuzz
    from vmm.payload.options import check_timeout

    _check_workers(args)
    wrong = next((each for each in OF_PROBES if getattr(args, each)), None)
    if wrong:
        raise UsageError(f"--{wrong.replace('_', '-')} goes with probe and diff, not with fuzz")
    if len(args.features) != 1:
        raise UsageError(f"fuzz takes one target, and {len(args.features)} are named", hint="`pyvmm fuzz --list`")
    seconds = check_timeout(SECONDS if args.seconds is None else args.seconds)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    (word,) = args.features
    folder, text = folder_of(word, args.corpus)
    shown = _Progress()

    def so_far(total: Fuzzed) -> None:
        shown.say(f"round {total.rounds}: {_numbers(total)}")

    begin = time.monotonic()
    with fleet(args.scheduler, _workers(args), shown.say) as found:
        shown.say(f"{len(found.workers)} workers on {', '.join(found.hosts)}; seed {seed}, corpus {folder.path}")
        total = fuzz(found, word, text, folder, seed=seed, seconds=seconds, progress=so_far)
        lost = found.lost
        workers = _rows(found)
    status = EXIT_HOST if total.left else EXIT_FAIL if total.crashed else EXIT_PASS
    if args.json:
        document = {
            "schema": SCHEMA, "action": "fuzz", "workers": workers, "lost": _lost(lost), "target": folder.target,
            "folder": os.fspath(folder.path), "seed": seed, "rounds": total.rounds, "execs": total.execs,
            "crashed": total.crashed, "reached": total.reached, "inputs": total.inputs, "kinds": list(total.kinds),
            "not_done": [{"host": "", "task": "round"}] * total.left, "elapsed_s": round(time.monotonic() - begin, 3),
            "exit_code": status,
        }  # fmt: skip
        print(json.dumps(document, indent=2), file=out)
        return status
    print(f"{word}: {_numbers(total)}", file=out)
    for kind in total.kinds:
        print(f"  new: pyvmm fuzz --replay {folder.crashes / kind}.json", file=out)
    return status


def _numbers(total: Fuzzed) -> str:
    kinds = f", {len(total.kinds)} new kinds" if total.kinds else ""
    return f"{total.execs:,} execs, {total.inputs} new inputs, reached {total.reached}, {total.crashed} crashed{kinds}"


def _rows(found: Fleet) -> list[dict[str, Any]]:
    return [
        {"address": each.address, "host": each.host, "version": each.identity["version"]}
        for each in found.workers.values()
    ]


def _lost(lost: Iterable[Lost]) -> list[dict[str, Any]]:
    return [{"worker": each.worker, "host": each.host, "task": each.task, "again": each.again} for each in lost]


class _Progress:
    """Lines on standard error, and on a terminal one that changes."""

    def __init__(self) -> None:
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._shown = False

    def say(self, text: str) -> None:
        self.end()
        if sys.stderr is not None:
            print(f"pyvmm: fleet: {text}", file=sys.stderr, flush=True)

    def step(self, what: str, done: int, total: int) -> None:
        if self._live:
            sys.stderr.write(f"\r\033[K{done} of {total}: {what}")
            sys.stderr.flush()
            self._shown = True

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            self._shown = False


def _document(
    args: argparse.Namespace, found: Fleet, probed: Probed, known: Snapshot | None, elapsed: float
) -> dict[str, Any]:
    """What there is to say, of which each form shows some (schemas/fleet.schema.json)."""
    from vmm.report import compare, matrix
    from vmm.report import probe as report
    from vmm.report.snapshot import read

    probes = {host: report.document(table) for host, table in probed.tables.items()}
    every = [(host, read(each, host)) for host, each in probes.items()]
    differences: list[dict[str, Any]] = []
    if args.action == "diff":
        if known is None:
            (_, known), *every_other = every
        else:
            known, every_other = _narrowed(known, args), every
        differences = [compare.diff(known, each, strict=args.strict) for _, each in every_other]
    return {
        "schema": SCHEMA,
        "action": args.action,
        "workers": _rows(found),
        "lost": _lost(found.lost),
        "unusable": [{"host": host, "reason": why} for host, why in probed.unusable.items()],
        "not_done": [{"host": host, "task": name} for host, name in probed.left],
        "probes": probes,
        "matrix": matrix.matrix(every, api=args.api),
        "differences": differences,
        "elapsed_s": round(elapsed, 3),
        "exit_code": _status(args, probed, differences, elapsed),
    }


def _narrowed(known: Snapshot, args: argparse.Namespace) -> Snapshot:
    """What it has of the features that are named; the rest was not asked for, and has not become worse."""
    from dataclasses import replace

    from vmm.payload.proof.probe import select

    if not args.features:
        return known
    names = {target.name for target in select(args.features, api=args.api)}
    return replace(
        known, entries={key: each for key, each in known.entries.items() if key.removeprefix("api ") in names}
    )


def _status(args: argparse.Namespace, probed: Probed, differences: list[dict[str, Any]], elapsed: float) -> int:
    if probed.left:
        return EXIT_TIMEOUT if elapsed >= args.timeout else EXIT_HOST
    if probed.unusable or any(table.errors for table in probed.tables.values()):
        return EXIT_HOST
    if args.action == "diff":
        return EXIT_FAIL if any(each["exit_code"] for each in differences) else EXIT_PASS
    return EXIT_FAIL if any(table.failed for table in probed.tables.values()) else EXIT_PASS


def _save(folder: str, probes: dict[str, Any]) -> None:
    from vmm.cli.files import write_file

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {folder}: {os_reason(error)}") from error
    for host, each in probes.items():
        write_file(str(Path(folder) / f"{host}.json"), json.dumps(each, indent=2) + "\n")


def _show(args: argparse.Namespace, doc: dict[str, Any], out: TextIO) -> None:
    from vmm.cli.colour import style_for
    from vmm.report import compare_text, matrix

    if args.json:
        print(json.dumps(doc, indent=2), file=out)
        return
    style = style_for(args, out)
    if args.action == "diff":
        for each in doc["differences"]:
            out.write(compare_text.diff_markdown(each) if args.markdown else compare_text.diff_text(each, style))
        return
    out.write(matrix.markdown(doc["matrix"]) if args.markdown else matrix.text(doc["matrix"], style))
