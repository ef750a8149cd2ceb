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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmm.asm.program import Program
    from vmm.payload.catalog import Payload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "payload", metavar="PAYLOAD", help="a name of `pyvmm list`, or the path of an .asm, .c or .bin file"
    )
    parser.add_argument("--bits", type=int, choices=(16, 32, 64), help="how to decode a raw binary (64)")
    parser.add_argument(
        "--elf-out", metavar="FILE", help="also write it as an ELF file with symbols and source lines, for gdb, objdump"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document (schema 1)")


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
    if args.json:
        import json

        out.write(json.dumps(document(payload, program, args.bits or 64), indent=2) + "\n")
        return 0
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


def document(payload: Payload, program: Program, bits: int = 64) -> dict[str, Any]:
    """The listing as vmm/report/schemas/disasm.schema.json has it. `bits` is of code without a source."""
    return {
        "schema": 1,
        "name": payload.name,
        "file": payload.file,
        "source": "c" if payload.in_c else "assembly" if payload.text is not None else "none",
        "base": program.base,
        "size": len(program.code),
        "entry": program.entry,
        "symbols": program.symbols,
        "rows": list(_in_c(program) if payload.in_c else _of_text(program) if payload.text is not None else
                     _instructions(program.code, program.base, bits)),
    }  # fmt: skip


def _row(address: int, code: bytes, text: str, file: str = "", line: int = 0, source: str = "") -> dict[str, Any]:
    return {"address": address, "bytes": code.hex(" "), "text": text, "file": file, "line": line, "source": source}


def _of_text(program: Program) -> Iterator[dict[str, Any]]:
    """A row for each statement that has bytes; `source` is the macro that it comes out of."""
    for each in program.lines:
        code = program.code[each.address - program.base :][: each.size]
        yield _row(each.address, code, each.text.strip(), each.file, each.line, each.origin)


def _in_c(program: Program) -> Iterator[dict[str, Any]]:
    """A row for each instruction; `source` is the line of C."""
    at = program.base
    for each in program.stretches:
        if each.address < at:  # covered by one before it
            continue
        at = each.address + each.size
        code = program.code[each.address - program.base : at - program.base]
        for row in _instructions(code, each.address, 64):
            yield row | {"file": each.file, "line": each.line, "source": each.text.strip()}


def _instructions(code: bytes, base: int, bits: int) -> Iterator[dict[str, Any]]:
    from vmm.asm.disassembler import disassemble

    for row in disassemble(code, base, bits=bits):
        yield _row(row.address, row.bytes, row.text)
