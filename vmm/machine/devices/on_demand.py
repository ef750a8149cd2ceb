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
UNTOUCHED = "untouched"
"""The state of a device that nobody has touched, for `put_back`."""


class Asleep(Generic[DeviceT]):
    """Claims what the device would, under its name; `make` is called once, by whichever thread comes first."""

    def __init__(self, name: str, make: Callable[[], DeviceT]) -> None:
        self.name, self._make = name, make
        self.made: DeviceT | None = None
        """The device, once there is one."""
        self._lock = RLock()  # a signal handler may ask for it while this thread makes it
        self._first: Any = None  # the state that it began with, where somebody may want it again
        self._wanted_again = False

    @property
    def device(self) -> DeviceT:
        """The device itself."""
        if self.made is None:
            with self._lock:
                if self.made is None:
                    device = self._make()
                    if self._wanted_again:
                        self._first = self._state_of(device)
                    if self.made is None:
                        self.made = device
        return self.made

    @staticmethod
    def _state_of(device: DeviceT) -> Any:
        get = getattr(device, "get_state", None)
        return get() if get is not None else None

    def get_state(self) -> Any:
        """As the device, where that has a state."""
        return self._state_of(self.device)

    def set_state(self, state: Any) -> None:
        """As the device."""
        put = getattr(self.device, "set_state", None)
        if put is not None:
            put(state)

    def keep_state(self) -> Any:
        """The state for `put_back` of this very machine: a device that nobody has touched is not made for it."""
        with self._lock:
            if self.made is not None:
                return self.get_state()
            self._wanted_again = True
            return UNTOUCHED

    def put_back(self, state: Any) -> None:
        """Be as `keep_state` found it."""
        if state is not UNTOUCHED:
            self.set_state(state)
        elif self.made is not None:
            self.set_state(self._first)

    def kept(self, state: Any) -> Any:
        """What `keep_state` gave, as `get_state` would have given it then."""
        if state is not UNTOUCHED:
            return state
        return self.get_state() if self.made is None else self._first

    def read(self, offset: int, size: int) -> int:
        """As the device."""
        return self.device.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """As the device."""
        self.device.write(offset, size, value)
