# SPDX-License-Identifier: GPL-2.0-or-later
"""What assembling gives: bytes, symbols and where each byte came from. It knows nothing of how they were made."""

from __future__ import annotations

from vmm.base.light import cached_property
from vmm.base.record import Record, field
from vmm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Line(Record):
    """The bytes of one statement: `size` bytes at `address`.

    `file` and `line` are what the reader wrote: for a statement out of a macro, the line that used the macro. `text` is
    the statement as it was assembled, and `origin` names the macro and its own line ("" outside macros).
    """

    address: int
    size: int
    file: str
    line: int
    text: str
    origin: str = ""

    @property
    def shown(self) -> str:
        """`add.asm:7  mov al, 42`; of what comes with pyvmm, the file's name alone."""
        file = self.file.rpartition("/")[2] if self.file.startswith("/") else self.file
        return f"{file}:{self.line}  {self.text.strip()}".rstrip()


class Program(Record, cached=True):
    """An assembled payload: the bytes `code` for guest-physical address `base`. `symbols` are label addresses in
    address order. `constants` are what its text and what it includes define by `NAME = value`, and what was given for
    it alone, as a payload's parameters are, but not the facts that every text may use.
    """

    name: str
    base: int
    code: bytes
    symbols: dict[str, int]
    lines: tuple[Line, ...]
    constants: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What its making had to say, such as a compiler's warnings; no part of a cache or a trace."""
    stretches: tuple[Line, ...] = ()
    """Of compiled code, in place of `lines`: by address, each some instructions of one line; `text` is that line."""
    elf: bytes = b""
    """Of compiled code, the linked file with its debug information; of assembly elf_out.py makes one."""

    def constant(self, name: str) -> int:
        """The value that the text gives a name, so that nobody has to write the number a second time.

        Raises:
            UsageError: the text defines no such name.
        """
        if name in self.constants:
            return self.constants[name]
        from vmm.base.names import unknown

        raise UsageError(unknown(f"constant of {self.name}", name, self.constants))

    @property
    def entry(self) -> int:
        """The symbol `start`, else `_start`, the name that linkers know, else the first byte."""
        return self.symbols.get("start", self.symbols.get("_start", self.base))

    @property
    def end(self) -> int:
        """The first address after the last byte."""
        return self.base + len(self.code)

    @cached_property
    def _sorted_symbols(self) -> list[tuple[int, str]]:
        # Of several labels at one address the one written first speaks: `symbols` is in source order.
        first: dict[int, str] = {}
        for name, address in self.symbols.items():
            first.setdefault(address, name)
        return sorted(first.items())

    @cached_property
    def _line_addresses(self) -> list[int]:
        return [line.address for line in self.lines]

    @property
    def written(self) -> tuple[Line, ...]:
        """Every line that somebody wrote, by address: statements of assembly, or stretches of compiled code."""
        return self.lines or self.stretches

    @cached_property
    def line_places(self) -> dict[tuple[str, int], int]:
        """Where the code of each (file, line) begins."""
        found: dict[tuple[str, int], int] = {}
        for each in self.written:
            key = each.file, each.line
            if each.size and each.line:
                found[key] = min(each.address, found.get(key, each.address))
        return found

    def symbolize(self, address: int) -> str | None:
        """`name`, or `name+0x10`; None outside the program or before its first label."""
        if not self.base <= address <= self.end:
            return None
        from vmm.base.light import bisect_right  # by who looks up names: no plain run does

        at = bisect_right(self._sorted_symbols, (address, "\U0010ffff")) - 1
        if at < 0:
            return None
        start, name = self._sorted_symbols[at]
        return name if start == address else f"{name}+{address - start:#x}"

    def line_at(self, address: int) -> Line | None:
        """The statement that holds this byte."""
        from vmm.base.light import bisect_right

        at = bisect_right(self._line_addresses, address) - 1
        if at < 0:
            return None
        line = self.lines[at]
        return line if address < line.address + line.size else None

    def source(self, address: int) -> Line | None:
        """What the reader wrote for this byte: a statement of assembly, or a stretch of compiled code."""
        found = self.line_at(address)
        if found is None and self.stretches:
            from vmm.base.light import bisect_right

            at = bisect_right(self.stretches, address, key=lambda each: each.address) - 1
            if at >= 0 and address < self.stretches[at].address + self.stretches[at].size:
                found = self.stretches[at]
        return found

    def place_at(self, address: int) -> str | None:
        """What lies at an address outside of all symbols; None where the guest map of whoever loaded it says so."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that json can write; `code` is hexadecimal text."""
        return {
            "name": self.name,
            "base": self.base,
            "code": self.code.hex(),
            "symbols": dict(self.symbols),
            "constants": dict(self.constants),
            "lines": [[row.address, row.size, row.file, row.line, row.text, row.origin] for row in self.lines],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Program:
        """The reverse of `to_dict`. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            name=str(data["name"]),
            base=int(data["base"]),
            code=bytes.fromhex(data["code"]),
            symbols={str(name): int(address) for name, address in data["symbols"].items()},
            lines=tuple(Line(*row) for row in data["lines"]),
            constants={str(name): int(value) for name, value in data["constants"].items()},
        )
