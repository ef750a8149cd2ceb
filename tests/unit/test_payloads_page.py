# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/payloads.md says what there is to include."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_shared_file_of_the_payloads_is_named():
    there = {path.name for path in (ROOT / "guest_payloads" / "inc").glob("*.inc")}
    rows = [line for line in (ROOT / "docs" / "payloads.md").read_text().splitlines() if line.startswith("| `")]
    assert {name for line in rows for name in re.findall(r"`(\w+\.inc)`", line.split(" | ")[0])} == there
