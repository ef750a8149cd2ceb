# SPDX-License-Identifier: GPL-2.0-or-later
"""The test device's registers and fw_cfg, without a machine."""

from __future__ import annotations

from vmm.abi import testdev
from vmm.machine.devices.fw_cfg import FwCfg
from vmm.machine.devices.testdev import FlushPage, IrqLines, PlainRegister


def test_a_register_by_every_width() -> None:
    register = PlainRegister("r", 4)
    register.write(0, 4, 0x11223344)
    register.write(1, 1, 0xAA)
    assert register.read(0, 4) == 0x1122AA44
    assert register.read(2, 2) == 0x1122
    register.write(3, 4, 0x55667788)  # only its first byte fits
    assert register.read(0, 4) == 0x8822AA44
    assert register.read(3, 4) == 0x88
    assert register.read(0, 8) == 0x8822AA44


def test_lines_and_the_flush_port() -> None:
    seen: list[object] = []
    lines = IrqLines(lambda line, level: seen.append((line, level)))
    lines.write(14, 1, 1)
    lines.write(14, 1, 0)
    lines.write(3, 4, 2)
    flush = FlushPage(seen.append)
    flush.write(0, 4, 0x12345)
    assert seen == [(14, True), (14, False), (3, True), 0x12345]
    assert lines.read(0, 1) == flush.read(0, 4) == 0


def item(device: FwCfg, key: int, count: int) -> bytes:
    device.write(0, 2, key)
    return bytes(device.read(1, 1) for _ in range(count))


def test_fw_cfg_reads_item_by_item() -> None:
    device = FwCfg({testdev.FW_CFG_NB_CPUS: b"\x02\x00", testdev.FW_CFG_SIGNATURE: b"QEMU"})
    assert item(device, testdev.FW_CFG_NB_CPUS, 3) == b"\x02\x00\x00"  # 0 behind its end
    assert item(device, testdev.FW_CFG_SIGNATURE, 4) == b"QEMU"
    assert item(device, testdev.FW_CFG_SIGNATURE, 2) == b"QE"  # selected anew, from its start
    assert item(device, 0x7777, 2) == b"\0\0"
    assert item(device, testdev.FW_CFG_NB_CPUS | testdev.FW_CFG_WRITE_CHANNEL, 1) == b"\x02"


def test_fw_cfg_cannot_be_written() -> None:
    device = FwCfg({1: b"\x01"})
    device.write(0, 2, 1)
    device.write(1, 1, 0xFF)
    assert device.read(1, 1) == 1
    assert device.read(0, 2) == 0
