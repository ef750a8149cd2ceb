# SPDX-License-Identifier: GPL-2.0-or-later
"""The exit port: one signal per write, at every width."""

from __future__ import annotations

import pytest

from vmm.abi.ports import EXIT
from vmm.machine.bus.bus import port_bus
from vmm.machine.devices.exit_port import ExitPort


@pytest.mark.parametrize("data", [b"\x00", b"\x4d", b"\x4d\x01", b"\x01\x02\x03\x84"])
def test_a_write_signals_its_whole_value_once(data):
    stops: list[int] = []
    bus = port_bus(strict=True)
    bus.claim(EXIT, 1, ExitPort(stops.append))
    bus.write(EXIT, data)
    assert stops == [int.from_bytes(data, "little")]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_read_gives_zero_and_signals_nothing(size):
    stops: list[int] = []
    bus = port_bus()
    bus.claim(EXIT, 1, ExitPort(stops.append))
    assert bus.read(EXIT, size) == bytes(size)
    assert stops == []
