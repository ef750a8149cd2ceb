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
from .expected import PLAIN
from .selftests import RESULTS


def row(found: Mapping[str, Any]) -> str:
    """A line of the file."""
    deviations = [each["what"] for each in found.get("deviations", [])]
    if found["verdict"] in PLAIN and not deviations:
        return f'{found["name"]} = "{found["verdict"]}"'
    more = f", deviations = {json.dumps(deviations)}" if deviations else ""
    told = found["reason"] or found["summary"]
    return f'# {told}\n{found["name"]} = {{ verdict = "{found["verdict"]}"{more}, why = "" }}'


def draft(folder: Path) -> str:
    """The text of the file."""
    probe = json.loads((folder / "probe.json").read_text())
    lines = ["# SPDX-License-Identifier: GPL-2.0-or-later"]
    for kind in ("features", "topics"):
        lines += ["", f"[{kind}]", *map(row, probe.get(kind, []))]
    failed = junit.read(folder / "junit.xml").failed
    lines += ["", "[tests]"] if failed else []
    lines += [f'# {message}\n"{name}" = {{ verdict = "failed", why = "" }}' for name, message in failed.items()]
    path = folder / RESULTS
    told = json.loads(path.read_text())["selftests"] if path.exists() else []
    bad = [each for each in told if each["status"] not in ("pass", "skip")]
    lines += ["", "[selftests]"] if bad else []
    for each in bad:
        lines += [f"# {line.strip()}" for line in each["output"][-2:]]
        lines.append(f'{each["name"]} = {{ verdict = "{each["status"]}", why = "" }}')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(draft(Path(sys.argv[1])), end="")
