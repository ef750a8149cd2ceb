# SPDX-License-Identifier: GPL-2.0-or-later
"""Text to bytes and back: the assembler (keystone) and the disassembler (capstone), each behind one module.

Nothing is imported with the package, so that `from vmm.asm.program import Program` costs that module and no other.
"""
