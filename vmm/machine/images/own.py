# SPDX-License-Identifier: GPL-2.0-or-later
"""A Program as an image for pyvmm's own map: what may be one, and whether it can lie and start where it is meant to."""

from __future__ import annotations

from vmm.asm.program import Program
from vmm.base.light import lru_cache
from vmm.errors import UsageError
from vmm.machine.memory import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TABLES = ("gdt", "idt", "gates", "page_tables")
"""Regions that are written before a program starts."""
SMALL = 4096  # bytes of a code that is kept beyond its machine


def as_program(what: object, base: int) -> Program:
    """Assembly text, machine code or a Program, as a Program; what has no address of its own lies at `base`.

    Raises:
        PayloadError: the text does not assemble.
        UsageError: it is none of these, or empty, or a file with a header.
    """
    if type(what) is bytes and len(what) <= SMALL:
        return _raw(what, base)
    if isinstance(what, str):
        from vmm.asm.assembler import assemble
        from vmm.asm.source import lines

        program = assemble(lines(what), base=base)
    elif isinstance(what, Program):
        program = what
    else:
        code = _code(what)
        program = _raw(code, base) if len(code) <= SMALL else _raw.__wrapped__(code, base)
    return _not_empty(program)


def _not_empty(program: Program) -> Program:
    if not program.code:
        raise UsageError(f"{program.name}: there is nothing to run in it")
    return program


@lru_cache(maxsize=16)
def _raw(code: bytes, base: int) -> Program:
    """One value for the same code: small guests are loaded again and again (row lifecycle)."""
    return _not_empty(Program("<bytes>", base, _code(code), NoNames(), (), NoNames()))


class NoNames(dict[str, int]):
    """The names of bare code: none, and none for anybody to add, for other machines have the same Program."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise UsageError(
            "code that was given as bytes has no names, and takes none",
            hint="`load(Program(name, base, code, symbols, ()))`, with symbols of its own",
        )

    __setitem__ = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return NoNames, ()


def check_place(program: Program, entry: int | str, cpus: int) -> None:
    """Refuse what does not fit, or cannot run by the tables that `load` writes, and what lies on those, or on a vCPU's
    block.

    Raises:
        UsageError: with the reason.
    """
    where = program.symbols.get(entry, program.base) if isinstance(entry, str) else entry
    region = layout.region_at(program.base)
    end = program.base + len(program.code)
    if region is None or not region.ram or end > region.end:
        room = region.end - program.base if region and region.ram else 0
        raise UsageError(
            f"{program.name}: {len(program.code)} bytes do not fit at {program.base:#x}, "
            f"where region {region.name if region else 'none'} has room for {room}"
        )
    for region in (layout.REGIONS[name] for name in TABLES):
        if program.base < region.end and region.base < end:
            raise UsageError(f"{_placed(program)}: region {region.name} holds {region.what}, which `load` writes")
    first, last = layout.REGIONS["cpus"].base, layout.cpu_block(cpus - 1).base + layout.CPU_BLOCK_SIZE
    if program.base < last and first < end:
        raise UsageError(
            f"{_placed(program)}: region cpus is not executable, and holds stack and TSS of each vCPU to {last:#x}",
            hint=f"region code, {layout.REGIONS['code'].base:#x}",
        )
    there = layout.region_at(where)
    if there is None or not there.executable:
        code = layout.REGIONS["code"]
        raise UsageError(
            f"{_placed(program)}: it would start at {where:#x}, and by the boot page tables nothing can run "
            f"in {f'region {there.name}' if there else 'a place without a name'}",
            hint=f"region code, {code.base:#x}..{code.end - 1:#x}; for data, memory.write",
        )


def _code(what: object) -> bytes:
    """Machine code. UsageError for what would only become bytes: a path its name, a number so many zeros."""
    if isinstance(what, (bytes, bytearray, memoryview)):
        code = what if type(what) is bytes else bytes(what)
        if code.startswith(b"\x7fELF"):
            raise UsageError("<bytes>: an ELF file, and not raw code", hint="load_image(), which reads its headers")
        return code
    hint = "its text (`path.read_text()`) or code (`path.read_bytes()`)" if hasattr(what, "__fspath__") else "bytes"
    raise UsageError(f"loading {what!r:.80}: it is neither assembly text, nor bytes, nor a Program", hint=hint)


def _placed(program: Program) -> str:
    return f"{program.name}: {len(program.code)} bytes at {program.base:#x}"
