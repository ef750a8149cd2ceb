# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.hostlab.draft build/hosts/svm-6.1`: a draft of expected/svm-6.1.toml from what a host handed back.

A draft, and no more: each row that does not simply work is left without its reason, and such a file is refused. Whoever
reviews it finds the reason, or the mistake.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import junit
from .errors import LabError
from .expected import PLAIN
from .selftests import RESULTS


def row(found: Mapping[str, Any]) -> str:
    """A line of the file; names are quoted, since some are sentences."""
    name = json.dumps(found["name"])
    deviations = [each["what"] for each in found.get("deviations", [])]
    if found["verdict"] in PLAIN and not deviations:
        return f'{name} = "{found["verdict"]}"'
    more = f", deviations = {json.dumps(deviations)}" if deviations else ""
    told = found["reason"] or found["summary"]
    return f'# {_line(told)}\n{name} = {{ verdict = "{found["verdict"]}"{more}, why = "" }}'


def _line(text: str) -> str:
    """For a comment, which ends with its line."""
    return " ".join(text.split())


def draft(folder: Path) -> str:
    """The text of the file. LabError: the folder is none that a host handed back."""
    try:
        return _draft(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{folder}: not what a host hands back: {error!r}", hint="run make hosts first") from error


def _draft(folder: Path) -> str:
    probe = json.loads((folder / "probe.json").read_text())
    lines = ["# SPDX-License-Identifier: GPL-2.0-or-later"]
    for kind in ("features", "topics"):
        lines += ["", f"[{kind}]", *map(row, probe.get(kind, []))]
    failed = junit.read(folder / "junit.xml").failed
    lines += ["", "[tests]"] if failed else []
    lines += [f'# {_line(message)}\n"{name}" = {{ verdict = "failed", why = "" }}' for name, message in failed.items()]
    path = folder / RESULTS
    told = json.loads(path.read_text())["selftests"] if path.exists() else []
    bad = [each for each in told if each["status"] not in ("pass", "skip")]
    lines += ["", "[selftests]"] if bad else []
    for each in bad:
        lines += [f"# {line.strip()}" for line in each["output"][-2:]]
        lines.append(f'{each["name"]} = {{ verdict = "{each["status"]}", why = "" }}')
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    if len(words) != 1:
        print("draft: give one folder, build/hosts/HOST", file=sys.stderr)
        return 2
    try:
        print(draft(Path(words[0])), end="")
    except LabError as error:
        print(f"draft: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
