# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's firmware configuration device by its ports: items by number, read byte by byte. It knows no item's meaning.

Source: QEMU, docs/specs/fw_cfg.rst: the selector register takes 16 bits and begins the item anew, the data register
gives its next byte and 0 behind its end; an item that is not there is empty. The DMA interface is not here, and the
item FW_CFG_ID says so.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vmm.abi.testdev import FW_CFG_WRITE_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = 1  # offset of the data register from the selector


class FwCfg:
    """Claims two ports. `items` are bytes by key."""

    name = "fw_cfg"

    def __init__(self, items: Mapping[int, bytes]) -> None:
        self.items = dict(items)
        self._key, self._at = 0, 0
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> int:
        """The item's next byte, from the data register; a wider access has one byte too. The selector reads 0."""
        if offset != DATA:
            return 0
        with self._lock:
            item, at = self.items.get(self._key, b""), self._at
            self._at += 1
        return item[at] if at < len(item) else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item. What is written to the data register is dropped: no item can be written."""
        if offset == DATA:
            return
        with self._lock:
            self._key, self._at = value & 0xFFFF & ~FW_CFG_WRITE_CHANNEL, 0
