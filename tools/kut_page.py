# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of docs/kut.md, from documents of `pyvmm kut --json`: never typed.

    pyvmm kut DIR --qemu --json > both.json
    python -m tools.kut_page both.json              # verdicts of both, from one run
    python -m tools.kut_page later.json both.json   # pyvmm's of a later run, QEMU's of that one

Tests of both documents are the same ones, with the same parameters; else it says so and writes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vmm.report.gfm import escape, head, line
from vmm.report.matrix import placed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kut.md"
BEGIN, END = "<!-- made by tools/kut_page.py -->", "<!-- end -->"
LONGEST = 160  # characters of a reason


def table(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The rows, and what they come to. ValueError: the documents are not of the same tests."""
    qemu = {each["name"]: each for each in theirs["tests"]}
    same = [(each, qemu.get(each["name"])) for each in ours["tests"]]
    for each, other in same:
        if other is None or (each["file"], each["params"], each["cpus"]) != tuple(
            other[key] for key in ("file", "params", "cpus")
        ):
            raise ValueError(f"{each['name']}: not the same test in both documents")
    rows = [_row(each, (other or {}).get("qemu")) for each, other in same]
    both = [(each["verdict"], other["qemu"]["verdict"]) for each, other in same if other and "qemu" in other]
    theirs_too = [mine for mine, other in both if other == "pass"]
    more = sum(mine == "pass" != other for mine, other in both)
    counts = ", ".join(f"{count} {name}" for name, count in ours["counts"].items())
    text = (
        f"{len(rows)} tests: {counts}. Of {len(both)} that ran in both QEMU passes {len(theirs_too)}; pyvmm passes "
        f"{theirs_too.count('pass')} of those, and {more} more."
    )
    return "\n".join([*head(("test", "pyvmm", "QEMU", "what it said in pyvmm")), *rows, "", text])


def _row(ours: dict[str, Any], qemu: dict[str, Any] | None) -> str:
    said = ours["reason"] or ours["summary"]
    shown = said if len(said) <= LONGEST else said[: LONGEST - 4] + " ..."
    return line((escape(ours["name"]), _verdict(ours), _verdict(qemu) if qemu else "-", escape(shown)))


def _verdict(found: dict[str, Any]) -> str:
    return "pass" if found["verdict"] == "pass" else f"*{found['verdict']}*"


def main(names: list[str]) -> int:
    """Write the page; 2 where the documents do not go together."""
    if len(names) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    documents = [json.loads(Path(name).read_text(encoding="utf-8")) for name in names]
    try:
        made = table(documents[0], documents[-1])
    except ValueError as error:
        print(f"kut_page: {error}", file=sys.stderr)
        return 2
    page = placed(PAGE.read_text(encoding="utf-8"), made, BEGIN, END)
    if page is None:
        print(f"kut_page: {PAGE} has no pair of marks: {BEGIN} {END}", file=sys.stderr)
        return 2
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
