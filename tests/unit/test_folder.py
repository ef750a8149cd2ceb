# SPDX-License-Identifier: GPL-2.0-or-later
"""One folder for a guest: what it may do there, and every way out that must stay shut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.left_behind import files_before, open_files
from vmm.errors import HostError
from vmm.machine.extra import folder
from vmm.machine.extra.folder import FIRST, MAX_FILE, MAX_OPEN, MAX_TRANSFER, Folder

CREATE = os.O_WRONLY | os.O_CREAT


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"secret")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "file").write_bytes(b"0123456789")
    (inside / "sub" / "deep").write_bytes(b"deep")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "near").symlink_to("file")
    (inside / "out").symlink_to(tmp_path)
    (inside / "dangling").symlink_to(tmp_path / "new")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.fixture
def opened(inside: Path) -> Iterator[Folder]:
    with Folder(inside, writable=True) as opened:
        yield opened


def refused(opened: Folder, path: bytes, flags: int = os.O_RDONLY) -> int | None:
    with pytest.raises(OSError, match="Errno") as caught:
        opened.open(path, flags)
    return caught.value.errno


@pytest.mark.parametrize("path", [b"file", b"./file", b"sub/deep", b"sub//./deep", b"sub/deep/"])
def test_files_below(opened: Folder, path: bytes) -> None:
    fd = opened.open(path, os.O_RDONLY)
    assert fd == FIRST
    assert opened.read(fd, 4) in (b"0123", b"deep")


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"", errno.ENOENT),
        (b".", errno.EISDIR),
        (b"nothing", errno.ENOENT),
        (b"sub", errno.EISDIR),
        (b"file/x", errno.ENOTDIR),
        (b"/etc/passwd", errno.EACCES),
        (b"//etc/passwd", errno.EACCES),
        (b"../secret", errno.EACCES),
        (b"sub/../file", errno.EACCES),
        (b"sub/../../secret", errno.EACCES),
        (b"file\0", errno.EINVAL),
        (b"link", errno.ELOOP),
        (b"near", errno.ELOOP),
        (b"out/secret", errno.ENOTDIR),
        (b"pipe", errno.EACCES),
        (b"x" * 2000, errno.ENAMETOOLONG),
        (b"x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_everything_else(opened: Folder, path: bytes, number: int) -> None:
    assert refused(opened, path) in (number, errno.ELOOP if number == errno.ENOTDIR else number)


@pytest.mark.parametrize("path", [b"link", b"dangling", b"out/new", b"../new", b"/tmp/new"])
def test_nothing_is_created_or_cut_outside(opened: Folder, inside: Path, path: bytes) -> None:
    before = sorted(inside.parent.rglob("*"))
    for flags in (CREATE, CREATE | os.O_TRUNC, os.O_RDWR | os.O_CREAT | os.O_EXCL):
        assert refused(opened, path, flags) in (errno.ELOOP, errno.EACCES, errno.ENOTDIR)
    assert sorted(inside.parent.rglob("*")) == before
    assert (inside.parent / "secret").read_bytes() == b"secret"


def test_a_file_that_becomes_a_link_meanwhile(opened: Folder, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the open: what O_NOFOLLOW is for."""
    look = os.stat

    def swap(name, **options):
        found = look(name, **options)
        (inside / "file").unlink()
        (inside / "file").symlink_to(inside.parent / "secret")
        return found

    monkeypatch.setattr(folder.os, "stat", swap)
    assert refused(opened, b"file", os.O_RDWR | os.O_TRUNC) == errno.ELOOP
    assert (inside.parent / "secret").read_bytes() == b"secret"


def test_a_file_that_becomes_a_pipe_meanwhile(opened: Folder, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open is looked at once more: a guest cannot be made to wait at a pipe, nor to reach a device."""
    look = os.stat

    def swap(name, **options):
        found = look(name, **options)
        (inside / "file").unlink()
        os.mkfifo(inside / "file")
        return found

    monkeypatch.setattr(folder.os, "stat", swap)
    assert refused(opened, b"file") == errno.EACCES


def test_truncation(opened: Folder, inside: Path) -> None:
    opened.open(b"file", os.O_WRONLY)
    assert (inside / "file").stat().st_size == 10
    opened.open(b"file", os.O_WRONLY | os.O_TRUNC)
    assert (inside / "file").stat().st_size == 0


@pytest.mark.parametrize("flags", [3, os.O_TRUNC, os.O_DIRECTORY, os.O_TMPFILE, os.O_APPEND, 1 << 30, -1])
def test_flags_that_are_not_served(opened: Folder, flags: int) -> None:
    assert refused(opened, b"file", flags) == errno.EINVAL


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, CREATE, os.O_RDWR | os.O_TRUNC, os.O_CREAT])
def test_read_only_unless_said_otherwise(inside: Path, flags: int) -> None:
    with Folder(inside) as opened:
        assert refused(opened, b"file", flags) == errno.EROFS
        assert opened.read(opened.open(b"file", os.O_RDONLY), 3) == b"012"


def test_write_seek_and_read_back(opened: Folder, inside: Path) -> None:
    fd = opened.open(b"sub/new", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    assert opened.write(fd, b"hello") == 5
    assert opened.lseek(fd, -4, os.SEEK_END) == 1
    assert opened.read(fd, 100) == b"ello"
    opened.close_file(fd)
    with pytest.raises(OSError, match="descriptor"):
        opened.read(fd, 1)
    assert (inside / "sub" / "new").read_bytes() == b"hello"
    assert refused(opened, b"sub/new", os.O_RDWR | os.O_CREAT | os.O_EXCL) == errno.EEXIST


@pytest.mark.parametrize("count", [-1, MAX_TRANSFER + 1, 1 << 40])
def test_a_read_beyond_the_limit(opened: Folder, count: int) -> None:
    fd = opened.open(b"file", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid"):
        opened.read(fd, count)
    assert opened.read(fd, MAX_TRANSFER) == b"0123456789"


def test_no_file_grows_beyond_its_limit(opened: Folder, inside: Path) -> None:
    fd = opened.open(b"new", CREATE)
    assert opened.lseek(fd, MAX_FILE, os.SEEK_SET) == MAX_FILE
    with pytest.raises(OSError, match="too large"):
        opened.write(fd, b"x")
    for offset, whence in ((MAX_FILE + 1, os.SEEK_SET), (-1, os.SEEK_SET), (1, os.SEEK_CUR), (0, 7)):
        with pytest.raises(OSError, match="Invalid"):
            opened.lseek(fd, offset, whence)
    assert (inside / "new").stat().st_size == 0


def test_a_guest_has_so_many_files(opened: Folder) -> None:
    fds = [opened.open(b"file", os.O_RDONLY) for _ in range(MAX_OPEN)]
    assert len(set(fds)) == MAX_OPEN
    assert refused(opened, b"file") == errno.EMFILE
    opened.close_file(fds[5])
    assert opened.open(b"file", os.O_RDONLY) == fds[5]


def test_descriptors_of_the_host_are_not_the_guests(opened: Folder) -> None:
    for number in (-1, 0, 1, 2, 3, 10, 1 << 40):
        with pytest.raises(OSError, match="descriptor"):
            opened.read(number, 1)


def test_nothing_stays_open(inside: Path) -> None:
    before = files_before()
    for _ in range(3):
        with Folder(inside, writable=True) as opened:
            opened.open(b"file", os.O_RDONLY)
            for path in (b"link", b"sub/x", b"sub", b"pipe", b"out/secret"):
                refused(opened, path)
    assert open_files() == before


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="opening the folder"):
        Folder(tmp_path / "nothing")


@given(st.lists(st.sampled_from([b"..", b".", b"", b"sub", b"file", b"out", b"link", b"secret", b"deep"]), max_size=6))
def test_no_path_leads_to_the_secret(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    if not root.exists():
        (root / "inside" / "sub").mkdir(parents=True)
        (root / "secret").write_bytes(b"secret")
        (root / "inside" / "file").write_bytes(b"plain")
        (root / "inside" / "sub" / "deep").write_bytes(b"plain")
        (root / "inside" / "out").symlink_to(root)
        (root / "inside" / "link").symlink_to(root / "secret")
    with Folder(root / "inside") as opened:
        try:
            fd = opened.open(b"/".join(names), os.O_RDONLY)
        except OSError:
            return
        assert opened.read(fd, 100) == b"plain"
