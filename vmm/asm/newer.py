# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that capstone 5 does not know or takes for others, as bytes: those that `insns.inc` has macros for.

Source: Intel SDM volume 2 and its instruction set extensions reference, AMD APM volume 3. Pure data and its reading.
"""

from __future__ import annotations

from vmm.asm.registers import GPR64

_WHOLE = {
    bytes.fromhex(code): name
    for code, name in (
        ("0f01e8", "serialize"), ("0f01fd", "rdpru"), ("0f01c6", "wrmsrns"), ("f20f01c6", "rdmsrlist"),
        ("f30f01c6", "wrmsrlist"), ("f30f01ec", "uiret"), ("f30f01ed", "testui"), ("f30f01ee", "clui"),
        ("f30f01ef", "stui"), ("f20f01e8", "xsusldtrk"), ("f20f01e9", "xresldtrk"), ("f20f01ca", "erets"),
        ("f30f01ca", "eretu"), ("660f01cc", "tdcall"), ("660f01cf", "seamcall"), ("f30f01d9", "vmgexit"),
        ("f20f01ff", "pvalidate"), ("f30f01ff", "psmash"), ("f30f01fe", "rmpadjust"), ("f20f01fe", "rmpupdate"),
        ("0f01fe", "invlpgb"), ("0f01ff", "tlbsync"),
    )
}  # fmt: skip
FIRST = frozenset((0x0F, 0x66, 0xF2, 0xF3))
UNDEFINED = {0xFF: "ud0", 0xB9: "ud1"}  # 0F and this, then a ModRM that capstone leaves out
IMUL = b"\x0f\xaf"  # its operands have the same shape


def match(code: bytes) -> tuple[int, str] | None:
    """Size and text of the instruction at the start of `code`, if it is one of these but ud0 and ud1."""
    for size in (4, 3):
        if name := _WHOLE.get(code[:size]):
            return size, name
    if code[:5] == b"\xf3\x0f\x3a\xf0\xc0" and len(code) > 5:
        return 6, f"hreset {code[5]:#x}" if code[5] > 9 else f"hreset {code[5]}"
    return _user_interrupt(code)


def _user_interrupt(code: bytes) -> tuple[int, str] | None:
    """F3 [REX] 0F C7 /6 with a register: SENDUIPI, which exists in 64-bit code only."""
    rex = code[1] if len(code) > 1 and code[0] == 0xF3 and code[1] & 0xF0 == 0x40 else 0
    at = 2 if rex else 1
    if code[:1] != b"\xf3" or code[at : at + 2] != b"\x0f\xc7" or len(code) < at + 3 or code[at + 2] & 0xF8 != 0xF0:
        return None
    return at + 3, f"senduipi {GPR64[(code[at + 2] & 7) | (rex & 1) << 3]}"
