# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/selftests.md: on each host the kernel's selftests of KVM beside pyvmm's rows that ask the same.

    python -m tools.hostlab.page build/hosts/svm-6.1 ...     store what these hosts said in docs/hosts/, write the page
    python -m tools.hostlab.page                             write the page of what is stored

Nothing is typed into the table: an explanation is the `why` of a row of [selftests] in expected/HOST.toml, or a fault
of expected/faults.toml.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmm.report import gfm
from vmm.report.matrix import placed

from . import expected, hosts, judge, selftests
from .errors import LabError
from .expected import Wanted

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PAGE = "selftests.md"
SUFFIX = ".selftests.json"
BEGIN = "<!-- selftests: `python -m tools.hostlab.page` writes what is between these lines -->"
END = "<!-- selftests end -->"
GOOD, BAD = frozenset({"works", "advertised"}), frozenset({"broken", "inert"})
UNEXPLAINED = "not explained"
NO_ROWS = "no row"
DEVIATES = ", deviates"


def stored(folder: Path) -> dict[str, Any]:
    """The small document of what a host handed back: the selftests, and the verdicts of the rows beside them.

    Raises:
        LabError: it handed back too little.
    """
    try:
        told = json.loads((folder / selftests.RESULTS).read_text())
        probe = json.loads((folder / "probe.json").read_text())
        verdicts = {row["name"]: _verdict(row) for kind in ("features", "topics") for row in probe.get(kind, [])}
        results = [
            {key: each[key] for key in ("name", "status", "output") if key != "output" or each["status"] != "pass"}
            for each in told["selftests"]
        ]
        named = {row for each in results for row in rows(each["name"])}
        return {
            "schema": 1,
            "host": folder.resolve().name,
            "kernel": told["kernel"],
            "source": told["source"],
            "selftests": results,
            "pyvmm": {name: verdict for name, verdict in verdicts.items() if name in named},
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{folder}: not what a host hands back: {error!r}", hint="make hosts SELFTESTS=1, then its folder"
        ) from error


def _verdict(row: Mapping[str, Any]) -> str:
    """With a deviation from the ABI it is no plain one: a selftest that passes did not see that."""
    return f"{row['verdict']}{DEVIATES if row.get('deviations') else ''}"


def rows(name: str) -> tuple[str, ...]:
    """pyvmm's rows beside a selftest."""
    return next((program.rows for program in selftests.PROGRAMS if program.name == name), ())


def opinion(status: str, verdicts: Sequence[str]) -> str:
    """`agrees`, `disagrees`, or nothing, where one of the two has nothing to say. A row that is absent is beside the
    point where another is not: the other maker's nested guests.
    """
    there = {verdict for verdict in verdicts if verdict != "absent"}
    if not verdicts or status in ("skip", "unbuilt"):
        return "agrees" if status == "skip" and verdicts and not there else ""
    if status == "pass":
        return "agrees" if there and there <= GOOD else "disagrees"
    return "agrees" if there & BAD else "disagrees"


def why(wanted: Wanted | None) -> str:
    """The reviewed explanation, or nothing."""
    if wanted is None:
        return ""
    told = [wanted.why]
    if wanted.fault:
        told += [f"a fault of {wanted.fault.emulator}: {wanted.fault.what} {wanted.fault.told}"]
    return " ".join(" ".join(each for each in told if each).split())


def compared(
    doc: Mapping[str, Any], wanted: expected.Expected
) -> Iterator[tuple[str, str, dict[str, list[str]], str, str]]:
    """Of each selftest: name, status, verdict -> pyvmm's rows, opinion, explanation."""
    for each in doc["selftests"]:
        name, status = each["name"], each["status"]
        beside: dict[str, list[str]] = {}
        for row in rows(name):
            if row in doc["pyvmm"]:
                beside.setdefault(doc["pyvmm"][row], []).append(row)
        found = opinion(status, list(beside))
        told = why(wanted.selftests.get(name))
        if not told and status == "skip" and each["output"]:
            told = f"it says itself: {each['output'][-1]}"
        if not told and (found == "disagrees" or status not in ("pass", "skip")):
            told = UNEXPLAINED
        yield name, status, beside, found, told


def rendered(every: Sequence[tuple[Mapping[str, Any], expected.Expected]]) -> str:
    """What is between the marks."""
    used = {each["name"] for doc, _ in every for each in doc["selftests"]}
    lines = [*gfm.head(("selftest", "what it asks"))]
    lines += [gfm.line((gfm.escape(p.name), gfm.escape(p.what))) for p in selftests.PROGRAMS if p.name in used]
    for doc, wanted in every:
        lines += ["", *_host(doc, wanted)]
    return "\n".join(lines) + "\n"


def _host(doc: Mapping[str, Any], wanted: expected.Expected) -> Iterator[str]:
    found = list(compared(doc, wanted))
    opinions = [each[3] for each in found]
    notes: list[str] = []
    yield f"## {gfm.escape(doc['host'])}"
    yield ""
    yield (
        f"Linux {gfm.escape(doc['kernel'])}, selftests of the source {gfm.escape(doc['source'])}. "
        f"{judge.counts_of_selftests(doc).capitalize()}. {opinions.count('agrees')} agree with pyvmm, "
        f"{opinions.count('disagrees')} disagree, {opinions.count('')} say nothing."
    )
    yield ""
    yield from gfm.head(("selftest", "result", "pyvmm", ""))
    for name, status, beside, view, told in found:
        if told and told not in notes:
            notes.append(told)
        mark = f" <sup>{notes.index(told) + 1}</sup>" if told else ""
        seen = "; ".join(f"{verdict}: {', '.join(map(gfm.escape, names))}" for verdict, names in beside.items())
        shown = status if status in ("pass", "skip") else f"**{status}**"
        last = f"**{view}**" if view == "disagrees" else view
        yield gfm.line((gfm.escape(name), shown, seen or NO_ROWS, f"{last}{mark}".strip()))
    if notes:
        yield ""
    yield from (f"{number}. {gfm.escape(note)}" for number, note in enumerate(notes, 1))


def documents(docs: Path = DOCS) -> list[tuple[dict[str, Any], expected.Expected]]:
    """Each stored document with what is expected of its host.

    Raises:
        LabError: one cannot be read, or there is no file of expected verdicts.
    """
    found = []
    for path in sorted((docs / "hosts").glob(f"*{SUFFIX}")):
        try:
            doc = json.loads(path.read_text())
            host = hosts.parse(doc["host"])
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path}: {error!r}") from error
        found.append((doc, expected.of(host)))
    return found


def written(docs: Path = DOCS) -> str:
    """The page as it should be. Raises: LabError, for one without its pair of marks."""
    text = placed((docs / PAGE).read_text(), rendered(documents(docs)), BEGIN, END)
    if text is None:
        raise LabError(f"{docs / PAGE}: it has not one pair of marks", hint=f"the lines {BEGIN} and {END}, each once")
    return text


def main(folders: Sequence[str], docs: Path = DOCS) -> int:
    try:
        for doc in [stored(Path(each)) for each in folders]:
            hosts.parse(doc["host"])
            path = docs / "hosts" / f"{doc['host']}{SUFFIX}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(doc, indent=1) + "\n")
            print(f"{path}: written")
        (docs / PAGE).write_text(written(docs))
        print(f"{docs / PAGE}: written")
    except LabError as error:
        print(f"page: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
