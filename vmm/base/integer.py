# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a value that somebody gives is a whole number. It knows no range and no message."""

from __future__ import annotations


def integer(value: object) -> int | None:
    """The plain int behind what says that it is an integer; None where nothing does. What __index__ raises
    goes through.
    """
    index = getattr(type(value), "__index__", None)
    if index is None:
        return None
    number: int = index(value)
    return int(number)
