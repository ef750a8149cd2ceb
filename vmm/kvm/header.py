# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel's headers the binding was built with."""

from __future__ import annotations

from vmm.kvm._kvm import lib


def header_version() -> str:
    """LINUX_VERSION_CODE of linux/version.h at the build, as `6.1.187`; the third number ends at 255."""
    code: int = lib.LINUX_VERSION_CODE
    return f"{code >> 16}.{code >> 8 & 0xFF}.{code & 0xFF}"
