# SPDX-License-Identifier: GPL-2.0-or-later
"""Small guests for the pc board: their text, with what the payloads' includes offer, loaded into a machine."""

from __future__ import annotations

from vmm.asm.assembler import Facts, assemble
from vmm.asm.program import Program
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.payload.catalog import INCLUDES
from vmm.payload.guest import constants

HEAD = """
%include "results.inc"
%include "apic.inc"
%include "vectors.inc"
"""
TAIL = """
%include "idt.inc"
"""
# The PICs as a BIOS would set them up: IRQ 0 to 15 are vectors 0x20 to 0x2f; all masked but \\open of the master.
PICS = """
.macro PICS open
    mov   al, PIC_ICW1
    out   PIC_MASTER_CMD, al
    out   PIC_SLAVE_CMD, al
    mov   al, 0x20
    out   PIC_MASTER_IMR, al
    mov   al, 0x28
    out   PIC_SLAVE_IMR, al
    mov   al, 1 << PIC_CASCADE_IR
    out   PIC_MASTER_IMR, al
    mov   al, PIC_CASCADE_IR
    out   PIC_SLAVE_IMR, al
    mov   al, PIC_ICW4
    out   PIC_MASTER_IMR, al
    out   PIC_SLAVE_IMR, al
    mov   eax, 0xffff & ~(\\open | 1 << PIC_CASCADE_IR)
    out   PIC_MASTER_IMR, al
    mov   al, ah
    out   PIC_SLAVE_IMR, al
.endm
.macro PUT port, value
    mov   dx, \\port
    mov   al, \\value
    out   dx, al
.endm
.macro GET port
    mov   dx, \\port
    in    al, dx
.endm
"""


def program(text: str) -> Program:
    """The text between HEAD and TAIL, assembled for region `code`."""
    return assemble(
        HEAD + PICS + text + TAIL,
        name="pc guest",
        base=layout.REGIONS["code"].base,
        constants={},
        facts=Facts(constants, (layout.__file__,)),
        include_dirs=(INCLUDES,),
    )


def load(machine: Machine, text: str) -> Program:
    """Into the machine, to start at `start`."""
    return machine.load(program(text))


def out(port: int, value: int, size: int = 1) -> str:
    """An OUT as text."""
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    return f"mov dx, {port:#x}\nmov eax, {value:#x}\nout dx, {register}\n"
