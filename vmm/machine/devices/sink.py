# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the text of a guest goes: kept up to a limit, shown live if asked. It knows no device and no terminal."""

from __future__ import annotations

from vmm.base.light import RLock
from vmm.errors import EXIT_FAIL, UsageError, VmmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_LIMIT = 1 << 20


class OutputLimit(VmmError):
    """The guest wrote more than its sink takes. It ends the run; all that fitted was kept."""

    exit_code = EXIT_FAIL

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the guest wrote more than {limit:,} bytes of output",
            hint="a higher output limit, if so much is meant; else look for the loop that writes",
        )
        self.limit = limit


class Sink:
    """Collects bytes; any number of devices may share one, from any thread.

    `limit` is in bytes; 0 takes nothing. `live` gets each piece as it is taken, in order; what it raises goes through.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, live: Callable[[bytes], object] | None = None) -> None:
        if limit < 0:
            raise UsageError(f"an output limit of {limit} bytes: it must be 0 or more")
        self.limit = limit
        self._live = live
        self.told: Callable[[], object] | None = None
        """Called whenever bytes were taken, before anybody else writes: who counts on the room has to look again."""
        self._taken = bytearray()
        self._lock = RLock()  # `live` may look at `data`

    @property
    def data(self) -> bytes:
        """A copy of all that was taken."""
        with self._lock:
            return bytes(self._taken)

    def since(self, count: int) -> bytes:
        """What was taken after the first `count` bytes."""
        with self._lock:
            return bytes(self._taken[count:])

    def clear(self) -> None:
        """Forget all that was taken."""
        with self._lock:
            self._taken.clear()
            if self.told is not None:
                self.told()

    @property
    def length(self) -> int:
        """Bytes taken."""
        return len(self._taken)

    @property
    def room(self) -> int:
        """Bytes that may still come."""
        return self.limit - len(self._taken)

    def write(self, data: bytes) -> None:
        """Take as much of `data` as fits; raise OutputLimit if that was not all."""
        with self._lock:
            fits = data[: self.limit - len(self._taken)]
            self._taken += fits
            if self.told is not None:
                self.told()
            if fits and self._live is not None:
                self._live(fits)
        if len(fits) < len(data):
            raise OutputLimit(self.limit)
