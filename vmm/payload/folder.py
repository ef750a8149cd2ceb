# SPDX-License-Identifier: GPL-2.0-or-later
"""`--folder`: every guest of a run gets the system calls of vmm.machine.extra.syscalls on one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.machine.extra.folder import Folder
from vmm.machine.extra.syscalls import SyscallService
from vmm.payload.options import Watch

if TYPE_CHECKING:
    from vmm.payload.guest import Guest


def serve_folder(path: str, *, writable: bool) -> Watch:
    """What Options.watch takes. Each guest has its own open files, which end with it.

    Raises:
        HostError: it is no folder that can be opened; now, and not when the guest is made.
    """
    Folder(path).close()

    def watch(guest: Guest) -> None:
        folder = Folder(path, writable=writable)
        guest.on_close.append(folder.close)
        SyscallService(guest.machine, folder)

    return watch
