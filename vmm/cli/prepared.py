# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run PAYLOAD` where nothing has changed since it ran like this before (vmm/payload/prepared.py)."""

from __future__ import annotations

from vmm.payload import prepared
from vmm.report.closing import closing
from vmm.report.style import Style, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from vmm.payload.guest import Guest


def run(payload: str, out: TextIO) -> int | None:
    """Run and show it, as run.py does. None: it is not prepared, or did otherwise; nobody has seen anything of it."""
    one = prepared.run(payload)
    if one is None:
        return None
    text, style = one["console"].decode("utf-8", "replace"), Style()
    if out.isatty():
        from vmm.cli.colour import style_for
        from vmm.cli.run import plain

        text, style = printable(text), style_for(plain(payload), out)
    end = "" if text.endswith("\n") or not text else "\n"
    line = closing(one["outcome"], one["payload"], one["exits"], one["wall_ms"], one["reason"], style)
    out.write(f"{text}{end}{line}\n")
    status: int = one["status"]
    return status


def keeper(payload: str) -> Callable[[Guest], object]:
    """Of this run by the long way: what the next one begins with is kept, if it is of that kind."""

    def at_its_end(guest: Guest) -> None:
        if guest.machine.is_plain:
            from vmm.payload.prepare import keep

            keep(guest, payload)

    return lambda guest: guest.on_close.append(lambda: at_its_end(guest))
