#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make listings`: write tests/listings/NAME.lst for every shipped payload, and remove those of payloads that are gone.

A listing shows the bytes that the assembler makes of each line. It is kept under review: a change of the assembler that
changes a payload's bytes shows up as a change of a listing, which tests/unit/test_listings.py compares.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from vmm.asm.listing import render
from vmm.payload.catalog import find, shipped
from vmm.payload.guest import assemble

LISTINGS = Path(__file__).resolve().parents[1] / "tests" / "listings"


def listing(name: str) -> str:
    """The listing of one payload, the same in every folder."""
    return render(replace(assemble(find(name)), name=f"{name}.asm"), files=False)


def main() -> int:
    LISTINGS.mkdir(exist_ok=True)
    for name in shipped():
        (LISTINGS / f"{name}.lst").write_text(listing(name), encoding="utf-8")
    for path in LISTINGS.glob("*.lst"):
        if path.stem not in shipped():
            path.unlink()
    print(f"{len(shipped())} listings in {LISTINGS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
