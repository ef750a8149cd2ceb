# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O ports by which a payload talks to pyvmm, and the values that it says there. Ours, not the kernel's."""

from __future__ import annotations

DEBUG_CONSOLE = 0xE9  # one byte of text per OUT, as in Bochs and QEMU
COM1 = 0x3F8  # a 16550A takes eight ports from here
COM1_SIZE = 8
COM1_IRQ = 4
EXIT = 0xF4  # OUT of one of the values below ends the run
FAULT = 0xF5  # the default IDT gates report an exception here
HYPERCALL = 0xF6  # a #UD handler hands a hypercall over here, where the instruction never reaches KVM
SYSCALL = 0xF7  # the kernel of a payload hands a system call of its user program over here
BIOS = 0xF8  # the interrupt services of 16-bit code are handed over here
DELAY = 0x80  # free for payloads; a classic delay port

# (first port, how many, whose) that KVM serves itself: KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2 (api.rst); the PC's ports.
PICS = ((0x20, 2, "PIC"), (0xA0, 2, "PIC"), (0x4D0, 2, "PIC (its ELCR)"))
PIT = ((0x40, 4, "PIT"),)

EXIT_VALUE_PASS = 0
EXIT_VALUE_FAIL = 1
EXIT_VALUE_SKIP = 77
DEBUG_EXIT_SKIP = 77 >> 1  # what a skip writes to isa-debug-exit, for whose status is value << 1 | 1 (kvm-unit-tests)

# What hypercall.inc has found of this host: which instruction KVM gets, or that each call is handed over by HYPERCALL.
BY_VMCALL, BY_VMMCALL, HANDED_OVER = 0, 1, 2

EXIT_VALUES = {EXIT_VALUE_PASS: "pass", EXIT_VALUE_FAIL: "fail", EXIT_VALUE_SKIP: "skip"}

ASM = {
    "DEBUG_CONSOLE": DEBUG_CONSOLE,
    "COM1": COM1,
    "EXIT_PORT": EXIT,
    "FAULT_PORT": FAULT,
    "HYPERCALL_PORT": HYPERCALL,
    "SYSCALL_PORT": SYSCALL,
    "DELAY_PORT": DELAY,
    "EXIT_PASS": EXIT_VALUE_PASS,
    "EXIT_FAIL": EXIT_VALUE_FAIL,
    "EXIT_SKIP": EXIT_VALUE_SKIP,
    "BY_VMCALL": BY_VMCALL,
    "BY_VMMCALL": BY_VMMCALL,
    "HANDED_OVER": HANDED_OVER,
}
