# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of every shipped payload are those that were reviewed: tests/listings/NAME.lst, made by `make listings`."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.guest import assemble

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


def written_twice(payload: Payload) -> list[str]:
    """Numbers that the host half gives a name which the text gives the same number. Both may take it from a fact."""
    half = importlib.import_module(f"guest_payloads.{payload.group}.{payload.name}")
    tree = ast.parse(inspect.getsource(half))
    constants, found = assemble(payload).constants, []
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not ({"REGIONS", "0"} & set(_words(node.value))):
            continue
        for name in (each.id for each in ast.walk(node.targets[0]) if isinstance(each, ast.Name)):
            if name in constants and getattr(half, name) == constants[name]:
                found.append(f"{payload.name}.py: {name}: ask guest.constant({name!r})")
    return found


def _words(value: ast.expr) -> Iterator[str]:
    """The names in an expression, and "0" for each number."""
    for each in ast.walk(value):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Constant) and isinstance(each.value, int):
            yield "0"


@pytest.mark.parametrize("name", [name for name, path in shipped().items() if path.with_suffix(".py").exists()])
def test_no_host_half_writes_a_number_of_its_text_again(name: str) -> None:
    payload = find(name)
    assert written_twice(payload) == []
    text = Path(payload.file).with_suffix(".py").read_text(encoding="utf-8")
    assert not re.search(r"as in (the|\w+)\s?\.(asm|inc)|\bof \w+\.inc\b", text), "guest.constant has the number"


def test_no_listing_without_a_payload() -> None:
    assert {path.stem for path in LISTINGS.glob("*.lst")} <= set(shipped()), AGAIN


def test_a_listing_says_nothing_of_where_it_was_made() -> None:
    for path in LISTINGS.glob("*.lst"):
        assert str(ROOT) not in path.read_text(encoding="utf-8")
