# SPDX-License-Identifier: GPL-2.0-or-later
"""The sink of a guest's text and the debug console in front of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.errors import EXIT_FAIL, UsageError
from vmm.machine.bus.bus import port_bus
from vmm.machine.devices.console import DebugConsole
from vmm.machine.devices.sink import DEFAULT_LIMIT, OutputLimit, Sink


def test_bytes_reach_the_sink_in_order():
    sink, bus = Sink(), port_bus()
    bus.claim(DEBUG_CONSOLE, 1, DebugConsole(sink))
    bus.write_string(DEBUG_CONSOLE, 1, b"hello\n")
    bus.write(DEBUG_CONSOLE, b"abcd")
    bus.write(DEBUG_CONSOLE, b"\x00\x01")
    assert sink.data == b"hello\nabcd\x00\x01"
    assert bus.unclaimed.total == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_guest_can_probe_for_the_console(size):
    assert DebugConsole(Sink()).read(0, size) == 0xE9


@given(st.lists(st.binary(max_size=6)), st.integers(0, 20))
def test_a_sink_keeps_exactly_its_limit_and_then_raises(pieces, limit):
    seen: list[bytes] = []
    sink = Sink(limit, seen.append)
    offered = b""
    for piece in pieces:
        offered += piece
        if len(offered) <= limit or not piece:
            sink.write(piece)
        else:
            with pytest.raises(OutputLimit):
                sink.write(piece)
        assert sink.data == offered[:limit] == b"".join(seen)
    assert b"" not in seen


def test_the_limit_is_named_and_fails_the_guest():
    with pytest.raises(OutputLimit, match="more than 2,000 bytes of output\n  try: ") as caught:
        Sink(2000).write(bytes(2001))
    assert (caught.value.limit, caught.value.exit_code) == (2000, EXIT_FAIL)


def test_there_is_a_limit_unless_asked_otherwise():
    sink = Sink()
    assert sink.limit == DEFAULT_LIMIT == 1 << 20
    sink.write(bytes(DEFAULT_LIMIT))
    with pytest.raises(OutputLimit):
        sink.write(b"x")


def test_a_negative_limit_is_refused():
    with pytest.raises(UsageError, match="-1 bytes"):
        Sink(-1)


def test_two_devices_share_one_limit():
    sink = Sink(3)
    first, second = DebugConsole(sink), DebugConsole(sink)
    first.write(0, 2, 0x6261)
    with pytest.raises(OutputLimit):
        second.write(0, 2, 0x6463)
    assert sink.data == b"abc"


def test_live_output_may_look_at_what_was_taken():
    sizes: list[int] = []
    sink = Sink(live=lambda piece: sizes.append(len(sink.data)))
    sink.write(b"ab")
    sink.write(b"c")
    assert sizes == [2, 3]


def test_what_live_output_raises_goes_through():
    def closed(_: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Sink(live=closed).write(b"x")
