# SPDX-License-Identifier: GPL-2.0-or-later
"""A post-mortem in fifteen lines: what happened, where, with which registers, why. Values in, lines out.

The whole one is vmm.report.text's. What is chosen here: the instruction and the two before it, the registers that these
name or use unsaid, the end of the page walk that failed, the last two exits, the vCPUs in a line each.
"""

from __future__ import annotations

import re

from vmm.abi.x86 import RFLAGS, describe_flags
from vmm.asm.registers import REGISTERS
from vmm.observe.postmortem import CodeLine, PostMortem, VcpuState
from vmm.report.style import Style, printable
from vmm.report.text import INDENT, code_line, fault_text, headline

BEFORE = 2  # instructions before the one at RIP
LAST_EXITS = 2
OTHERS = 3  # vCPUs that get a line
PER_LINE = 4  # registers
MORE = "-v: every register, page walks, each vCPU, the exits before"

GPR = {row.number: row.name for row in REGISTERS.values() if row.kind == "gpr" and row.bits == 64}
# What an instruction uses unsaid (Intel SDM volume 2, the instruction's page), by the beginning of its name.
UNSAID = {
    "rep": ("rcx", "rsi", "rdi"),
    "movs": ("rsi", "rdi"),
    "stos": ("rax", "rdi"),
    "lods": ("rax", "rsi"),
    "push": ("rsp",),
    "pop": ("rsp",),
    "call": ("rsp",),
    "ret": ("rsp",),
    "iret": ("rsp",),
    "leave": ("rbp", "rsp"),
    "syscall": ("rax", "rcx", "r11"),
    "sysret": ("rcx", "r11"),
    "rdmsr": ("rcx",),
    "wrmsr": ("rcx", "rax", "rdx"),
    "cpuid": ("rax", "rcx"),
    "xsetbv": ("rcx", "rax", "rdx"),
    "div": ("rax", "rdx"),
    "idiv": ("rax", "rdx"),
    "mul": ("rax", "rdx"),
    "vmcall": ("rax", "rbx", "rcx", "rdx", "rsi"),
    "vmmcall": ("rax", "rbx", "rcx", "rdx", "rsi"),
    "loop": ("rcx",),
}
FLAGGED = ("j", "set", "cmov", "hlt", "cli", "sti", "adc", "sbb", "iret", "into")
_WORD = re.compile(r"[a-z][a-z0-9]*")


def short_lines(pm: PostMortem, style: Style) -> list[str]:
    """The short post-mortem. A part that is not known has no line."""
    lines = [style("head", "post-mortem") + f": {printable(pm.reason)}"]
    if pm.fault:
        lines.append(f"{INDENT}{style('bad', 'exception')}  {fault_text(pm.fault)}")
    first, others = pm.vcpus[:1], pm.vcpus[1:]
    for vcpu in first:
        lines.append(f"{INDENT}{headline(vcpu, style)}")
        lines += _where(vcpu, style)
        lines += _registers(vcpu)
        lines += [f"{INDENT}{printable(text)}" for text in _walk(vcpu)]
        lines += _exits(vcpu, faulted=pm.fault is not None)
    lines += [f"{INDENT}{headline(vcpu, style)}" for vcpu in others[:OTHERS]]
    if len(others) > OTHERS:
        lines.append(f"{INDENT}and {len(others) - OTHERS} vCPUs more")
    if pm.hint:
        lines.append(f"{INDENT}{style('warn', 'why')}  {pm.hint}")
    lines += [f"{INDENT}{style('warn', 'note')}  {printable(note)}" for note in pm.notes]
    more = f"`pyvmm explain {pm.fault.cr2:#x}`: what lies there; {MORE}" if pm.fault and pm.fault.cr2 else MORE
    return [*lines, f"{INDENT}{style('dim', f'try  {more}')}"]


def _where(vcpu: VcpuState, style: Style) -> list[str]:
    lines = []
    if vcpu.source:
        lines.append(f"{INDENT}  {printable(vcpu.source)}")
    if vcpu.odd:
        lines.append(f"{INDENT}  {style('warn', printable(vcpu.odd))}")
    return lines + [code_line(row, style) for row in _code(vcpu)]


def _code(vcpu: VcpuState) -> list[CodeLine]:
    """The instruction at RIP and a few before; zeroes before it are what memory is filled with, and no code."""
    at = next((number for number, row in enumerate(vcpu.code) if row.here), None)
    if at is None:
        return []
    before = [row for row in vcpu.code[max(0, at - BEFORE) : at] if row.bytes.strip("0 ")]
    return [*before, vcpu.code[at]]


def named_registers(code: list[CodeLine]) -> list[str]:
    """The 64-bit registers that these instructions use, those of the last first; `rflags` where they count."""
    found: dict[str, None] = {}
    for row in reversed(code):
        text = row.text.lower()
        for word in _WORD.findall(text):
            register = REGISTERS.get(word)
            if register is not None and register.kind == "gpr":
                high = register.name in ("ah", "ch", "dh", "bh")
                found[GPR[register.number - 4 if high else register.number]] = None
        names = text.split()[:2] if text.startswith(("rep", "lock")) else text.split()[:1]
        for name in names:
            for start, used in UNSAID.items():
                if name.startswith(start):
                    found |= dict.fromkeys(used)
        if row.here and names and names[-1].startswith(FLAGGED) and names[-1] != "jmp":
            found["rflags"] = None
    return list(found)


def _registers(vcpu: VcpuState) -> list[str]:
    names = [each for each in named_registers(_code(vcpu)) if each in vcpu.registers] or ["rax", "rsp"]
    shown = [
        f"rflags {vcpu.registers[each]:#x} ({describe_flags(vcpu.registers[each], RFLAGS)})"
        if each == "rflags"
        else f"{each} {vcpu.registers[each]:#x}"
        for each in names[: 2 * PER_LINE]
    ]
    return [INDENT + "  ".join(shown[at : at + PER_LINE]) for at in range(0, len(shown), PER_LINE)]


def _walk(vcpu: VcpuState) -> list[str]:
    """Of each walk that found no page, its address and why."""
    ends = [(walk[0].partition(",")[0], walk[-1].strip()) for walk in vcpu.walks if walk]
    return [f"{address}: {end}" for address, end in ends if end.startswith("no page")]


def _exits(vcpu: VcpuState, *, faulted: bool) -> list[str]:
    """The last exits; that by which an exception was told to pyvmm is none of the guest's."""
    told = vcpu.last_exits[:-1] if faulted else vcpu.last_exits
    return [f"{INDENT}before  {printable(each)}" for each in told[-LAST_EXITS:]]
