# SPDX-License-Identifier: GPL-2.0-or-later
"""The plainest row of a table: one named number. Richer tables have a row type of their own.

Rows are named tuples, not dataclasses: a named tuple's class is made in a fifth of the time, and start-up is a feature.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple


class Named(NamedTuple):
    """One number by its full kernel name.

    `header` is the uapi header that has it, or None for a fact that no uapi header holds. `since` is the kernel release
    for one that the Linux 6.1 header lacks.
    """

    value: int
    name: str
    meaning: str
    since: str | None = None
    header: str | None = "linux/kvm.h"


def value_of(table: tuple[Named, ...], name: str) -> int:
    """The number with that kernel name; KeyError if the table has none."""
    for row in table:
        if row.name == name:
            return row.value
    raise KeyError(name)


def value_name(table: tuple[Named, ...], value: int) -> str:
    """The kernel's name of `value` in an enumeration, or the number itself as text."""
    return next((row.name for row in table if row.value == value), str(value))


def value_meaning(table: tuple[Named, ...], value: int) -> str:
    """What `value` means in an enumeration; an unknown one says its number."""
    return next((row.meaning for row in table if row.value == value), f"unknown value {value}")


def flag_names(table: tuple[Named, ...], value: int) -> str:
    """The set flags of `value` by name, joined by `|`; bits without a row stay as hex (see bits.describe)."""
    from vmm.base.bits import describe

    return describe(value, [(row.value, row.name) for row in table])
