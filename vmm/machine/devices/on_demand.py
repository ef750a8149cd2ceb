# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that is made by the first who asks for it: what a guest never touches costs its machine a claim, no more."""

from __future__ import annotations

from vmm.base.light import Generic, RLock, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmm.machine.bus.bus import Device as Device

DeviceT = TypeVar("DeviceT", bound="Device")


class Asleep(Generic[DeviceT]):
    """Claims what the device would, under its name; `make` is called once, by whichever thread comes first."""

    def __init__(self, name: str, make: Callable[[], DeviceT]) -> None:
        self.name, self._make = name, make
        self.made: DeviceT | None = None
        """The device, once there is one."""
        self._lock = RLock()  # a signal handler may ask for it while this thread makes it

    @property
    def device(self) -> DeviceT:
        """The device itself."""
        if self.made is None:
            with self._lock:
                if self.made is None:
                    device = self._make()
                    if self.made is None:
                        self.made = device
        return self.made

    def get_state(self) -> Any:
        """As the device, where that has a state."""
        get = getattr(self.device, "get_state", None)
        return get() if get is not None else None

    def set_state(self, state: Any) -> None:
        """As the device."""
        put = getattr(self.device, "set_state", None)
        if put is not None:
            put(state)

    def read(self, offset: int, size: int) -> int:
        """As the device."""
        return self.device.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """As the device."""
        self.device.write(offset, size, value)
