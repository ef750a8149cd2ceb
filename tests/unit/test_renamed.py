# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules by their names of 0.1: the module of today, with a DeprecationWarning; any other name is no module."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from vmm.base.renamed import NEW


@pytest.mark.parametrize("old", NEW)
def test_an_old_name_is_the_module_of_today(old: str) -> None:
    sys.modules.pop(f"vmm.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"vmm\.{old} is called vmm\.{NEW[old]} now"):
        module = importlib.import_module(f"vmm.{old}")
    assert module is sys.modules[f"vmm.{NEW[old]}"]
    assert module.__name__ == f"vmm.{NEW[old]}"
    assert module.__spec__ is not None
    assert module.__spec__.name == f"vmm.{NEW[old]}"


def test_as_a_script_writes_it() -> None:
    text = (
        "from vmm.machine import dirty; from vmm.machine.dirty import DirtyRings; print(dirty.DirtyRings is DirtyRings)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", text], capture_output=True, text=True, check=False
    )
    assert "vmm.machine.dirty is called vmm.machine.extra.dirty_pages now" in done.stderr
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("name", ["vmm.nothing", "vmm.machine.nothing"])
def test_no_module_is_none(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)
