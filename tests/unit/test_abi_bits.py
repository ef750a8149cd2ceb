# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoding loses no bit; a bit field refuses what does not fit; look-ups by name help a mistyped one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.base import names
from vmm.base.bits import Bits, describe

TABLE = ((1 << 0, "LOW"), (3 << 4, "PAIR"), (1 << 31, "TOP"))


class Word:
    low = Bits(0, 4)
    flag = Bits(4)
    high = Bits(8, 8)

    def __init__(self, raw: int = 0) -> None:
        self.raw = raw


@given(st.integers(0, (1 << 64) - 1))
def test_describe_keeps_every_bit(value: int) -> None:
    masks = {name: mask for mask, name in TABLE}
    words = describe(value, TABLE).split("|")
    assert sum(masks[word] if word in masks else int(word, 16) for word in words) == value


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (1, "LOW"), (0x10, "0x10"), (0x31, "LOW|PAIR"), (0x80000002, "TOP|0x2")]
)
def test_describe(value: int, words: str) -> None:
    assert describe(value, TABLE) == words


@given(st.integers(0, 0xFFFF), st.integers(0, 15), st.integers(0, 255))
def test_fields_do_not_touch_each_other(raw: int, low: int, high: int) -> None:
    word = Word(raw)
    word.low, word.high = low, high
    assert (word.low, word.high, word.flag) == (low, high, raw >> 4 & 1)
    assert word.raw & 0xE0 == raw & 0xE0


@pytest.mark.parametrize("value", [16, -1])
def test_field_refuses_what_does_not_fit(value: int) -> None:
    word = Word(5)
    with pytest.raises(ValueError, match="does not fit in 4 bits"):
        word.low = value
    assert word.raw == 5


def test_nearest_names() -> None:
    known = ("SIGNAL_MSI", "SIGNAL_MASK", "XSAVE", "XSAVE2")
    assert names.nearest("signal_msl", known)[0] == "SIGNAL_MSI"
    assert names.nearest("save", known) == ["XSAVE", "XSAVE2"]
    assert names.unknown("thing", "XSAV", known) == "no thing is called 'XSAV'; did you mean XSAVE, XSAVE2?"
    assert names.nearest("xs", known) == []  # too short to look inside names
    assert names.unknown("thing", "zzzzzz", known) == "no thing is called 'zzzzzz'"
