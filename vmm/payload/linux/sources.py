# SPDX-License-Identifier: GPL-2.0-or-later
"""What an initial file system is made of, found on a disk: the folder of a kernel's modules, a busybox, files to add.

It opens files and makes errors of what it finds; what is made of them, initramfs.py knows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from vmm.abi import bootparam
from vmm.base.nearby import to_try
from vmm.errors import UsageError, os_reason
from vmm.machine.images.bzimage import is_bzimage
from vmm.payload.linux.modules import Modules, folders

BUSYBOX = ("bin/busybox", "usr/bin/busybox", "bin/busybox-static", "usr/bin/busybox-static")


def find_modules(root: Path, release: str | None) -> Modules:
    """The modules of the kernel `release`, of the only one that is there, or of the running one.

    Raises:
        UsageError: there is none, or one of several would have to be guessed.
    """
    found = {folder.name: folder for folder in folders(root)}
    if not found:
        raise UsageError(
            f"no modules of a kernel below {root} (lib/modules/RELEASE)",
            hint="an unpacked linux-image package: `dpkg-deb -x linux-image-RELEASE.deb FOLDER`",
        )
    if release is None:
        release = next(iter(found)) if len(found) == 1 else os.uname().release
    if release not in found:
        raise UsageError(f"no modules of Linux {release} below {root}: {', '.join(found)}", hint="--kernel vmlinuz")
    return Modules(found[release])


def release_of(data: bytes, name: str) -> str:
    """What uname will say, by the setup header of a bzImage. UsageError: it is none, or does not say it."""
    field = bootparam.SETUP_HEADER.field("kernel_version")
    at = bootparam.SETUP_HEADER_OFFSET + field.offset
    where = int.from_bytes(data[at : at + field.size], "little")
    if not is_bzimage(data) or not where:
        raise UsageError(f"{name}: no bzImage that says its release", hint="vmlinuz of the same package as the modules")
    text = data[where + 0x200 : where + 0x300].partition(b"\0")[0]
    return text.decode("latin-1").split(" ", 1)[0]


def find_busybox(root: Path) -> Path:
    """A busybox below a root, or below this machine's. UsageError: there is none, or no such root."""
    try:
        os.scandir(root).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"looking below {root}: {os_reason(error)}", to_try(error, root)) from error
    found = next((base / name for base in (root, Path("/")) for name in BUSYBOX if (base / name).is_file()), None)
    if found is None:
        raise UsageError(f"no busybox below {root}", hint="Debian's package busybox-static, or `--busybox FILE`")
    return found


def read(path: Path) -> bytes:
    """A whole file. UsageError: it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"reading {str(path)!r}: {os_reason(error)}") from error


def added(words: Iterable[str]) -> dict[str, tuple[bytes, int]]:
    """`FILE` or `FILE=PATH` -> the path in the guest, with contents and mode. UsageError: as `read`."""
    files = {}
    for word in words:
        name, _, target = word.partition("=")
        path = Path(name)
        data = read(path)
        files[target or path.name] = data, stat.S_IMODE(path.stat().st_mode)
    return files
