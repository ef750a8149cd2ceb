# SPDX-License-Identifier: GPL-2.0-or-later
"""An initial file system for a Linux guest, made of a static busybox, the drivers of virtio devices, and a first
process of ours (init.sh): it finds the machine's devices and gives a shell on the console, or runs a script and powers
off.

Bytes and names in, an archive out; it runs nothing and needs no privileges.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from vmm.abi.virtio import VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG
from vmm.errors import UsageError
from vmm.payload.linux.cpio import Archive
from vmm.payload.linux.modules import Modules

HERE = Path(__file__).parent
BUS = ("virtio_mmio",)
VIRTIO_ID_NET = 1
# The driver of each virtio device that pyvmm has; init loads those of the devices that are there.
DRIVERS = {
    VIRTIO_ID_NET: "virtio_net",
    VIRTIO_ID_BLOCK: "virtio_blk",
    VIRTIO_ID_CONSOLE: "virtio_console",
    VIRTIO_ID_RNG: "virtio_rng",
}
PT_INTERP = 3
FOLDERS = ("bin", "sbin", "dev", "etc", "lib", "proc", "root", "sys", "tmp", "var/run", "mnt")


def make(
    modules: Modules,
    busybox: bytes,
    *,
    script: bytes | None = None,
    extra: Mapping[str, tuple[bytes, int]] | None = None,
) -> bytes:
    """The archive. `script` runs in place of the shell; `extra` is path -> (contents, mode).

    Raises:
        UsageError: a driver is missing, or a path is there twice.
    """
    made = Archive()
    for folder in FOLDERS:
        made.folder(folder)
    made.device("dev/console", 5, 1)
    made.file("init", (HERE / "init.sh").read_bytes(), 0o755)
    made.file("bin/busybox", busybox, 0o755)
    made.file("bin/facts", (HERE / "facts.sh").read_bytes(), 0o755)
    made.file("etc/profile", (HERE / "profile.sh").read_bytes())
    _drivers(made, modules)
    if script is not None:
        made.file("run.sh", script, 0o755)
    for path, (data, mode) in (extra or {}).items():
        made.file(path, data, mode)
    return made.finish()


def _drivers(made: Archive, modules: Modules) -> None:
    lists = {"bus": modules.load_order(*BUS)}
    lists.update({f"virtio-{kind:#06x}": modules.load_order(name) for kind, name in DRIVERS.items()})
    for name in dict.fromkeys(name for names in lists.values() for name in names):
        made.file(f"lib/modules/{name}.ko", modules.data(name))
    for name, order in lists.items():
        made.file(f"lib/modules/{name}", "".join(f"{each}\n" for each in order).encode())


def check_static(data: bytes, name: str) -> bytes:
    """The same bytes. UsageError: not a program for x86-64 that runs without a loader and libraries."""
    why = _unfit(data)
    if why:
        raise UsageError(f"{name}: {why}", hint="a static busybox: Debian's package busybox-static")
    return data


def _unfit(data: bytes) -> str:
    try:
        if data[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", data, 18)[0] != 62:
            return "not a program for x86-64"
        at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
        kinds = [struct.unpack_from("<I", data, at + i * size)[0] for i in range(count)]
    except struct.error:
        return "a program that is cut off"
    return "a program that needs a loader and libraries, which the guest does not have" if PT_INTERP in kinds else ""
