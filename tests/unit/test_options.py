# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person may ask of a run: limits, parameters, and the sentences for what cannot be."""

from __future__ import annotations

import pytest

from vmm.errors import UsageError
from vmm.payload.header import Header, parse
from vmm.payload.options import MAX_TIMEOUT, check_timeout, parse_param

HEADER = parse("; param: count = 5\n; param: mask = 7", "x")


def test_parameters_are_the_headers_but_for_the_given() -> None:
    assert HEADER.given({}, "x") == {"count": 5, "mask": 7}
    assert HEADER.given({"mask": 0}, "x") == {"count": 5, "mask": 0}


def test_unknown_parameter() -> None:
    with pytest.raises(UsageError, match="no parameter of x is called 'cuont'; did you mean count"):
        HEADER.given({"cuont": 1}, "x")
    with pytest.raises(UsageError, match="x takes no parameters"):
        Header().given({"count": 1}, "x")


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 10, MAX_TIMEOUT])
def test_time_limits(seconds: float) -> None:
    assert check_timeout(seconds) == seconds


@pytest.mark.parametrize("seconds", [0, -0.0, -1, float("nan"), float("inf"), -float("inf"), MAX_TIMEOUT + 1])
def test_no_time_limits(seconds: float) -> None:
    with pytest.raises(UsageError, match="more than 0 and at most 86400 seconds"):
        check_timeout(seconds)


@pytest.mark.parametrize(
    ("text", "number"),
    [("n=16", 16), ("n=0x10", 16), ("n=0b1", 1), ("n=-1", -1), ("n=0xffffffffffffffff", 2**64 - 1), ("n= 7", 7),
     (f"n={-(2**63)}", -(2**63))],
)  # fmt: skip
def test_parameters(text: str, number: int) -> None:
    assert parse_param(text) == ("n", number)


@pytest.mark.parametrize("text", ["", "n", "n=", "=1", "n=x", "n=1.5", "n=0x", "n=1=2", "n=010", "n=" + "9" * 5000])
def test_no_parameters(text: str) -> None:
    with pytest.raises(UsageError, match="write NAME=NUMBER, for example count=16"):
        parse_param(text)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_parameters_beyond_64_bits(number: int) -> None:
    with pytest.raises(UsageError, match="does not fit in 64 bits"):
        parse_param(f"n={number}")
