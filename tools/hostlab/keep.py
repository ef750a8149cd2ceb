# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of hosts in README.md and docs/hosts.md, by `pyvmm matrix`, from what hosts said.

    python -m tools.hostlab.keep build/hosts/svm-6.1 ...     keep what these hosts said in docs/hosts/, write the tables
    python -m tools.hostlab.keep                             write the tables of what is kept

Kept is what `pyvmm probe --api --json` printed, whole. A folder whose host was not as expected is not kept: first the
difference is understood. software-backed.json is of a host that nobody can emulate, and is kept by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmm.cli import main as pyvmm

from . import expected, hosts, judge, page
from .errors import LabError

PROJECT = Path(__file__).resolve().parents[2]
KEPT = PROJECT / "docs" / "hosts"
# Page -> what its table has beside the verdicts.
PAGES: dict[str, tuple[str, ...]] = {"README.md": ("--no-notes",), "docs/hosts.md": ()}


def text(document: dict[str, Any]) -> str:
    """The document with each row of a table on a line of its own: short, and a diff shows the rows that differ."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            rows = ",\n".join(json.dumps(each) for each in value)
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{" + ",\n".join(parts) + "}\n"


def keep(folder: Path, into: Path = KEPT) -> Path:
    """Write the file; where.

    Raises:
        LabError: the folder has no document, or its verdicts are not the expected ones.
    """
    try:
        document = json.loads((folder / "probe.json").read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"{folder / 'probe.json'}: {error}") from error
    host = hosts.parse(folder.name)
    wrong = judge.differences(expected.of(host), document)
    if wrong:
        raise LabError(f"{folder} is not as expected:\n  " + "\n  ".join(wrong))
    into.mkdir(parents=True, exist_ok=True)
    file = into / f"{folder.name}.json"
    file.write_text(text(document), encoding="utf-8")
    return file


def kept(folder: Path = KEPT) -> list[Path]:
    """The documents, in the order of the columns: by CPU and kernel, then what is no host of the lab."""
    found = [path for path in folder.glob("*.json") if not path.name.endswith(page.SUFFIX)]
    return sorted(found, key=_column)


def _column(path: Path) -> tuple[bool, str, tuple[int, ...]]:
    kind, _, kernel = path.stem.partition("-")
    return kind not in hosts.KINDS, kind, tuple(int(part) for part in kernel.split(".") if part.isdigit())


def main(words: Sequence[str]) -> int:
    try:
        for word in words:
            print(keep(Path(word)))
    except LabError as error:
        print(f"keep: {error}", file=sys.stderr)
        return 1
    names = [str(path) for path in kept()]
    return max(pyvmm(["matrix", *names, *more, "--into", str(PROJECT / page)]) for page, more in PAGES.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
