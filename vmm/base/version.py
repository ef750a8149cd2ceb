# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pyvmm this is."""

from __future__ import annotations


def pyvmm_version() -> str:
    """The installed version; the metadata of a package is slow to read, so only --version asks for it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pyvmm")
    except (PackageNotFoundError, OSError):  # OSError: one who may not read it (docs_place.py)
        return "(not installed)"
