# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor's bits: decoded whole, named rightly, in words for a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import x86


@given(st.integers(0, (1 << 64) - 1), st.sampled_from([x86.CR0, x86.CR4, x86.EFER, x86.RFLAGS, x86.PTE, x86.PF]))
def test_describe_keeps_every_bit(value: int, flags: type) -> None:
    total = 0
    for word in x86.describe_flags(value, flags).split("|"):
        if word.startswith("IOPL="):
            total |= int(word[5:]) << 12
        else:
            total |= dict(map(reversed, x86.flag_rows(flags))).get(word) or int(word, 16)
    assert total == value


def test_describe() -> None:
    assert x86.describe_flags(0x80000011, x86.CR0) == "PE|ET|PG"
    assert x86.describe_flags(0x202, x86.RFLAGS) == "FIXED|IF"
    assert x86.describe_flags(0x3202, x86.RFLAGS) == "FIXED|IF|IOPL=3"
    assert x86.describe_flags(0x1000, x86.RFLAGS) == "IOPL=1"
    assert x86.describe_flags(1 << 40 | 0x1000, x86.RFLAGS) == "0x10000000000|IOPL=1"
    assert x86.describe_flags(0, x86.EFER) == "0"


def test_exceptions() -> None:
    assert set(x86.HAS_ERROR_CODE) == {8, 10, 11, 12, 13, 14, 17, 21, 29, 30}
    assert x86.vector_name(14) == "#PF (page fault)"
    assert x86.vector_name(2) == "NMI (non-maskable interrupt)"
    assert x86.vector_name(0x40) == "vector 0x40"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0, "supervisor read from a page that is not present"),
        (0x6, "user write to a page that is not present"),
        (0x7, "user write to a present page that does not allow it"),
        (0x11, "supervisor instruction fetch from a present page that does not allow it"),
        (0x9, "supervisor read from a page whose entry has a reserved bit set"),
        (0x25, "user read from a page whose protection key forbids it"),
        (0x8005, "user read from a present page that does not allow it (SGX)"),
        (0x105, "user read from a present page that does not allow it (0x100)"),
        (1 << 34 | 5, "user read from a present page that does not allow it (0x400000000)"),
    ],
)
def test_page_fault_words(code: int, words: str) -> None:
    assert x86.page_fault_words(code) == words


def test_sysret_finds_the_user_segments() -> None:
    base = x86.STAR_VALUE >> 48 & 0xFFFF
    assert (base + 16 | 3, base + 8 | 3) == (x86.USER_CS, x86.USER_DS)
    assert x86.STAR_VALUE >> 32 & 0xFFFF == x86.KERNEL_CS
    assert x86.KERNEL_CS + 8 == x86.KERNEL_DS
