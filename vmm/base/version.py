# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pyvmm this is."""

from __future__ import annotations

import functools


def pyvmm_version() -> str:
    """The installed version; the metadata of a package is slow to read, so only --version asks for it. What was read
    once is known from then on: a process that gives up its files asks before.
    """
    from importlib.metadata import PackageNotFoundError

    try:
        return _installed()
    except (PackageNotFoundError, OSError):  # OSError: one who may not read it (docs_place.py)
        return "(not installed)"


@functools.cache
def _installed() -> str:
    from importlib.metadata import version

    return version("pyvmm")
