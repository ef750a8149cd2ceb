# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings of the library as the command says things: a line on stderr, without file and line of ours."""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

from vmm.errors import NotTaken


def tell() -> None:
    """From here on, each request that did not take effect is said, once for the same text."""
    warnings.simplefilter("default", NotTaken)
    warnings.showwarning = _show


def ignored(option: str, why: str) -> None:
    """Say that an option has no effect here; what is asked for is done all the same."""
    if sys.stderr is not None:
        print(f"pyvmm: {option} has no effect: {why}", file=sys.stderr)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if sys.stderr is not None:
        print(f"pyvmm: {message}" if category is NotTaken else f"{category.__name__}: {message}", file=sys.stderr)
