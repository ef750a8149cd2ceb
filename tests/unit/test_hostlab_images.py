# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's step that starts images of Debian's packages: what it concludes of what they say."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from tools.hostlab import parcel
from tools.hostlab.inside import host, images

PYVMM = """\
#!/bin/sh
case $(head -c 4 "$2") in
  good) printf 'hello\\nfrom %s\\n' "$3"; sleep 60;;
  mute) echo hello; exit 1;;
  *) echo "pyvmm: $2: cut off" >&2; [ -n "$STRANGE" ] && exit 1; exit 2;;
esac
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a pyvmm that knows an image by its first four bytes."""
    for name in ("bin", "boot", "tmp"):
        (tmp_path / name).mkdir()
    command = tmp_path / "bin/pyvmm"
    command.write_text(PYVMM)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("HAND_BACK", raising=False)
    (tmp_path / "boot/good").write_bytes(b"good")
    (tmp_path / "boot/good.gz").write_bytes(gzip.compress(b"good", mtime=0))
    (tmp_path / "boot/mute").write_bytes(b"mute")
    return tmp_path


def looked(root: Path, path: str) -> list[bool]:
    seen = host.Seen()
    image = images.Image("it", path, ("--args",), (b"hello", b"from"), cut=2)
    images.look(seen, [image], root, root / "tmp", limit=20)
    return [bool(each["ok"]) for each in seen.checks]


def test_one_that_speaks_and_is_refused_when_it_is_cut_off(root: Path) -> None:
    assert looked(root, "boot/good") == [True, True]
    assert (root / "tmp/images.json").exists()
    assert "from --args" in (root / "tmp/images-0.txt").read_text()


def test_one_that_ends_before_it_has_said_all(root: Path) -> None:
    assert looked(root, "boot/mute") == [False, True]


def test_one_that_is_cut_off_and_ends_otherwise(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRANGE", "1")
    assert looked(root, "boot/good") == [True, False]


def test_a_packed_one_is_cut_off_unpacked(root: Path) -> None:
    image = images.Image("it", "boot/good.gz", (), (), cut=2)
    images.damaged(image, root)
    assert (root / "tmp/cut.img").read_bytes() == b"go"


def test_what_ipxe_says_is_looked_for_as_it_comes() -> None:
    """Copied from what it said in a host, so that the words that are waited for can come at all."""
    said = (
        b"iiPPXXEE  iinniittiiaalliissiinngg  ddeevviicceess......ookk\r\n\r\nPPrreessss  CCttrrll--BB  ffoorr  tthhee"
    )
    (ipxe,) = (image for image in images.IMAGES if image.name.startswith("iPXE"))
    assert all(words in said for words in ipxe.says)


def test_the_step_names_the_packages_that_have_them() -> None:
    assert set(parcel.packages(["images"])) >= {"memtest86+", "ipxe", "grub-pc-bin"}
    assert all(image.cut and image.says for image in images.IMAGES)
