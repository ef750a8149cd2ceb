# SPDX-License-Identifier: GPL-2.0-or-later
"""Framing of the gdb remote protocol, and what gdb is told as XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.debug.gdb import registers, target_xml
from vmm.debug.gdb.commands import _number
from vmm.debug.gdb.packets import MOST, Decoder, Packet, Sign, encode, escape, unescape


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_go_through_however_they_are_cut(data: bytes, size: int) -> None:
    decoder, whole = Decoder(), encode(data)
    found = [each for at in range(0, len(whole), size) for each in decoder.feed(whole[at : at + size])]
    assert found == [Packet(data)]
    assert unescape(escape(data)) == data


@given(st.binary(max_size=2000))
def test_garbage_gives_packets_and_signs_and_keeps_no_more_than_one_packet(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    decoder.feed(b"#00#00")
    assert decoder.feed(encode(b"?"))[-1] == Packet(b"?")


def test_a_wrong_checksum_and_what_is_too_long_are_told() -> None:
    decoder = Decoder()
    assert decoder.feed(b"+$g#00") == [Sign("+"), Sign("bad")]
    assert decoder.feed(b"$g#zz") == [Sign("bad")]
    assert decoder.feed(encode(b"m" * MOST)) == [Packet(b"m" * MOST)]
    assert decoder.feed(b"$" + b"m" * 10 * MOST + b"#00") == [Sign("long")]
    assert decoder.feed(b"\x03-") == [Sign("\x03"), Sign("-")]
    assert decoder.feed(b"$g$g#67") == [Packet(b"g")]  # a new begin takes the place of one that never ended


def test_the_target_description_is_xml_with_every_register_once() -> None:
    rows = [
        registers.Register("rip", 64, "code_ptr", registers.CORE),
        registers.Register("xmm0", 128, "vec128", registers.SSE),
        registers.Register("cr3", 64, "int64", registers.CONTROL, "system"),
    ]
    root = ElementTree.fromstring(target_xml.target(rows).split("\n", 2)[2])
    assert [each.get("name") for each in root.iter("reg")] == ["rip", "xmm0", "cr3"]
    assert root.findtext("architecture") == "i386:x86-64"


def test_the_memory_map_has_all_addresses_and_what_is_read_only() -> None:
    root = ElementTree.fromstring(target_xml.memory_map([(0x1000, 0x1000)]))
    rows = [(each.get("type"), int(each.get("start", ""), 0), int(each.get("length", ""), 0)) for each in root]
    assert rows == [("ram", 0, 0x1000), ("rom", 0x1000, 0x1000), ("ram", 0x2000, (1 << 64) - 1 - 0x2000)]


def test_x87_tags_as_the_processor_has_them() -> None:
    area = bytearray(4096)
    assert registers._full_tags(area) == 0xFFFF
    area[4] = 0b111  # three are not empty: zero, one, infinity
    area[48:58] = bytes(7) + b"\x80\xff\x3f"
    area[64:74] = bytes(7) + b"\x80\xff\x7f"
    assert registers._full_tags(area) == 0xFFFF & ~0x3F | 0b100001


@pytest.mark.parametrize("text", ["", "-1", "xyz", "1" * 17, "0x10", " 1", "1 "])
def test_a_number_is_hexadecimal_or_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$"):
        _number(text)
