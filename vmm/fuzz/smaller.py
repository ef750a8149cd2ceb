# SPDX-License-Identifier: GPL-2.0-or-later
"""The shortest and plainest input that still does the same: blocks taken out, then bytes made zero."""

from __future__ import annotations

from collections.abc import Callable

TRIES = 2000


def smaller(data: bytes, same: Callable[[bytes], bool], tries: int = TRIES, row: int = 1) -> bytes:
    """`data` made smaller as long as `same` holds of it; `same` is asked at most `tries` times. What is taken out are
    whole rows of `row` bytes.
    """
    left = tries

    def holds(candidate: bytes) -> bool:
        nonlocal left
        left -= 1
        return same(candidate)

    data += bytes(-len(data) % row)  # what is missing of a row could not be changed later
    size = row
    while 4 * size <= len(data):
        size *= 2
    while left > 0:
        at, before = 0, len(data)
        while at < len(data) and left > 0:
            candidate = data[:at] + data[at + size :]
            if holds(candidate):
                data = candidate
            else:
                at += size
        if size == row and len(data) == before:
            break
        size = max(row, size // 2)
    for at in range(len(data)):
        if left <= 0:
            break
        if data[at] and holds(candidate := data[:at] + b"\0" + data[at + 1 :]):
            data = candidate
    return data
