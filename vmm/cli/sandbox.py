# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --sandbox`: after its machine is made, and before it runs, the process gives up what it does not need.

An image, which nobody can read, is run so by default. It knows which options need more than is left; what is given up
is vmm/sandbox's. docs/sandbox.md.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from vmm.base.record import replace
from vmm.errors import UsageError
from vmm.payload.options import both

if TYPE_CHECKING:
    import argparse

    from vmm.payload.catalog import Payload
    from vmm.payload.guest import AnyGuest
    from vmm.payload.options import Options

NODES = ("/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/null", "/dev/tty")
NEEDS_MORE = {
    "gdb": ("--gdb", "a debugger may read and write whatever the process can, and listens"),
    "watch": ("--watch", "to run it again takes what was given up"),
    "snapshot_out": ("--snapshot-out", "its file is made while the guest runs"),
    "folder_rw": ("--folder-rw", "files are opened and created while the guest runs"),
}


def sandboxed(args: argparse.Namespace, payload: Payload) -> bool:
    """Whether this run gives anything up: `--sandbox`; without a word an image or raw code, where the process is the
    command's own. Where such a one cannot for another option, that is said on standard error.

    Raises:
        UsageError: `--sandbox`, and an option or a payload that needs more than is left.
    """
    if not args.sandbox and not getattr(sys.modules["vmm.cli"], "own_process", False):
        return False
    why = _needs_more(args, payload)
    if args.sandbox:
        if why:
            raise UsageError(f"--sandbox and {why[0]}: {why[1]}", hint="one of them; `pyvmm docs sandbox#runs`")
        return True
    if why and sys.stderr is not None:
        print(f"pyvmm: not sandboxed, for {why[0]}: {why[1]}", file=sys.stderr, flush=True)
    return why is None


def _needs_more(args: argparse.Namespace, payload: Payload) -> tuple[str, str] | None:
    for name, why in NEEDS_MORE.items():
        if getattr(args, name) is not None and getattr(args, name) is not False:
            return why
    half = payload.host_half()
    if half and half.prove:
        return payload.name, "its host half makes the machines itself, one after the other"
    return None


def around(args: argparse.Namespace, payload: Payload, options: Options) -> Options:
    """Options whose `watch` gives it all up, before whoever watches afterwards. An image is read in a child first.

    Devices have threads from their making on, and landlock holds for a thread and those that it makes: so files that no
    option names are given up before.
    """

    def enter(guest: AnyGuest) -> None:
        from vmm.sandbox.enter import enter

        for missing in enter([args.folder] if args.folder else ()):
            if sys.stderr is not None:
                print(f"pyvmm: the sandbox is not whole: {missing}", file=sys.stderr, flush=True)

    if options.devices or payload.header.devices:
        options = replace(options, before=partial(_before_devices, args, payload, options))
    return replace(options, apart=payload.image, watch=both(options.watch, enter))


def _before_devices(args: argparse.Namespace, payload: Payload, options: Options) -> None:
    """What making the machine and its devices needs, and no other file."""
    from vmm.sandbox.enter import no_more_files

    folder = os.path.dirname(payload.file)
    own = [os.path.join(folder, given) for _, given in payload.header.devices if given]
    disks = [text if os.path.exists(text) else text.partition(",")[0] for text in options.disks]
    own += [args.from_snapshot] if args.from_snapshot else []
    no_more_files(["/sys/module", "/proc/self/fd", *([args.folder] if args.folder else ())], [*disks, *own, *NODES])
