# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of the same instruction, operands left unsaid, and what capstone shows otherwise than it is: as tables.

Each row was found by putting every form that keystone takes against GNU as and against capstone 5. Source of the
predicates and of what is implied: Intel SDM volume 2. vmm/asm/verify.py compares by these.
"""

from __future__ import annotations

import re

from vmm.asm.branches import CONDITIONS
from vmm.asm.registers import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.asm.operands import Operand

SAME = {
    "sal": "shl", "wait": "fwait", "xlat": "xlatb", "movabs": "mov", "loopz": "loope", "loopnz": "loopne",
    "fcompi": "fcomip", "fucompi": "fucomip", "ljmp": "jmp", "lcall": "call", "sysretl": "sysret", "sysretd": "sysret",
    "sysexitl": "sysexit", "sysexitd": "sysexit",
}  # fmt: skip
for _names in CONDITIONS:
    for _name in _names:
        for _stem in ("j", "set", "cmov"):
            SAME[_stem + _name] = _stem + _names[0]

# What a name without a letter for its width means in a mode.
DEFAULT = {
    ("pushf", 64): "pushfq", ("popf", 64): "popfq", ("pushf", 32): "pushfd", ("popf", 32): "popfd",
    ("iret", 32): "iretd",
}  # fmt: skip

SYMMETRIC = frozenset(("test", "xchg"))  # either order is the same instruction

# The accumulator's narrower name is in the encoding, the wider one says the same: the upper half becomes zero, or is
# not looked at.
ANY_WIDTH = frozenset(
    words(
        "lar lsl movmskps movmskpd pmovmskb pextrb pextrw pinsrb pinsrw extractps vmovmskps vmovmskpd "
        "vpmovmskb vpextrb vpextrw vpinsrb vpinsrw vextractps"
    )
)

# What a written rep makes of an instruction: one that older processors take for the plain one. gcc writes `rep bsf`.
REPEATED = {"bsf": "tzcnt", "bsr": "lzcnt", "nop": "pause"}

# Widths that capstone shows otherwise than the manual, or that say nothing: not compared.
NO_WIDTH = frozenset(words("lea comisd comiss vcomisd vcomiss fldenv fnstenv invlpg prefetch prefetchw"))
FAR_POINTERS = frozenset(words("lds les lfs lgs lss"))  # the width follows the register: the selector's two more
TABLES = frozenset(["lgdt", "lidt", "sgdt", "sidt"])
AMBIGUOUS = frozenset(words("movsx movzx vcvtpd2dq vcvttpd2dq vcvtpd2ps"))  # memory of no size means nothing here
LOCKABLE = frozenset(
    words("add adc and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xor xadd xchg")
)
IMPLIED = frozenset(words("monitor mwait monitorx mwaitx vmload vmrun vmsave skinit invlpga clzero"))  # registers
FLAGS_66 = frozenset(words("clwb clflushopt vmclear tpause pcommit"))  # 66 is part of the opcode
SHORTER = frozenset(words("vextractps vcvtsd2si vcvttsd2si vcvtss2si vcvttss2si"))  # VEX has them: EVEX is no need
PREFIXED = frozenset(words("vmclear adcx adox invept invvpid invpcid bextr"))  # 66, F2, F3 or XOP belong to the opcode
NEEDS_REP = frozenset(("montmul", "xsha1", "xsha256", "xcryptecb", "xcryptcbc", "xcryptctr", "xcryptcfb", "xcryptofb"))

# What capstone 5 names otherwise in a mode: the bytes by the manual.
EXACT = {
    ("cbw", 16): b"\x98", ("cwde", 16): b"\x66\x98", ("cwd", 16): b"\x99", ("cdq", 16): b"\x66\x99",
    ("xstorerng", 16): b"\x0f\xa7\xc0", ("xstorerng", 32): b"\x0f\xa7\xc0", ("xstorerng", 64): b"\x0f\xa7\xc0",
}  # fmt: skip

# Outside 64-bit code capstone 5 does not look at EVEX.W: what it shows -> what it is with W set.
WIDE = {
    "vbroadcastf32x8": "vbroadcastf64x4", "vbroadcasti32x8": "vbroadcasti64x4", "vextractf32x8": "vextractf64x4",
    "vextracti32x8": "vextracti64x4", "vinsertf32x8": "vinsertf64x4", "vinserti32x8": "vinserti64x4",
    "vmovdqa32": "vmovdqa64", "vmovdqu32": "vmovdqu64", "vshuff32x4": "vshuff64x2", "vshufi32x4": "vshufi64x2",
}  # fmt: skip

ADVICE = {
    "jmp": "write jmp far [...] or jmp near ptr [...], or the bytes with .byte",
    "call": "write call far [...] or call near ptr [...], or the bytes with .byte",
    "push": "push a register that holds it",
}

_PREDICATES = words(
    "eq lt le unord neq nlt nle ord eq_uq nge ngt false neq_oq ge gt true eq_os lt_oq le_oq unord_s "
    "neq_us nlt_uq nle_uq ord_s eq_us nge_uq ngt_uq false_os neq_os ge_oq gt_oq true_us"
)
_COMPARE = re.compile(r"(v?cmp)([a-z_]+)(ps|pd|ss|sd)")
_INTEGER = re.compile(r"(vpcmp|vpcom)([a-z]+?)(ub|uw|ud|uq|b|w|d|q)")
_INTEGERS = {
    "vpcmp": {"lt": 1, "le": 2, "neq": 4, "nlt": 5, "nle": 6},
    "vpcom": {"lt": 0, "le": 1, "gt": 2, "ge": 3, "eq": 4, "neq": 5, "false": 6, "true": 7},
}
_MULTIPLIES = {"lqlq": 0x00, "hqlq": 0x01, "lqhq": 0x10, "hqhq": 0x11}


def pseudo(mnemonic: str) -> tuple[str, int] | None:
    """The instruction and the immediate that a name like `cmpltps` or `pclmulhqlqdq` stands for."""
    if (found := _COMPARE.fullmatch(mnemonic)) and found[2] in _PREDICATES:
        return found[1] + found[3], _PREDICATES.index(found[2])
    if (found := _INTEGER.fullmatch(mnemonic)) and found[2] in _INTEGERS[found[1]]:
        return found[1] + found[3], _INTEGERS[found[1]][found[2]]
    if (found := re.fullmatch(r"(v?pclmul)([lh]q[lh]q)dq", mnemonic)) is not None:
        return found[1] + "qdq", _MULTIPLIES[found[2]]
    return None


def name(mnemonic: str, operands: list[Operand], mode: int, other_width: bool = False) -> str:
    """The one name under which a written instruction is compared; pseudo names are resolved before.

    `other_width`: a size prefix was written before it, which swaps 16 and 32 bits.
    """
    if other_width and (mnemonic, 32) in DEFAULT:
        return DEFAULT[mnemonic, 32] if mode == 16 else mnemonic
    registers = [operand.register for operand in operands if operand.register]
    if mnemonic in ("movd", "vmovd") and any(row.kind == "gpr" and row.bits == 64 for row in registers):
        return mnemonic[:-1] + "q"
    if mnemonic == "movq" and registers and all(row.kind == "gpr" for row in registers):
        return "mov"
    if mnemonic == "movsx" and len(operands) == 2:
        source = operands[1]
        if source.size == "dword" or (source.register and source.register.bits == 32):
            return "movsxd"
    if not operands and mnemonic in ("fadd", "fmul", "fsub", "fsubr", "fdiv", "fdivr"):
        return mnemonic + "p"
    if mnemonic in ("vcvtpd2dqx", "vcvtpd2psx", "vcvttpd2dqx", "vcvtpd2dqy", "vcvtpd2psy", "vcvttpd2dqy"):
        return mnemonic[:-1]
    return SAME.get(mnemonic, DEFAULT.get((mnemonic, mode), mnemonic))
