# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm disasm`: the listing of a payload, or the disassembly of raw code."""

from __future__ import annotations

import argparse
from typing import TextIO

from vmm.cli import warn
from vmm.errors import UsageError
from vmm.payload.catalog import find
from vmm.payload.guest import assemble
from vmm.report.style import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "payload", metavar="PAYLOAD", help="a name of `pyvmm list`, or the path of an .asm, .c or .bin file"
    )
    parser.add_argument("--bits", type=int, choices=(16, 32, 64), help="how to decode a raw binary (64)")
    parser.add_argument(
        "--elf-out", metavar="FILE", help="also write it as an ELF file with symbols and source lines, for gdb, objdump"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    payload = find(args.payload)
    if args.bits is not None and payload.text is not None:
        warn.ignored("--bits", "the source says it (.code16, .code32, .code64)")
    if args.elf_out:
        from vmm.cli import elf_out

        elf_out.write(payload, args.elf_out)
    if payload.image:
        raise UsageError(f"{payload.file} has a header of its own", hint=f"`objdump -d {payload.file}`, of an ELF file")
    program = assemble(payload)
    if payload.in_c:
        from vmm.payload.c.listing import render_compiled

        out.write(printable(render_compiled(program)))
        return 0
    if payload.text is not None:
        from vmm.asm.listing import render

        out.write(printable(render(program)))
        return 0
    from vmm.asm.disassembler import disassemble

    for row in disassemble(program.code, program.base, bits=args.bits or 64):
        print(f"{row.address:#8x}  {row.bytes.hex(' ').ljust(30)}  {row.text}", file=out)
    return 0
