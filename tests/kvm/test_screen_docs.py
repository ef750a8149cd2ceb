# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/screen.md: its example is typed at the screen and shows what it says; its table is that of the commands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install 'pyvmm[debug]'")

from tests.kvm.screen_pilot import at_the_screen
from vmm.payload.catalog import find
from vmm.payload.run import run_payload
from vmm.screen.commands import table

PAGE = (Path(__file__).resolve().parents[2] / "docs/screen.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    assert found is not None
    return found[1]


def test_the_example_is_found_as_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "sum.asm"
    file.write_text(block("asm"), encoding="utf-8")
    outcome = run_payload(find(str(file)))
    assert (outcome.outcome, outcome.reason) == ("fail", "the guest reports failure")
    steps = [line.partition("#") for line in block("keys").splitlines()]
    assert len(steps) > 10

    async def told() -> None:
        async with at_the_screen(file) as me:
            for typed, _, seen in steps:
                key = typed.strip()
                await (me.type(key[1:]) if key.startswith(":") else me.press(key))
                await me.sees(seen.strip())

    asyncio.run(told())


def test_the_table_has_every_command() -> None:
    for row in table():
        assert row in PAGE.splitlines()
