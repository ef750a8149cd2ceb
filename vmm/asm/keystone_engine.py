# SPDX-License-Identifier: GPL-2.0-or-later
"""keystone, behind one function: one instruction in, its bytes out. The only module that imports keystone.

keystone sees single instructions whose numbers are hexadecimal literals, never a label, directive, macro, expression
or comment: each of those has a trap in version 0.9.2 (crashes, endless loops, silently wrong bytes).
`Ks.syntax` is never set: it would change the radix of every engine of the process.
"""

from __future__ import annotations

import functools
import re

from vmm.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Refused(Exception):
    """keystone does not take the instruction. `reason` is one of mnemonic, operand, feature, symbol, other."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@functools.cache
def _engine(mode: int) -> Any:
    """The engine of a mode (16, 32, 64), made once per process."""
    try:
        import keystone
    except ImportError as e:
        raise HostError(
            f"assembling needs keystone-engine, which cannot be imported: {e}", hint="pip install keystone-engine"
        ) from None
    bits = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[mode]
    return keystone.Ks(keystone.KS_ARCH_X86, bits)


_REASONS = {
    "KS_ERR_ASM_MNEMONICFAIL": "mnemonic",
    "KS_ERR_ASM_INVALIDOPERAND": "operand",
    "KS_ERR_ASM_MISSINGFEATURE": "feature",
    "KS_ERR_ASM_SYMBOL_MISSING": "symbol",
}


# A word that reads as a floating-point number (`1e`, `0.`) sends keystone into an endless loop, GIL released and deaf
# to ^C: what starts with a digit is a hexadecimal literal, one decimal digit (st(1), *8) or a broadcast, else refused.
_DIGITS = re.compile(r"(?<![a-z0-9])[0-9][a-z0-9]*")
_SAFE_DIGITS = re.compile(r"0x[0-9a-f]+|[0-9]|1to(?:2|4|8|16)")
_SAFE_TEXT = re.compile(r"[a-z][a-z0-9 ,:*+()\[\]{}-]*")


@functools.lru_cache(maxsize=8192)
def encode(text: str, mode: int) -> bytes:
    """The bytes of one instruction that does not depend on its address. Raises Refused, or HostError without keystone.

    `text` must be what `operands.render` makes.
    """
    if not _SAFE_TEXT.fullmatch(text) or not all(map(_SAFE_DIGITS.fullmatch, _DIGITS.findall(text))):
        raise Refused("other", "not a text that keystone survives")
    engine = _engine(mode)
    from keystone import KsError

    try:
        code, count = engine.asm(text.encode("ascii"), 0, as_bytes=True)
    except KsError as e:
        name = next((name for name in _REASONS if name in str(e)), "")
        raise Refused(_REASONS.get(name, "other"), str(e)) from None
    if not code or count != 1:
        raise Refused("other", "keystone gave no bytes")
    return bytes(code)


def knows(mnemonic: str, mode: int) -> bool:
    """Whether keystone has a mnemonic at all, whatever its operands."""
    try:
        encode(mnemonic, mode)
    except Refused as e:
        return e.reason != "mnemonic"
    return True
