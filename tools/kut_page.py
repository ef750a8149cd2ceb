# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of docs/kut.md, from documents of `pyvmm kut --json`: never typed.

    pyvmm kut DIR --qemu --json > both.json
    python -m tools.kut_page both.json              # verdicts of both, from one run
    python -m tools.kut_page later.json both.json   # pyvmm's of a later run, QEMU's of that one
    python -m tools.kut_page --hosts FOLDER/svm-7.2/kut.json FOLDER/vmx-6.1/kut.json ...

The last is the other table of the page, with columns for each host of the lab, named by its folder (docs/hostlab.md); a
host may have several documents.
Tests of all documents are the same ones, with the same parameters; else it says so and writes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vmm.report.gfm import escape, head, line
from vmm.report.kut import compared
from vmm.report.matrix import placed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kut.md"
BEGIN, END = "<!-- made by tools/kut_page.py -->", "<!-- end -->"
BEGIN_HOSTS, END_HOSTS = "<!-- made by tools/kut_page.py --hosts -->", "<!-- end of hosts -->"
LONGEST = 160  # characters of a reason


def table(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The rows, and what they come to. ValueError: the documents are not of the same tests."""
    qemu = {each["name"]: each for each in theirs["tests"]}
    same = [(each, qemu.get(each["name"])) for each in ours["tests"]]
    for each, other in same:
        if other is None or not _same(each, other):
            raise ValueError(f"{each['name']}: not the same test in both documents")
    rows = [_row(each, (other or {}).get("qemu")) for each, other in same]
    both = [(each["verdict"], other["qemu"]["verdict"]) for each, other in same if other and "qemu" in other]
    counts = ", ".join(f"{count} {name}" for name, count in ours["counts"].items())
    text = f"{len(rows)} tests: {counts}; {_beside(both)}"
    return "\n".join([*head(("test", "pyvmm", "QEMU", "what it said in pyvmm")), *rows, "", text])


def by_host(names: list[str], documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One document a host, where the tests of one came in several: a later one has the last word of a test."""
    made: dict[str, dict[str, Any]] = {}
    for name, found in zip(names, documents, strict=True):
        before = made.get(name, {"tests": [], "not_run": []})
        new = {each["name"]: each for each in found["tests"]}
        tests = [new.pop(each["name"], each) for each in before["tests"]] + list(new.values())
        there = {each["name"] for each in tests}
        left = [each for each in (*before["not_run"], *found["not_run"]) if each not in there]
        made[name] = {"tests": tests, "not_run": list(dict.fromkeys(left))}
    return made


def table_of_hosts(documents: dict[str, dict[str, Any]]) -> str:
    """Each test that ran on one of the hosts, by their names, beside QEMU there. ValueError: as `table` has it."""
    by_host = {host: {each["name"]: each for each in found["tests"]} for host, found in documents.items()}
    names = dict.fromkeys(name for tests in by_host.values() for name in tests)
    rows = []
    for name in names:
        found = [tests.get(name) for tests in by_host.values()]
        there = [each for each in found if each]
        if not all(_same(there[0], each) for each in there):
            raise ValueError(f"{name}: not the same test in all documents")
        if not any("qemu" in each for each in there):
            continue  # no image, or for others
        cells = [
            cell for each in found for cell in ((_verdict(each), _verdict(each.get("qemu"))) if each else ("-", "-"))
        ]
        said = next((each for each in there if each["verdict"] != "pass"), there[0])
        rows.append(line((escape(name), *cells, escape(_said(said)))))
    titles = [title for host in documents for title in (host, f"{host}, QEMU")]
    counts = [f"{host}: {_beside_there(found)}" for host, found in documents.items()]
    return "\n".join([*head(("test", *titles, "what it said in pyvmm")), *rows, "", *counts])


def _beside_there(found: dict[str, Any]) -> str:
    both = [(each["verdict"], each["qemu"]["verdict"]) for each in found["tests"] if "qemu" in each]
    left = f" {len(found['not_run'])} were not run." if found["not_run"] else ""
    return _beside(both) + left


def _beside(both: list[tuple[str, str]]) -> str:
    """`of 40 that ran in both QEMU passes 20; pyvmm passes 19 of those, and 2 more.`"""
    n = compared(both)
    return f"of {n.both} that ran in both QEMU passes {n.theirs}; pyvmm passes {n.ours} of those, and {n.more} more."


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("file", "params", "cpus"))


def _row(ours: dict[str, Any], qemu: dict[str, Any] | None) -> str:
    return line((escape(ours["name"]), _verdict(ours), _verdict(qemu), escape(_said(ours))))


def _said(found: dict[str, Any]) -> str:
    said = " ".join((found["reason"] or found["summary"]).split())
    return said if len(said) <= LONGEST else said[: LONGEST - 4] + " ..."


def _verdict(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return "pass" if found["verdict"] == "pass" else f"*{found['verdict']}*"


def main(names: list[str]) -> int:
    """Write the page; 2 where the documents do not go together."""
    hosts = names[:1] == ["--hosts"]
    names = names[hosts:]
    if not names or (len(names) > 2 and not hosts):
        print(__doc__, file=sys.stderr)
        return 2
    documents = [json.loads(Path(name).read_text(encoding="utf-8")) for name in names]
    begin, end = (BEGIN_HOSTS, END_HOSTS) if hosts else (BEGIN, END)
    try:
        if hosts:
            made = table_of_hosts(by_host([Path(name).parent.name for name in names], documents))
        else:
            made = table(documents[0], documents[-1])
    except ValueError as error:
        print(f"kut_page: {error}", file=sys.stderr)
        return 2
    page = placed(PAGE.read_text(encoding="utf-8"), made, begin, end)
    if page is None:
        print(f"kut_page: {PAGE} has no pair of marks: {begin} {end}", file=sys.stderr)
        return 2
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
