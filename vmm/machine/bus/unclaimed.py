# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an access that no device claims: counted, or an error. It knows neither devices nor buses."""

from __future__ import annotations

from vmm.base.light import Lock
from vmm.base.record import Record
from vmm.errors import EXIT_FAIL, VmmError
from vmm.machine.bus.answers import in_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Direction: TypeAlias = "Literal['read', 'write']"


class UnclaimedAccess(VmmError):
    """A guest touched what no device claims, on a strict bus. `value` is None for a read."""

    exit_code = EXIT_FAIL

    def __init__(self, what: str, address: int, size: int, value: int | None) -> None:
        did = "read" if value is None else f"wrote {value:#x} to"
        super().__init__(
            f"the guest {did} {what} {address:#x} ({in_bytes(size)}), which no device claims",
            hint="claim it with a callback, or run without --strict, which answers all ones and drops writes",
        )
        self.what, self.address, self.size, self.value = what, address, size, value


class Missed(Record):
    """Accesses in one direction to one address that no device claims. `space` is "port" or "MMIO address"; `size` in
    bytes and, of a write, `value` are those of the first of `count`.
    """

    space: str
    address: int
    direction: Direction
    size: int
    value: int | None
    count: int

    def as_json(self) -> dict[str, str | int | None]:
        """A row of `missed` in `pyvmm run --json`: its fields by name."""
        return {name: getattr(self, name) for name in ("space", "address", "direction", "size", "value", "count")}

    def __str__(self) -> str:
        what = f"wrote {self.value:#x} to" if self.value is not None else "read"
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{what} {self.space} {self.address:#x} ({in_bytes(self.size)}), {times}"


class Unclaimed:
    """How often the guest touched what nobody claims. Bounded: a hostile guest may touch every address there is.

    `counts[address, direction]` holds the first `KEEP` distinct ones; `others` sums the rest. The address is that of
    the access (of the byte, where an MMIO access is done byte by byte).
    """

    KEEP = 64

    def __init__(self) -> None:
        self.counts: dict[tuple[int, Direction], int] = {}
        self.first: dict[tuple[int, Direction], tuple[int, int | None]] = {}
        """Of each in `counts` its first access: size in bytes, and the value that was written."""
        self.others = 0
        self._lock = Lock()

    @property
    def total(self) -> int:
        """Every unclaimed access."""
        with self._lock:
            return sum(self.counts.values()) + self.others

    def missed(self, space: str) -> tuple[Missed, ...]:
        """What is in `counts`, by address."""
        with self._lock:
            return tuple(
                Missed(space, address, direction, *self.first[address, direction], count)
                for (address, direction), count in sorted(self.counts.items())
            )

    def add(self, address: int, direction: Direction, size: int = 1, value: int | None = None) -> None:
        """Count one access of `size` bytes; `value` is what a write was to put there."""
        key = (address, direction)
        with self._lock:
            if key in self.counts or len(self.counts) < self.KEEP:
                self.counts[key] = self.counts.get(key, 0) + 1
                self.first.setdefault(key, (size, value))
            else:
                self.others += 1
