# SPDX-License-Identifier: GPL-2.0-or-later
"""Where pyvmm keeps what it can make again: what the assembler made, and prepared guests."""

from __future__ import annotations

import os


def folder() -> str:
    """$PYVMM_CACHE, else $XDG_CACHE_HOME/pyvmm, else ~/.cache/pyvmm. Raises OSError without a home."""
    if own := os.environ.get("PYVMM_CACHE"):
        return own
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return os.path.join(xdg, "pyvmm")
    home = os.path.expanduser("~")
    if home.startswith("~"):
        raise OSError("no home directory is known")
    return os.path.join(home, ".cache", "pyvmm")
