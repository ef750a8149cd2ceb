# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm_facts.h`: every constant that the assembler knows, as a macro of the same name. It compiles nothing.

The rows of vmm.abi and of the guest map are its only source, so C and assembly cannot differ. Numbers are plain,
without a suffix, because start.S reads them as well.
"""

from __future__ import annotations

from collections.abc import Mapping

HEAD = "/* Made by pyvmm of its tables. A change here is lost with the next compilation. */\n#pragma once\n\n"


def header_text(constants: Mapping[str, int]) -> str:
    """The header; `constants` as vmm.payload.guest.constants() and Header.constants() give them."""
    return HEAD + "".join(f"#define {name} {_number(value)}\n" for name, value in constants.items())


def _number(value: int) -> str:
    return f"{value:#x}" if value >= 0 else f"(-{-value:#x})"
