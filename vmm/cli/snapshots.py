# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --snapshot-out FILE` and `--from-snapshot FILE`: which options go with them, and what is said of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vmm.base.record import replace
from vmm.cli.files import OutputFile, check_outputs
from vmm.errors import EXIT_FAIL, UsageError
from vmm.payload import snapshots

if TYPE_CHECKING:
    import argparse

    from vmm.payload.catalog import Payload
    from vmm.payload.options import Options

ITS_OWN = {
    "cpus": "--cpus", "memory": "--memory", "board": "--board", "param": "--param", "mask": "--mask",
    "expose": "--expose", "strict": "--strict", "rng": "--rng", "virtio_console": "--virtio-console",
    "kernel_args": "--kernel-args", "initrd": "--initrd", "module": "--module", "base": "--base", "entry": "--entry",
    "mode": "--mode", "protocol": "--protocol", "elf_out": "--elf-out",
}  # fmt: skip
"""Options that a snapshot has answered."""


def begin(args: argparse.Namespace) -> None:
    """With --from-snapshot: the payload that it is of, where none is named.

    Raises:
        UsageError: an option would change what is in it; the file is damaged, or says nothing of a payload.
        HostError: it cannot be read.
    """
    from vmm.machine import snapshot_file

    given = next((option for name, option in ITS_OWN.items() if getattr(args, name)), None)
    if given:
        raise UsageError(f"{given} and --from-snapshot: the machine is as the snapshot has it", hint=f"without {given}")
    args.about = snapshot_file.about(args.from_snapshot)
    if args.payload is None:
        args.payload = args.about.get("payload")
    if not isinstance(args.payload, str):
        raise UsageError(
            f"{args.from_snapshot} does not say what it is a snapshot of",
            hint="Machine.load_snapshot starts it from Python",
        )


def going_on(args: argparse.Namespace, options: Options) -> Options:
    """With --from-snapshot: the options, with those that its machine was made with."""
    return snapshots.options_for(args.from_snapshot, args.about, options)


def kept(args: argparse.Namespace, payload: Payload, options: Options) -> tuple[Options, snapshots.Keeper]:
    """With --snapshot-out: options whose run leaves it, and who does it.

    Raises:
        UsageError: the payload makes its machines itself; the file cannot be written, or is a source.
    """
    half = payload.host_half()
    if half and half.prove:
        raise UsageError(f"--snapshot-out: the host half of {payload.name} makes its machines itself")
    if args.gdb is not None:
        raise UsageError("--snapshot-out and --gdb: a debugger says where the guest stands", hint="one of them")
    check_outputs({"--snapshot-out": args.snapshot_out}, [payload.file])
    OutputFile(args.snapshot_out).discard()  # nothing is run for a file that cannot be
    keeper = snapshots.Keeper(args.snapshot_out, args.snapshot_at or snapshots.END, snapshots.about(payload, options))
    args.keeper = keeper
    return replace(options, runs=keeper.run), keeper


def told(keeper: snapshots.Keeper, status: int) -> int:
    """Say on standard error what became of it; the exit status, which is that of a failure where there is none."""
    if keeper.size is not None:
        text = f"snapshot {keeper.path}: {keeper.size} bytes, at {keeper.when}"
    else:
        text = f"no snapshot: {_missing(keeper)}"
    if sys.stderr is not None:
        print(f"pyvmm: {text}", file=sys.stderr, flush=True)
    return _status(keeper, status)


def document(args: argparse.Namespace, status: int) -> dict[str, Any]:
    """What --json says of them: `from_snapshot`, and `snapshot` with the exit status that comes of it; `status` is the
    run's own.
    """
    found: dict[str, Any] = {}
    if args.from_snapshot is not None:
        found["from_snapshot"] = args.from_snapshot
    if args.snapshot_out is not None:
        keeper = args.keeper
        reason = _missing(keeper) if keeper.size is None else ""
        found["snapshot"] = {"file": keeper.path, "at": keeper.when, "bytes": keeper.size, "reason": reason}
        found["exit_code"] = _status(keeper, status)
    return found


def _missing(keeper: snapshots.Keeper) -> str:
    return f"the run ended before it came to {keeper.when}: {keeper.ended or 'it was not run'}"


def _status(keeper: snapshots.Keeper, status: int) -> int:
    return status if keeper.size is not None else status or EXIT_FAIL
