# SPDX-License-Identifier: GPL-2.0-or-later
"""What `pyvmm kut` found, as aligned lines of text and as the document of `--json` (schemas/kut.schema.json)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vmm.payload.kut.one import Ended
from vmm.payload.kut.suite import Done, Suite, Test
from vmm.payload.kut.verdict import FAILURES, SKIPS, State
from vmm.report.columns import line, one_line
from vmm.report.style import Style

SCHEMA = 1
INDENT = " " * 4
HEAD = ("test", "verdict", "time", "what it said")
QEMU_HEAD = ("test", "verdict", "qemu", "time", "what it said")


def colour_of(state: State) -> str:
    """A kind of vmm.report.style."""
    if state is State.PASS:
        return "good"
    return "warn" if state in SKIPS else "bad"


def said(ended: Ended) -> str:
    """The reason, or for a plain pass the numbers of its SUMMARY line."""
    return one_line(ended.reason or ended.report.summary)


def took(ended: Ended) -> str:
    """`3.2 s`; nothing for what did not run."""
    return f"{ended.seconds:.1f} s" if ended.seconds else ""


def widths(tests: Iterable[Test], *, qemu: bool) -> tuple[int, ...]:
    """Of all columns but the last."""
    name = max([len(HEAD[0]), *(len(one_line(test.name)) for test in tests)])
    verdict = max(len(str(state)) for state in State)
    return (name, verdict, verdict, 7) if qemu else (name, verdict, 7)


def head(columns: tuple[int, ...], style: Style, *, qemu: bool) -> str:
    return style("head", line(QEMU_HEAD if qemu else HEAD, columns, ""))


def row(done: Done, columns: tuple[int, ...], style: Style, *, qemu: bool) -> str:
    """One test; colour comes after alignment, for its codes have no width."""
    ended = done.ended
    texts = [one_line(done.test.name), str(ended.state), took(ended)]
    kinds = ["name", colour_of(ended.state), "dim"]
    if qemu:
        texts.insert(2, str(done.qemu.state) if done.qemu else "-")
        kinds.insert(2, colour_of(done.qemu.state) if done.qemu else "dim")
    padded = [text.ljust(width) for text, width in zip(texts, columns, strict=True)]
    cells = [style(kind, text) for kind, text in zip(kinds, padded, strict=True)]
    return "  ".join([*cells, said(ended)]).rstrip()


def details(done: Done, style: Style) -> Iterator[str]:
    """Below a row: what its parameters mean here, what failed, and where each vCPU stood."""
    ended = done.ended
    for note in ended.notes:
        yield f"{INDENT}{style('dim', 'note')}  {one_line(note)}"
    for bad in ended.report.bad:
        yield f"{INDENT}{style('bad', bad.kind)}  {one_line(bad.text)}"
    for place in ended.where:
        yield f"{INDENT}{style('dim', 'at')}  {one_line(place)}"
    if done.qemu is not None and done.qemu.reason:
        yield f"{INDENT}{style('dim', 'qemu')}  {one_line(done.qemu.reason)}"


def summary(suite: Suite) -> str:
    """`47 tests: 20 pass, 3 skip, 1 fail (63.1 s)`."""
    counts = ", ".join(f"{count} {state}" for state, count in suite.counts.items())
    total = len(suite.done)
    text = f"{total} test{'s' * (total != 1)}: {counts or 'none'}"
    if suite.missing:
        text += f"; {len(suite.missing)} not run"
    return f"{text} ({suite.elapsed:.1f} s)"


class Beside(NamedTuple):
    """How verdicts compare with QEMU's: tests that ran in `both`, those that pass in QEMU (`theirs`), of those the ones
    that pass in pyvmm too (`ours`), and the ones that pass in pyvmm alone (`more`).
    """

    both: int
    theirs: int
    ours: int
    more: int


def compared(verdicts: Iterable[tuple[str, str]]) -> Beside:
    """Of (pyvmm's, QEMU's) verdict of each test that ran in both, as a document has them."""
    rows = [(ours == State.PASS, qemu == State.PASS) for ours, qemu in verdicts]
    return Beside(len(rows), sum(qemu for _, qemu in rows), rows.count((True, True)), rows.count((True, False)))


def beside(suite: Suite) -> str:
    """How the verdicts compare with QEMU's: `QEMU passes 12 of them, pyvmm all of those and 5 more`."""
    found = compared((done.ended.state, done.qemu.state) for done in suite.done if done.qemu is not None)
    here = "all of those" if found.ours == found.theirs else f"{found.ours} of those"
    return f"of {found.both} run in both QEMU passes {found.theirs}; pyvmm passes {here}, and {found.more} more"


def listed(test: Test) -> tuple[str, str]:
    """(name, what it would run with) for `--list`."""
    settings = test.settings
    if test.ended is not None:
        return test.name, f"{test.ended.state}: {one_line(test.ended.reason)}"
    limit = "no time limit" if test.timeout is None else f"{test.timeout:g} s at most"
    parts = [test.entry.file, f"{settings.cpus} CPU{'s' * (settings.cpus != 1)}", settings.memory, limit]
    if settings.args:
        parts.append(f"args {settings.args!r}")
    return test.name, one_line(", ".join(parts))


def document(suite: Suite) -> dict[str, Any]:
    """All of it, as plain values."""
    return {
        "schema": SCHEMA,
        "folder": str(suite.folder),
        "tests": [_test(done) for done in suite.done],
        "counts": suite.counts,
        "failed": sum(done.ended.state in FAILURES for done in suite.done),
        "interrupted": suite.interrupted,
        "not_run": suite.missing,
        "elapsed_s": round(suite.elapsed, 3),
        "exit_code": suite.exit_code,
    }


def _test(done: Done) -> dict[str, Any]:
    test, settings = done.test, done.test.settings
    found = {
        "name": test.name,
        "file": test.entry.file,
        "groups": list(test.entry.groups),
        "cpus": settings.cpus,
        "memory": settings.memory,
        "args": settings.args,
        "params": test.entry.params,
        "timeout_s": test.timeout,
        **_ended(done.ended),
        "notes": list(done.ended.notes),
        "where": list(done.ended.where),
    }
    return found if done.qemu is None else found | {"qemu": _ended(done.qemu)}


def _ended(ended: Ended) -> dict[str, Any]:
    report = ended.report
    return {
        "verdict": str(ended.state),
        "reason": ended.reason,
        "status": ended.status,
        "seconds": round(ended.seconds, 3),
        "summary": report.summary,
        "checks": [{"kind": each.kind, "text": each.text} for each in report.lines],
        "console": ended.console,
    }
