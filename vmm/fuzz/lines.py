# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of some Python files are run one after the other: the coverage of a target that is pyvmm's own code.

By sys.settrace, which every Python that pyvmm runs on has, and which costs nothing in files that are not asked for:
their frames get no local trace function. sys.monitoring (Python 3.12) is cheaper for whoever wants each line once, but
pairs of lines need every event. What coverage.py or a debugger had set is set again afterwards.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Collection
from types import CodeType, FrameType
from typing import Any

MOST_LINES = 2_000_000
"""An input that makes a target run more of them hangs: a limit by what is done, and not by a clock."""


class Endless(BaseException):
    """The input makes the target run on and on. A BaseException, so that no `except Exception` of a target takes it."""


class Lines:
    """`with lines:` around a call; `seen` are numbers of pairs of lines, the same in every process. In `closely` it is
    pairs of bytecodes, so that each part of a condition counts, which takes several times as long.
    """

    def __init__(self, files: Collection[str], most: int = MOST_LINES, closely: Collection[str] = ()) -> None:
        self._files, self._closely, self._most = frozenset(files), frozenset(closely), most
        self._codes: dict[CodeType, int] = {}
        self.seen: set[int] = set()
        self._last = self._left = 0
        self._before: Any = None

    def __enter__(self) -> None:
        self.seen = set()
        self._last, self._left = 0, self._most
        self._before = sys.gettrace()
        sys.settrace(self._called)

    def __exit__(self, *_error: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        number = self._codes.get(code)
        if number is None:
            ours = code.co_filename in self._files
            number = zlib.crc32(f"{code.co_filename}:{code.co_qualname}".encode()) << 20 if ours else 0
            self._codes[code] = number
        if not number:
            return None
        if code.co_filename in self._closely:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def traced(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line" or event == "opcode":
                here = number + (frame.f_lineno if event == "line" else frame.f_lasti)
                self.seen.add(self._last * 31 ^ here)
                self._last = here
                self._left -= 1
                if self._left < 0:
                    raise Endless
            return traced

        return traced
