# SPDX-License-Identifier: GPL-2.0-or-later
"""Landlock's rights, each with the version of its ABI that brought it. It knows no file.

Source: <linux/landlock.h>; Documentation/userspace-api/landlock.rst, "Compatibility" and "Access rights".
"""

from __future__ import annotations

Right = tuple[str, int, int]
"""(name, bit of `handled_access_fs`, `handled_access_net` or `scoped`, version of the ABI)"""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15

FILES = (
    ("LANDLOCK_ACCESS_FS_EXECUTE", EXECUTE, 1),
    ("LANDLOCK_ACCESS_FS_WRITE_FILE", WRITE_FILE, 1),
    ("LANDLOCK_ACCESS_FS_READ_FILE", READ_FILE, 1),
    ("LANDLOCK_ACCESS_FS_READ_DIR", READ_DIR, 1),
    ("LANDLOCK_ACCESS_FS_REMOVE_DIR", 1 << 4, 1),
    ("LANDLOCK_ACCESS_FS_REMOVE_FILE", 1 << 5, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_CHAR", 1 << 6, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_DIR", 1 << 7, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_REG", 1 << 8, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_SOCK", 1 << 9, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_FIFO", 1 << 10, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_BLOCK", 1 << 11, 1),
    ("LANDLOCK_ACCESS_FS_MAKE_SYM", 1 << 12, 1),
    ("LANDLOCK_ACCESS_FS_REFER", 1 << 13, 2),
    ("LANDLOCK_ACCESS_FS_TRUNCATE", TRUNCATE, 3),
    ("LANDLOCK_ACCESS_FS_IOCTL_DEV", IOCTL_DEV, 5),
)
NETWORK = (
    ("LANDLOCK_ACCESS_NET_BIND_TCP", 1 << 0, 4),
    ("LANDLOCK_ACCESS_NET_CONNECT_TCP", 1 << 1, 4),
)
SCOPES = (
    ("LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET", 1 << 0, 6),
    ("LANDLOCK_SCOPE_SIGNAL", 1 << 1, 6),
)


def known(table: tuple[Right, ...], abi: int) -> int:
    """All bits of a table that this ABI has."""
    return sum(value for _, value, since in table if since <= abi)
