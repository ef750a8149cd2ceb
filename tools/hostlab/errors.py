# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong on the way to a host's verdicts, in kinds that end differently."""

from __future__ import annotations

from vmm.errors import advised


class LabError(Exception):
    """The lab could not do its work: something is missing on this machine, or failed. `hint` says what to try."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.hint = text, hint

    def __str__(self) -> str:
        return advised(self.text, self.hint)


class TookLonger(LabError):
    """A command did not end within its limit."""


class NotToBeHad(LabError):
    """The package registry does not have what a host is made of today: the host is skipped by name."""


class HostFailed(LabError):
    """The host started, and did not come to its end: a panic, a hang, a step that failed."""


class Stopped(Exception):
    """The lab is being ended by a signal; every wait of its threads ends with this."""
