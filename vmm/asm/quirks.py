# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions that keystone 0.9.2 lacks, misreads or gives another width than their name says, as tables.

Each row was found by comparing keystone with GNU as. `FIXED` are whole encodings, `ALIASES` other names of the same
instruction, `REFUSED` what has no safe reading. Source of the encodings: Intel SDM volume 2, AMD APM volume 3.
"""

from __future__ import annotations

PREFIXES = {
    "lock": 0xF0, "rep": 0xF3, "repe": 0xF3, "repz": 0xF3, "repne": 0xF2, "repnz": 0xF2,
    "notrack": 0x3E, "bnd": 0xF2, "xacquire": 0xF2, "xrelease": 0xF3,
}  # fmt: skip
SIZE_PREFIXES = {  # name -> (byte, the modes in which it changes something)
    "data16": (0x66, (32, 64)), "o16": (0x66, (32, 64)), "data32": (0x66, (16,)), "o32": (0x66, (16,)),
    "addr32": (0x67, (16, 64)), "a32": (0x67, (16, 64)), "addr16": (0x67, (32,)), "a16": (0x67, (32,)),
}  # fmt: skip

# keystone takes these for prefixes, and `rex64 [rax]` never ends.
BARE_PREFIXES = {name: f"write {name}:[...] in the operand" for name in ("es", "cs", "ss", "ds", "fs", "gs")}
BARE_PREFIXES["rex64"] = "the operands choose REX; write .byte 0x48 if it must be there"

ALIASES = {
    "lret": "retf", "retn": "ret", "xlat": "xlatb", "lretq": "retfq", "retq": "ret", "icebp": "int1", "iretl": "iretd",
}  # fmt: skip

# (mnemonic without operands, mode) -> bytes
FIXED = {
    ("movsd", 64): b"\xa5", ("movsd", 32): b"\xa5", ("movsd", 16): b"\x66\xa5",
    ("pushf", 64): b"\x9c", ("popf", 64): b"\x9d",  # keystone: 66 9c, a push of two bytes
    ("pushf", 32): b"\x9c", ("popf", 32): b"\x9d",
    ("iret", 32): b"\xcf",  # keystone: 66 cf, which pops 16-bit values
    ("ret", 16): b"\xc3", ("retf", 16): b"\xcb",  # keystone: 66 c3, which pops four bytes
    ("sysretq", 64): b"\x48\x0f\x07", ("sysretl", 64): b"\x0f\x07", ("sysretd", 64): b"\x0f\x07",
    ("sysexitq", 64): b"\x48\x0f\x35", ("sysexitl", 64): b"\x0f\x35", ("sysexitd", 64): b"\x0f\x35",
    ("endbr64", 64): b"\xf3\x0f\x1e\xfa", ("endbr32", 32): b"\xf3\x0f\x1e\xfb",
    ("vmrun", 64): b"\x0f\x01\xd8", ("vmload", 64): b"\x0f\x01\xda", ("vmsave", 64): b"\x0f\x01\xdb",
}  # fmt: skip
for _name, _byte in (("es", 0x06), ("cs", 0x0E), ("ss", 0x16), ("ds", 0x1E)):
    FIXED[f"push {_name}", 32] = bytes((_byte,))  # keystone: 66 1e, which moves the stack by two
    if _name != "cs":
        FIXED[f"pop {_name}", 32] = bytes((_byte + 1,))
FIXED |= {
    ("push fs", 32): b"\x0f\xa0", ("pop fs", 32): b"\x0f\xa1",
    ("push gs", 32): b"\x0f\xa8", ("pop gs", 32): b"\x0f\xa9",
}  # fmt: skip

REFUSED = {  # (mnemonic, mode) -> why, and what to write
    ("iret", 64): "iret pops 16-bit values here: write iretq",
    ("sysret", 64): "the width of sysret decides the mode it returns to: write sysretq or sysretd",
    ("sysexit", 64): "the width of sysexit decides the mode it returns to: write sysexitq or sysexitd",
    ("into", 64): "into does not exist in 64-bit code",
    ("salc", 64): "salc does not exist in 64-bit code",
    ("swapgs", 32): "swapgs exists in 64-bit code only",
    ("swapgs", 16): "swapgs exists in 64-bit code only",
}

NOT_INSTRUCTIONS = {  # what other assemblers call things -> what to write here
    "db": ".byte", "dw": ".word", "dd": ".long", "dq": ".quad", "resb": ".skip", "resw": ".skip", "resd": ".skip",
    "resq": ".skip", "times": ".rept COUNT ... .endr, or .fill COUNT, SIZE, VALUE", "align": ".p2align",
    "section": ".section NAME, or nothing: all are joined, code first", "segment": ".section NAME, or nothing",
    "global": "nothing: every label is visible", "extern": "nothing: there is no linker",
    "bits": ".code16, .code32 or .code64", "use16": ".code16", "use32": ".code32", "use64": ".code64",
    "org": "nothing: the host chooses the load address", "%define": "NAME = value", "%macro": ".macro NAME a, b",
    "%assign": "NAME = value", "%if": ".if", "%rep": ".rept", "struc": "constants: NAME = offset",
    "incbin": "nothing: put the bytes in .byte",
}  # fmt: skip

# Mnemonics for "did you mean"; keystone itself cannot list what it knows.
COMMON = (
    "mov movabs movzx movsx movsxd lea push pop pushfq popfq xchg xadd cmpxchg cmpxchg8b cmpxchg16b bswap add adc "
    "sub sbb inc dec neg not and or xor shl shr sar sal rol ror rcl rcr shld shrd test cmp mul imul div idiv cdq "
    "cqo cdqe cwde jmp call ret retfq retf je jne jz jnz ja jae jb jbe jg jge jl jle jc jnc jo jno js jns jp jnp "
    "loop loope loopne jrcxz jecxz int int3 int1 iretq iretd syscall sysretq sysretd sysenter sysexitq hlt cli sti "
    "nop pause cpuid rdmsr wrmsr rdtsc rdtscp rdpmc rdrand rdseed vmcall vmmcall vmfunc in out insb insw insd outsb "
    "outsw outsd movsb movsw movsd movsq stosb stosw stosd stosq lodsb lodsw lodsd lodsq scasb scasw scasd scasq "
    "cmpsb cmpsw cmpsd cmpsq rep repe repne lock lgdt lidt sgdt sidt lldt sldt ltr str lmsw smsw clts invlpg "
    "invpcid invd wbinvd swapgs rdfsbase wrfsbase rdgsbase wrgsbase xgetbv xsetbv xsave xrstor xsaveopt xsavec "
    "xsaves xrstors fxsave fxrstor ldmxcsr stmxcsr clac stac lfence mfence sfence clflush clflushopt clwb monitor "
    "mwait ud2 bt bts btr btc bsf bsr popcnt lzcnt tzcnt sete setne setz setnz setc setnc seta setb setg setl cmove "
    "cmovne cmovz cmovnz cld std clc stc cmc lahf sahf leave enter ljmp lcall fninit fld fst fstp fild fistp movaps "
    "movups movdqa movdqu movq movd movss addsd addss mulsd paddd pxor xorps crc32 rdpkru wrpkru monitorx mwaitx "
    "clzero lar lsl verr verw wait"
)
