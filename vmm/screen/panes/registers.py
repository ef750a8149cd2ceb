# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of a vCPU: what changed since the stop before is marked, and every flag is a word."""

from __future__ import annotations

from vmm.abi.x86 import CR0, CR4, EFER, RFLAGS, describe_flags
from vmm.kvm.state import SEGMENTS
from vmm.screen.lines import Click, Line, line
from vmm.screen.scene import GENERAL_ONES, CpuLook, Scene

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
CELL = 22  # `*rax 0123456789abcdef`, and a space
CHANGED = "*"
FLAGS = {64: "rflags", 32: "eflags", 16: "flags"}


def registers(scene: Scene, width: int) -> list[Line]:
    """General registers in as many columns as there is room for, RIP and flags, control registers, segments."""
    cpu = scene.cpu
    if scene.registers != GENERAL_ONES:
        return _others(scene)
    shown = [name for name in GENERAL if cpu.bits == 64 or name[1].isalpha() or getattr(cpu.regs, name)]
    columns = max(1, min(4, (width + 1) // CELL))
    rows = -(-len(shown) // columns)
    lines = []
    for row in range(rows):
        names = shown[row::rows]  # down first, so that rax to rdx stand below each other
        pieces: list[str | tuple[str, str]] = []
        for name in names:
            pieces += [*_cell(cpu, name), " "]
        lines.append(line(*pieces, click=Click("memory", getattr(cpu.regs, names[0]))))
    lines.append(line(*_cell(cpu, "rip"), ("name", f" {cpu.where}" if cpu.where else "")))
    lines += _flags(cpu, width)
    lines += _control(cpu)
    lines += _segments(cpu, width)
    return lines


def _cell(cpu: CpuLook, name: str) -> list[tuple[str, str]]:
    value = getattr(cpu.regs, name)
    changed = cpu.before is not None and getattr(cpu.before, name) != value
    kind = "changed" if changed else ""
    called, digits = in_width(name, value, cpu.bits)
    return [(kind, CHANGED if changed else " "), ("name", f"{called:<4}"), (kind, f"{value:0{digits}x}".ljust(16))]


def in_width(name: str, value: int, bits: int) -> tuple[str, int]:
    """(what code of so many bits calls this register, hexadecimal digits): `eax`, `ax`; the name of the whole register,
    where more of it is not 0, so that nothing is hidden.
    """
    if bits == 64 or name[1:].isdigit() or value >> 32:
        return name, 16
    return (name[1:], 4) if bits == 16 and value < 1 << 16 else (f"e{name[1:]}", 8)


def _others(scene: Scene) -> list[Line]:
    """Those of another kind: a name, the value, and what it says."""
    lines = []
    for each in scene.others:
        mark, kind = (CHANGED, "changed") if each.changed else (" ", "")
        lines.append(line((kind, mark), ("name", f"{each.name:<6} "), (kind, each.value), ("dim", f"  {each.words}")))
    return lines or [line(("dim", "this vCPU has none"))]


def _flags(cpu: CpuLook, width: int) -> list[Line]:
    value = cpu.regs.rflags
    changed = 0 if cpu.before is None else value ^ cpu.before.rflags
    words = describe_flags(value & ~RFLAGS.FIXED, RFLAGS).replace("|", " ") if value & ~RFLAGS.FIXED else "none set"
    mark = CHANGED if changed else " "
    pieces: list[str | tuple[str, str]] = [
        ("changed" if changed else "", mark),
        ("name", f"{FLAGS[cpu.bits]} "),
        f"{value:#x} ",
    ]
    pieces.append(("changed" if changed else "", words))
    off = [name for name in ("CF", "PF", "ZF", "SF", "IF", "OF") if changed & getattr(RFLAGS, name) & ~value]
    if off:
        pieces.append(("changed", f" (no longer {' '.join(off)})"))
    del width
    return [line(*pieces)]


def _control(cpu: CpuLook) -> list[Line]:
    sregs, lines = cpu.sregs, []
    rows = (
        ("cr0", describe_flags(sregs.cr0, CR0)),
        ("cr2", ""),
        ("cr3", ""),
        ("cr4", describe_flags(sregs.cr4, CR4)),
        ("cr8", ""),
        ("efer", describe_flags(sregs.efer, EFER)),
    )
    for name, words in rows:
        value = getattr(sregs, name)
        changed = cpu.sregs_before is not None and getattr(cpu.sregs_before, name) != value
        kind = "changed" if changed else ""
        mark = CHANGED if changed else " "
        lines.append(
            line((kind, mark), ("name", f"{name:<5}"), (kind, f"{value:#x} "), ("dim", words.replace("|", " ")))
        )
    return lines


def _segments(cpu: CpuLook, width: int) -> list[Line]:
    lines = []
    for name in SEGMENTS:
        segment = getattr(cpu.sregs, name)
        before = getattr(cpu.sregs_before, name) if cpu.sregs_before is not None else segment
        kind = "changed" if segment != before else ""
        mark = CHANGED if kind else " "
        text = f"{segment.selector:04x} base {segment.base:x} limit {segment.limit:x} dpl {segment.dpl}"
        extra = "" if segment.present else " not present"
        if name == "cs":
            extra += f"  {cpu.mode}"
        lines.append(line((kind, mark), ("name", f"{name:<5}"), (kind, text), ("dim", extra)))
    for name in ("gdt", "idt"):
        table = getattr(cpu.sregs, name)
        lines.append(line(" ", ("name", f"{name:<5}"), f"base {table.base:x} limit {table.limit:x}"))
    del width
    return lines
