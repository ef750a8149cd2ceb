# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of every shipped payload are those that were reviewed: tests/listings/NAME.lst, made by `make listings`."""

from __future__ import annotations

import difflib
import runpy
from pathlib import Path

import pytest

from vmm.payload.catalog import shipped

ROOT = Path(__file__).resolve().parents[2]
LISTINGS = ROOT / "tests" / "listings"
TOOL = runpy.run_path(str(ROOT / "tools" / "listings.py"))
AGAIN = "if the change is meant: `make listings`, then review the difference"


@pytest.mark.parametrize("name", shipped())
def test_listing(name: str) -> None:
    path = LISTINGS / f"{name}.lst"
    assert path.exists(), f"{path} is missing; {AGAIN}"
    kept, now = (text.splitlines() for text in (path.read_text(encoding="utf-8"), TOOL["listing"](name)))
    changed = "\n".join(difflib.unified_diff(kept, now, "reviewed", "now", lineterm="", n=1))
    assert not changed, f"{name}.asm assembles otherwise than reviewed; {AGAIN}\n{changed}"


def test_no_listing_without_a_payload() -> None:
    assert {path.stem for path in LISTINGS.glob("*.lst")} <= set(shipped()), AGAIN


def test_a_listing_says_nothing_of_where_it_was_made() -> None:
    for path in LISTINGS.glob("*.lst"):
        assert str(ROOT) not in path.read_text(encoding="utf-8")
