# SPDX-License-Identifier: GPL-2.0-or-later
"""What gdb asks for as XML: the target description, threads, the memory map. Text of values; it asks nobody.

Source: the gdb manual, appendix G (target descriptions), E.15 (thread list), E.17 (memory map).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from vmm.base.bits import MASK64
from vmm.debug.gdb.registers import CORE, SSE, Register

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EFLAGS = ("CF", "", "PF", "", "AF", "", "ZF", "SF", "TF", "IF", "DF", "OF", "", "", "NT", "", "RF", "VM", "AC", "VIF",
          "VIP", "ID")  # fmt: skip
MXCSR = ("IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM", "", "", "FZ")
VECTORS = (("v4f", "ieee_single", 4, "v4_float"), ("v2d", "ieee_double", 2, "v2_double"),
           ("v16i8", "int8", 16, "v16_int8"), ("v8i16", "int16", 8, "v8_int16"), ("v4i32", "int32", 4, "v4_int32"),
           ("v2i64", "int64", 2, "v2_int64"))  # fmt: skip


def target(rows: Sequence[Register]) -> str:
    """target.xml."""
    out = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>",
           "<architecture>i386:x86-64</architecture>"]  # fmt: skip
    for feature, members in groupby(rows, key=lambda row: row.feature):
        out.append(f'<feature name="{feature}">')
        if feature == CORE:
            out += _flags("i386_eflags", EFLAGS)
        if feature == SSE:
            out += [f'<vector id="{name}" type="{kind}" count="{count}"/>' for name, kind, count, _ in VECTORS]
            out.append('<union id="vec128">')
            out += [f'<field name="{field}" type="{name}"/>' for name, _, _, field in VECTORS]
            out.append('<field name="uint128" type="uint128"/></union>')
            out += _flags("i386_mxcsr", MXCSR)
        for row in members:
            group = f' group="{row.group}"' if row.group else ""
            out.append(f'<reg name="{row.name}" bitsize="{row.bits}" type="{row.kind}"{group}/>')
        out.append("</feature>")
    return "\n".join([*out, "</target>"])


def _flags(name: str, names: Iterable[str]) -> list[str]:
    fields = [
        f'<field name="{each}" start="{i}" end="{i}" type="bool"/>' for i, each in enumerate(names) if each != "-"
    ]
    return [f'<flags id="{name}" size="4">', *fields, "</flags>"]


def threads(rows: Iterable[tuple[int, str, str]]) -> str:
    """(id, name, state) of each vCPU."""
    lines = (f'<thread id="{number:x}" core="{number - 1}" name={quoteattr(name)}>{escape(state)}</thread>'
             for number, name, state in rows)  # fmt: skip
    return "\n".join(['<?xml version="1.0"?>', "<threads>", *lines, "</threads>"])


def memory_map(read_only: Iterable[tuple[int, int]]) -> str:
    """All addresses may be memory: they are virtual ones. `read_only` are (address, size) of ROM."""
    out = ['<?xml version="1.0"?>', "<memory-map>"]
    at = 0
    for address, size in sorted(read_only):
        if at < address:
            out.append(f'<memory type="ram" start="{at:#x}" length="{address - at:#x}"/>')
        out.append(f'<memory type="rom" start="{address:#x}" length="{size:#x}"/>')
        at = address + size
    out.append(f'<memory type="ram" start="{at:#x}" length="{MASK64 - at:#x}"/>')
    return "\n".join([*out, "</memory-map>"])
