# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user who is not root needs for the hosts' file system, named before anything is fetched."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tools.hostlab import root
from tools.hostlab.errors import LabError


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of subuid and subgid, for a user without a range."""
    number = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(os, "geteuid", lambda: number)
    monkeypatch.setattr(root, "need", lambda *commands: None)
    monkeypatch.setattr(root, "SUBUID", tmp_path / "subuid")
    (tmp_path / "subuid").write_text("nobody:100000:65536\n")
    (tmp_path / "subgid").write_text("nobody:100000:65536\n")
    return tmp_path


def test_with_a_range_of_both_it_may_go_on(nobody: Path) -> None:
    root.check()


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_without_a_range_it_is_said_how_to_get_one(nobody: Path, name: str) -> None:
    (nobody / name).write_text("somebody:100000:65536\n")
    with pytest.raises(LabError, match=rf"{name} has no range for nobody[^$]*usermod --add-subuids .* nobody"):
        root.check()
    (nobody / name).unlink()
    with pytest.raises(LabError, match=name):
        root.check()


def test_root_needs_none(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nobody / "subuid").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root.check()
