# SPDX-License-Identifier: GPL-2.0-or-later
"""A few lines that ^C does not break in two: it takes effect behind them. It knows nothing of what they do."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Unbroken:
    """`with Unbroken(): ...` holds SIGINT's Python handler back until the end of the block.

    Python calls signal handlers on the main thread alone, so on any other this does nothing. The block should be short
    and must not wait for a person.
    """

    _before: Any = None
    _held: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._hold)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self._held is not None:
                self._before(*self._held)
