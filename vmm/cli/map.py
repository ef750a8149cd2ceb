# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm map`: what lies where in a guest's memory, of a payload, an image, or a machine with nothing in it. No KVM."""

from __future__ import annotations

import argparse
import json
from typing import TextIO

from vmm.cli.run import boot_of
from vmm.cli.run_arguments import add_image_arguments
from vmm.errors import UsageError

MAX_MEMORY = 1 << 51


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "payload", nargs="?", metavar="PAYLOAD", help="a name of `pyvmm list`, the path of an .asm or .c file, an image"
    )
    parser.add_argument("--board", metavar="NAME", help="the hardware around its CPUs: own (the default), pc, testdev")
    parser.add_argument("--memory", metavar="SIZE", help="guest memory, for example 2M or 0x200000")
    parser.add_argument("--cpus", type=int, metavar="N", help="number of vCPUs")
    add_image_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.arguments import columns
    from vmm.cli.colour import style_for
    from vmm.report import guest_map

    doc = document(args)
    if args.json:
        out.write(json.dumps(doc, indent=2) + "\n")
    else:
        width = columns() if out.isatty() else 10_000  # a pipe cuts nothing
        out.write("\n".join(guest_map.lines(doc, style_for(args, out), width)) + "\n")
    return 0


def document(args: argparse.Namespace) -> dict[str, object]:
    """The map that was asked for.

    Raises:
        UsageError: no such payload or board, a memory that no machine can have.
        PayloadError: the source is wrong.
        ImageError: the image is damaged, or does not fit.
    """
    from vmm.machine.memory import layout
    from vmm.payload.catalog import find
    from vmm.report import guest_map
    from vmm.report.guest_map import Area

    board = guest_map.check_board("own" if args.board is None else args.board)
    payload = find(args.payload) if args.payload is not None else None
    count = args.cpus if args.cpus is not None else payload.header.cpus if payload else 1
    cpus = layout.check_cpus(count)
    memory = layout.parse_size(args.memory) if args.memory is not None else None
    boot = boot_of(args)
    if boot.named and (payload is None or payload.text is not None):
        what = "none is named" if payload is None else f"{payload.name} is assembly or C"
        raise UsageError(f"{boot.named} goes with an image or code without a header, and {what}")
    if payload is None or (payload.text is None and not payload.image and not boot.named):
        memory = checked(memory if memory is not None else layout.default_memory(cpus), cpus)
        code = layout.REGIONS["code"].base
        parts = [Area(code, len(payload.code or b""), payload.name, "image", "rwx", "raw code")] if payload else []
        areas = guest_map.own_areas(memory, cpus, parts, board=board)
    elif payload.text is None:
        from vmm.payload.images import BroughtImage
        from vmm.payload.options import Options

        brought = BroughtImage(payload, Options(boot=boot))
        asked, board = brought.machine(memory, cpus, args.board)
        guest_map.check_board(board)
        memory = checked(layout.parse_size(asked), cpus)
        areas = guest_map.image_areas(brought.image, memory, cpus, board, **brought.files)
    else:
        from vmm.payload.guest import assemble

        program = assemble(payload)
        given = payload.header.memory
        least = layout.default_memory(cpus)
        wanted = memory if memory is not None else layout.parse_size(given) if given else least
        memory = checked(wanted, cpus)
        size = max(len(program.code), 1)
        parts = [Area(program.base, size, payload.name, "image", "rwx", payload.header.summary or payload.file)]
        areas = guest_map.own_areas(memory, cpus, parts, board=board)
    subject = payload.name if payload else ""
    return guest_map.document(areas, subject=subject, board=board, memory=memory, cpus=cpus)


def checked(memory: int, cpus: int) -> int:
    """Bytes of RAM that a machine can have, also such as this host has not. UsageError: none can."""
    from vmm.machine.memory import layout

    if memory > MAX_MEMORY:
        raise UsageError(f"memory of {layout.format_size(memory)}: guest-physical addresses have 52 bits")
    return layout.check_memory(memory, cpus, MAX_MEMORY)
