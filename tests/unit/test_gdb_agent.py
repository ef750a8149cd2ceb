# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent expressions: by bytecodes written down from the manual's tables, and none ends in anything but a number or an
error of ours."""

from __future__ import annotations

import random

import pytest

from vmm.debug.gdb.agent import DEEPEST, MOST_STEPS, conditions, evaluate
from vmm.errors import VmmError

REGISTERS = {0: 5, 1: (1 << 64) - 3}
MEMORY = bytes(range(1, 33))


def value(code: str) -> int:
    return evaluate(bytes.fromhex(code), REGISTERS.__getitem__, lambda at, size: MEMORY[at : at + size])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("260000 1640 2232 13 27", 0),  # $rax == 50
        ("260000 2205 13 27", 1),
        ("260001 2200 14 27", 1),  # signed less: -3 < 0
        ("260001 2200 15 27", 0),  # unsigned
        ("2203 19 27", 0x07060504),
        ("2201 1a 27", 0x0908070605040302),
        ("2202 18 2a08 27", 3),  # zero_ext 8
        ("22ff 1608 27", (1 << 64) - 1),  # ext 8
        ("230102 27", 0x102),  # big-endian
        ("2401020304 27", 0x1020304),
        ("250102030405060708 27", 0x102030405060708),
        ("2207 2202 03 27", 5),
        ("260001 2202 05 27", (1 << 64) - 1),  # -3 / 2 as C does
        ("260001 2202 07 27", (1 << 64) - 1),
        ("2207 2202 06 27", 3),
        ("2207 2202 08 27", 1),
        ("2201 2203 09 27", 8),
        ("260001 2201 0a 27", (1 << 64) - 2),
        ("2208 2201 0b 27", 4),
        ("2200 0e 27", 1),
        ("2200 12 27", (1 << 64) - 1),
        ("2201 2202 2203 33 29 27", 1),  # rot brings the top below: 3 1 2
        ("2201 2202 2b 27", 1),
        ("2209 2202 3201 27", 9),
        ("2201 20 0008 2209 27 2208 27", 8),  # if_goto to the second constant
        ("2200 20 0008 2209 27 2208 27", 9),
        ("2204 28 04 27", 16),
    ],
)
def test_a_value(code: str, expected: int) -> None:
    assert value(code) == expected


@pytest.mark.parametrize(
    "code", ["", "27", "22", "2201", "02 27", "01 27", "ff", "2201 2200 06 27", "210000", "2201 28 21 0002"]
)
def test_what_has_no_value_is_an_error(code: str) -> None:
    with pytest.raises(VmmError, match="condition"):
        value(code)


def test_a_stack_has_a_depth() -> None:
    """Each constant is kept until the end: what a client sends must not decide how much."""
    assert value("2201" * DEEPEST + "27") == 1
    with pytest.raises(VmmError, match="does not come to its end"):
        value("2201" * (DEEPEST + 1) + "27")


def test_an_operand_that_is_cut_off_is_not_read_as_a_shorter_one() -> None:
    """The last GOTO has one byte of two: 3, were it read, is where an END is."""
    assert value("210004 27 2207 210003") == 7
    with pytest.raises(VmmError, match="cannot be read"):
        value("210004 27 2207 2103")


def test_any_bytes_give_a_number_or_an_error_soon() -> None:
    rng = random.Random(1)
    asked = []

    def memory(at: int, size: int) -> bytes:
        asked.append(at)
        return bytes(size)

    for _ in range(3000):
        code = bytes(rng.choice((rng.randrange(256), rng.randrange(0x35))) for _ in range(rng.randrange(24)))
        try:
            found = evaluate(code, lambda number: number, memory)
        except VmmError:
            continue
        assert 0 <= found < 1 << 64
    assert asked
    assert MOST_STEPS <= 10_000


def test_conditions_of_a_packet() -> None:
    assert conditions("") == []
    assert conditions("X2,2227;X1,27") == [b"\x22\x27", b"\x27"]
    for wrong in ("X", "X1", "X1,", "X2,22", "X0,", "Xffffffff,27", "Xzz,27", "Y1,27", "cmds:1,X1,27"):
        with pytest.raises(ValueError, match=r".*"):
            conditions(wrong)
