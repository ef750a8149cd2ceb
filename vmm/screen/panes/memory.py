# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory: bytes as hexadecimal and as text, the stack as words, the walk of an address by the page tables."""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.machine.x86.page_walk import render
from vmm.screen.lines import Click, Line, line
from vmm.screen.scene import Scene

GROUP = 8


def bytes_per_row(width: int) -> int:
    """8, 16 or 32: as many as have room beside an address and their text."""
    for count in (32, 16):
        if width >= 12 + count * 3 + count // GROUP - 2 + count:
            return count
    return 8


def _digits(address: int) -> str:
    return f"{address:08x}" if address < 1 << 32 else f"{address:016x}"


def memory(scene: Scene, width: int, height: int) -> list[Line]:
    """Rows of bytes from `memory_at` on. What is not mapped is said in the row where it begins."""
    count = bytes_per_row(width)
    lines = []
    for row in range(height):
        at = scene.memory_at + row * count & MASK64
        data = scene.read_physical(at, count) if scene.physical else scene.read(at, count)
        name = scene.name(at) if not scene.physical else ""
        if not data:
            lines.append(
                line(("dim", f"{_digits(at)}  "), ("warn", "not mapped: :walk says why" if row == 0 else "--"))
            )
            continue
        groups = [data[start : start + GROUP] for start in range(0, len(data), GROUP)]
        shown = "  ".join(each.hex(" ") for each in groups).ljust(count * 3 + count // GROUP - 2)
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
        click = None if scene.physical else Click("walk", at)
        room = width - len(shown) - len(text) - len(_digits(at)) - 4
        said = f"  {name}" if name and len(name) + 2 <= room else ""
        lines.append(line(("dim", f"{_digits(at)}  "), shown, "  ", ("name", text), ("dim", said), click=click))
    return lines


def stack(scene: Scene, width: int, height: int) -> list[Line]:
    """Words from the top of the stack on, each with what it points at: a symbol, or text."""
    cpu = scene.cpu
    size = cpu.bits // 8
    base = 0 if cpu.bits == 64 else cpu.sregs.ss.base
    top = base + (cpu.regs.rsp & ((1 << cpu.bits) - 1))
    frame = base + (cpu.regs.rbp & ((1 << cpu.bits) - 1))
    at = top if scene.stack_at is None else scene.stack_at
    mine = {64: ("rsp", "rbp"), 32: ("esp", "ebp"), 16: ("sp", "bp")}[cpu.bits]
    lines = []
    for row in range(height):
        address = at + row * size & MASK64
        data = scene.read(address, size)
        mark = f"{mine[0]:>3}>" if address == top else f"{mine[1]:>3}>" if address == frame else "    "
        if len(data) < size:
            lines.append(
                line(("here", mark), ("dim", f"{_digits(address)}  "), ("warn", "not mapped" if row == 0 else "--"))
            )
            continue
        value = int.from_bytes(data, "little")
        said = scene.name(value) or _text(data)
        lines.append(
            line(
                ("here", mark),
                ("dim", f"{_digits(address)}  "),
                f"{value:0{size * 2}x}",
                ("name", f"  {said}"),
                click=Click("memory", value),
                address=address,
                here=address == top,
            )
        )
    del width
    return lines


def _text(data: bytes) -> str:
    """Its bytes as text, where they are some."""
    stripped = data.rstrip(b"\0")
    return repr(stripped.decode()) if len(stripped) > 2 and all(0x20 <= byte < 0x7F for byte in stripped) else ""


def walk(scene: Scene) -> list[Line]:
    """Every entry that translates an address, with its rights, and where that leads."""
    if scene.walk_at is None:
        return [line(("dim", "no address: :walk rsp, :walk 0x20000, or click on a row of memory"))]
    translation = scene.walk(scene.walk_at)
    rows = render(translation, scene.place)
    head = f" ({scene.walk_of})" if scene.walk_of and not scene.walk_of.startswith("0x") else ""
    name = scene.name(scene.walk_at)
    lines = [line(("head", rows[0]), ("name", head + (f" {name}" if name else "")))]
    for row in rows[1:]:
        kind = "bad" if "no page" in row else "good" if row.startswith("  ->") else ""
        lines.append(line((kind, row)))
    return lines
