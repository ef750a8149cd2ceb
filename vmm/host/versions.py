# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report of a fault begins with: the versions of pyvmm and of all that it stands on. Nothing is run for it.

Packages by what pip calls them, from their metadata, so that the answer is that of `pip list` and comes also where a
library cannot be loaded.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from vmm.base.version import pyvmm_version

PACKAGES = {"cffi": "cffi", "keystone": "keystone-engine", "capstone": "capstone"}


@dataclass(frozen=True, slots=True)
class Versions:
    """Each as its maker writes it; None is not here. `kernel_header` is that of the build (LINUX_VERSION_CODE of
    linux/version.h, whose third number ends at 255), `kernel` the release that runs, as uname(2) tells it.
    """

    pyvmm: str
    kernel_header: str | None
    kernel: str
    cffi: str | None
    keystone: str | None
    capstone: str | None
    python: str
    libc: str | None


def versions() -> Versions:
    """Look them up. Raises nothing."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = None  # not the GNU C library
    return Versions(
        pyvmm=pyvmm_version(),
        kernel_header=_header(),
        kernel=os.uname().release,
        **{name: _package(package) for name, package in PACKAGES.items()},
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libc=libc,
    )


def _package(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except (PackageNotFoundError, OSError):
        return None


def _header() -> str | None:
    """Of the binding; None where that has not been built, or cannot be loaded."""
    try:
        from vmm.kvm.header import header_version
    except ImportError:
        return None
    return header_version()
