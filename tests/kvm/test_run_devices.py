# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that a person asks for on the command line, and when an image's machine gets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.made_images import Load, elf
from vmm.errors import UsageError
from vmm.machine.run.limits import MAX_TIMEOUT
from vmm.payload.catalog import Payload, find, whole
from vmm.payload.guest import Guest
from vmm.payload.header import Header
from vmm.payload.options import BootOptions, Options

VIRTIO_MMIO_HID = b"LNRO0005"
BIOS, BIOS_SIZE = 0xE0000, 0x20000
HALT = b"\xfa\xf4"  # cli; hlt


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    return path


def image(name: str = "kernel") -> Payload:
    return Payload(name, name, "", Header(), code=HALT, image=True)


def test_disks_and_rng(disk: Path) -> None:
    with Guest(find("hello"), Options(disks=(str(disk), f"{disk},ro"), rng=True)) as guest:
        assert sorted(guest.devices) == ["virtio_blk", "virtio_blk2", "virtio_rng"]
        assert [guest.devices[name].device.readonly for name in ("virtio_blk", "virtio_blk2")] == [False, True]


def test_a_file_that_is_called_so_is_no_option(disk: Path) -> None:
    odd = disk.with_name("disk.img,ro")
    odd.write_bytes(bytes(512))
    with Guest(find("hello"), Options(disks=(str(odd),))) as guest:
        assert not guest.devices["virtio_blk"].device.readonly


def test_a_disk_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no\\.img"):
        Guest(find("hello"), Options(disks=(str(tmp_path / "no.img"),)))


def test_the_tables_of_an_image_name_its_devices(disk: Path) -> None:
    boot = BootOptions(base="0x100000", mode="protected")
    with Guest(image(), Options(boot=boot, board="pc", disks=(str(disk),), rng=True, nets=("none",))) as guest:
        tables = guest.machine.memory.read(BIOS, BIOS_SIZE)
        assert tables.count(VIRTIO_MMIO_HID) == 3


def test_an_image_that_is_no_linux_has_the_usual_limit() -> None:
    with Guest(image(), Options(boot=BootOptions(base="0x100000", mode="protected"))) as guest:
        assert guest.machine.timeout is not None
        assert guest.machine.timeout < MAX_TIMEOUT


def test_the_bytes_of_an_image_are_let_go_of(tmp_path: Path) -> None:
    """A kernel of 12 MB is not kept beside the guest's memory that it was written to."""
    file = tmp_path / "kernel"
    file.write_bytes(elf(Load(HALT + bytes(1 << 20), 1 << 20)))
    payload = find(str(file))
    assert payload.code is not None
    assert len(payload.code) < file.stat().st_size
    assert whole(payload) == file.read_bytes()
    with Guest(payload) as guest:
        assert guest.machine.memory.read(1 << 20, 2) == HALT
        assert guest.program.end > 1 << 20
        assert not any(each.data for each in guest.program.image.segments)
