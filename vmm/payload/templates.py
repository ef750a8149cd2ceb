# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests to begin with, as text: plain.asm and plain.c of guest_payloads/new, with the name of the new one in them."""

from __future__ import annotations

from pathlib import Path

import guest_payloads

FOLDER = Path(guest_payloads.__file__).parent / "new"
PLACE = "NAME"


def template(suffix: str, name: str) -> str:
    """The text for a guest called `name`; `suffix` is ".asm" or ".c"."""
    return (FOLDER / f"plain{suffix}").read_text(encoding="utf-8").replace(PLACE, name)
