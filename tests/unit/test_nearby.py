# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said where a file cannot be opened: the errno by name, and what stands beside it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from vmm.base.nearby import to_try
from vmm.errors import UsageError, os_reason
from vmm.payload.catalog import find


def test_the_reason_has_the_errno_by_name() -> None:
    assert os_reason(OSError(errno.ENOENT, os.strerror(errno.ENOENT))) == "No such file or directory (ENOENT)"
    assert os_reason(socket.gaierror(-2, "Name or service not known")) == "Name or service not known"
    assert os_reason(OSError("only words")) == "only words"
    assert os_reason(ValueError("embedded null byte")) == "embedded null byte"
    assert os_reason(RecursionError()) == "RecursionError"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kernel.elf", "`ls .`, where nothing is called kernel.elf; did you mean kernal.elf?"),
        ("sub/deep/kernel.elf", "`ls sub`, where nothing is called deep"),
        ("no/where/k.asm", "`ls .`, where nothing is called no"),
        ("sub/my kernel", "`ls sub`, where nothing is called my kernel; did you mean 'sub/my kernal'?"),
        ("dangling.elf", "dangling.elf is a link to a file that is not there: `ls -l dangling.elf`"),
        ("loop.elf", ""),
    ],
)
def test_a_missing_file_is_told_with_what_is_beside_it(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernal.elf").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my kernal").touch()
    (tmp_path / "dangling.elf").symlink_to("nowhere")
    (tmp_path / "loop.elf").symlink_to("loop.elf")
    with pytest.raises(UsageError) as refused:
        find(name)
    code = "ELOOP" if name == "loop.elf" else "ENOENT"
    assert refused.value.text == f"reading {name}: {os.strerror(getattr(errno, code))} ({code})"
    assert refused.value.hint == hint


def test_a_folder_that_cannot_be_looked_at_gives_no_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    monkeypatch.setattr("vmm.base.nearby.os.scandir", refuse)
    assert not to_try(gone, tmp_path / "x")
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    assert not to_try(gone, "/no/such/root")
    assert not to_try(gone, "")


def test_who_may_not_read_is_told_where_that_is_written() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert to_try(denied, "a b.elf") == "`ls -l 'a b.elf'`: this user may not read it, or not enter its folder"
    assert not to_try(ValueError("embedded null byte"), "x")


def test_a_word_without_a_dot_may_be_a_payload_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("vmlinuz", "no payload is called 'vmlinuz', and there is no such file"),
        ("helo", "no payload is called 'helo'; did you mean hello?"),
        ("", "no payload is called ''"),
    ):
        with pytest.raises(UsageError) as refused:
            find(name)
        assert refused.value.text == said
