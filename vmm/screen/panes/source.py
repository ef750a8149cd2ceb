# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the vCPU is: the lines that somebody wrote, or the instructions that are in memory."""

from __future__ import annotations

from collections.abc import Iterable

from vmm.asm.disassembler import MAX_LENGTH, Insn, Reader, around
from vmm.asm.program import Line as Written
from vmm.screen.lines import Click, Line, line
from vmm.screen.scene import Scene

HERE, BREAK = "►", "●"
WITH_BYTES = 66  # columns from which on an instruction's bytes have room


def source(scene: Scene, width: int, height: int) -> list[Line]:
    """`height` lines at most: the source file where there is one for this address, else a disassembly."""
    written = written_at(scene)
    if written is not None and not scene.disassembly:
        rows = scene.files(written.file)
        if rows:
            return _file(scene, written, rows, height)
    return disassembly(scene, width, height)


def title(scene: Scene) -> str:
    """`hello.asm:12`, or `disassembly at start+0x4`."""
    written = written_at(scene)
    if written is not None and not scene.disassembly and scene.files(written.file):
        return f"{written.file.rpartition('/')[2]}:{written.line}"
    at = scene.cursor if scene.cursor is not None else scene.cpu.address
    name = scene.name(at)
    return f"disassembly at {at:#x}{f' {name}' if name else ''}"


def written_at(scene: Scene) -> Written | None:
    """The source line that is looked at: that of the cursor, else that of the vCPU."""
    if scene.line is not None:
        return Written(scene.cursor or 0, 0, *scene.line, "")
    at = scene.cursor if scene.cursor is not None else scene.cpu.address
    found = scene.program.source(at) if scene.program else None
    return found if found is not None and found.line > 0 else None


def _file(scene: Scene, written: Written, rows: tuple[str, ...], height: int) -> list[Line]:
    own = scene.program.source(scene.cpu.address) if scene.program else None
    here = own.line if own is not None and own.file == written.file else 0
    broken = _lines_of(scene, written.file, (each.address for each in scene.breaks if each.address is not None))
    others: dict[int, list[str]] = {}
    for cpu in scene.cpus:
        if cpu.index != scene.vcpu:
            for number in _lines_of(scene, written.file, [cpu.address]):
                others.setdefault(number, []).append(str(cpu.index))
    first = written.line - height // 2
    if scene.top is not None and scene.top[0] == written.file:
        edge = 1 if height > 4 else 0  # a line before it and one behind it are to be seen too
        if scene.top[1] + edge <= written.line < scene.top[1] + height - edge:
            first = scene.top[1]
    first = max(1, min(first, len(rows) - height + 1))
    lines = []
    for number in range(first, min(first + height, len(rows) + 1)):
        marks = (BREAK if number in broken else " ") + (HERE if number == here else " ")
        kind = "break" if number in broken else "here"
        text = rows[number - 1]
        body = ("here", text) if number == here else ("dim", text) if _is_comment(text) else ("", text)
        also = f"   <- vCPU {', '.join(others[number])}" if number in others else ""
        chosen = number == written.line
        lines.append(
            line(
                (kind, marks),
                ("name" if chosen else "dim", f"{number:>4} "),
                body,
                ("warn", also),
                click=Click("line", number),
                address=address_of(scene, written.file, number),
                here=chosen,
            )
        )
    return lines


def _is_comment(text: str) -> bool:
    return text.lstrip().startswith(("#", ";", "//", "/*", " *"))


def _lines_of(scene: Scene, file: str, addresses: Iterable[int]) -> set[int]:
    found = set()
    for address in addresses:
        there = scene.program.source(address) if scene.program else None
        if there is not None and there.file == file:
            found.add(there.line)
    return found


def address_of(scene: Scene, file: str, number: int) -> int | None:
    """Where the code of a line begins; None where it has none, or the program does not tell."""
    program = scene.program
    return program.line_places.get((file, number)) if program else None


def disassembly(scene: Scene, width: int, height: int) -> list[Line]:
    """Instructions around the cursor, or around where the vCPU is; labels stand in lines of their own."""
    at = scene.cursor if scene.cursor is not None else scene.cpu.address
    before = max(height // 3, 1) if height > 2 else 0
    rows = around(_reader(scene), at, program=scene.program, before=before, after=height, bits=scene.cpu.bits)
    if not any(each.address == at for each in rows):
        return [line(("here", f"  {HERE} {at:#x}  "), ("warn", "nothing is mapped here: :walk says why"))]
    lines: list[Line] = []
    for row in rows:
        label = scene.name(row.address)
        if label and "+" not in label:
            lines.append(line(("name", f"{label}:")))
        lines.append(_row(scene, row, width, chosen=row.address == at))
    start = next(number for number, each in enumerate(lines) if each.address == at)
    first = max(0, min(start - before, len(lines) - height))
    return lines[first : first + height]


def _reader(scene: Scene) -> Reader:
    def read(address: int, size: int) -> bytes:
        return scene.read(address, min(size, MAX_LENGTH * 256))

    return read


def _row(scene: Scene, row: Insn, width: int, *, chosen: bool) -> Line:
    here = row.address == scene.cpu.address
    broken = scene.broken_at(row.address)
    marks = (BREAK if broken else " ") + (HERE if here else " ")
    shown = f"{row.bytes.hex(' ')[:23]:<24}" if width >= WITH_BYTES else ""
    also = [str(cpu.index) for cpu in scene.cpus if cpu.index != scene.vcpu and cpu.address == row.address]
    tail = f"   <- vCPU {', '.join(also)}" if also else ""
    return line(
        ("break" if broken else "here", marks),
        ("name" if chosen else "dim", f" {row.address:08x}  "),
        ("dim", shown),
        ("here" if here else "", with_target(scene, row.text)),
        ("warn", tail),
        click=Click("break", row.address),
        address=row.address,
        here=chosen,
    )


def with_target(scene: Scene, text: str) -> str:
    """`jne 0x20010` with the label that it goes to."""
    name, _, target = text.partition(" ")
    if (name == "call" or name.startswith("j")) and target.startswith("0x"):
        label = scene.name(int(target, 16))
        return f"{name} {label}" if label else text
    return text
