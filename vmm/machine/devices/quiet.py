# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody, on purpose: where a guest may ask whether a device is there. Reads give all ones, as an idle bus does."""

from __future__ import annotations


class Quiet:
    """Claims what its name is asked for at; what is written is dropped, and nothing counts as unclaimed."""

    def __init__(self, name: str) -> None:
        self.name = f"no {name}"

    def read(self, offset: int, size: int) -> int:
        """All ones."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""
