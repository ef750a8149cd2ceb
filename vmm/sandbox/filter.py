# SPDX-License-Identifier: GPL-2.0-or-later
"""calls.py as a program of the kernel's filter: classic BPF over struct seccomp_data. It decides nothing.

Numbers stand in order, one comparison a stretch that is answered alike; ioctl, which a guest's exits make, comes first.
A call of another architecture (32-bit code by int 0x80) or of x32 ends the process: their numbers mean other
calls. The kernel keeps the answers that need no argument (Linux 5.11), so that their place costs nothing.
"""

from __future__ import annotations

import errno
from struct import Struct

from vmm.abi import syscalls as abi
from vmm.sandbox.calls import ALL, KEPT, NEVER, SELF, TOOL_LACKS, TOOL_STARTS, UNKNOWN, Call, Only

KILL, ALLOW = abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_ALLOW
EPERM, ENOSYS = abi.SECCOMP_RET_ERRNO | errno.EPERM, abi.SECCOMP_RET_ERRNO | errno.ENOSYS

_pack = Struct("=HBBI").pack
FIRST = "ioctl"
PARTS = {"MACHINE": ("all", "kvm"), "COMPUTING": ("all",), "TOOL": ("tool",)}
"""The programs of compiled.py."""
Instructions = list[tuple[int, int, int, int]]
"""(code, jump if true, jump if false, k) of each: struct sock_filter."""


def answers(parts: tuple[str, ...]) -> dict[int, int | Call]:
    """By number, for every call of the table of numbers: a SECCOMP_RET_* word, or a Call whose arguments decide.

    Raises:
        KeyError: a row names a call that there is not.
    """
    if parts == PARTS["TOOL"]:
        return _tool()
    found: dict[int, int | Call] = dict.fromkeys(abi.NUMBERS.values(), EPERM)
    for names, answer in ((NEVER, KILL), (UNKNOWN, ENOSYS)):
        for name in names.split():
            found[abi.NUMBERS[name]] = answer
    for row in KEPT:
        if row.part in parts:
            for name in row.names.split():
                found[abi.NUMBERS[name]] = row if row.ways else ALLOW
    return found


def _tool() -> dict[int, int | Call]:
    lacks = {*NEVER.split(), *TOOL_LACKS.split()} - {*TOOL_STARTS.split()}
    return {number: EPERM if name in lacks else ALLOW for name, number in abi.NUMBERS.items()}


def program(parts: tuple[str, ...], pid: int) -> bytes:
    """The filter for the process `pid`, instructions of 8 bytes each: its own number is in it."""
    decided = answers(parts)
    made: Instructions = [
        (abi.BPF_LD_W_ABS, 0, 0, abi.ARCH_AT),
        (abi.BPF_JEQ_K, 1, 0, abi.AUDIT_ARCH_X86_64),
        (abi.BPF_RET_K, 0, 0, KILL),
        (abi.BPF_LD_W_ABS, 0, 0, abi.NR_AT),
        (abi.BPF_JGE_K, 0, 1, abi.X32_BIT),
        (abi.BPF_RET_K, 0, 0, KILL),
    ]
    first = abi.NUMBERS[FIRST]
    body = _body(decided[first], pid)
    made += [(abi.BPF_JEQ_K, 0, len(body), first), *body]
    numbers = sorted(decided)
    last: tuple[int | Call, int] | None = None  # what is answered so, up to where
    for number in numbers:
        answer = decided[number]
        if last is not None and (answer != last[0] or number != last[1]):
            made += _stretch(last[0], last[1], pid)
            last = None
        if last is None and number and number - 1 not in decided:
            made += _stretch(ENOSYS, number, pid)  # the gap below
        last = answer, number + 1
    if last is not None:
        made += _stretch(last[0], last[1], pid)
    made.append((abi.BPF_RET_K, 0, 0, ENOSYS))
    return b"".join(_pack(*each) for each in made)


def _stretch(answer: int | Call, end: int, pid: int) -> Instructions:
    """All numbers below `end` that came so far."""
    body = _body(answer, pid)
    return [(abi.BPF_JGE_K, len(body), 0, end), *body]


def _body(answer: int | Call, pid: int) -> Instructions:
    if isinstance(answer, int):
        return [(abi.BPF_RET_K, 0, 0, answer)]
    made: Instructions = []
    for way in answer.ways:
        made += _way(way, pid)
    return [*made, (abi.BPF_RET_K, 0, 0, EPERM)]


def _way(way: tuple[Only, ...], pid: int) -> Instructions:
    """Conditions that must all hold: allowed then, else the instruction behind these is next."""
    size = sum(_size(only) for only in way) + 1
    made: Instructions = []
    for only in way:
        made.append((abi.BPF_LD_W_ABS, 0, 0, abi.ARGS_AT + 8 * only.argument + 4 * only.high))
        if only.mask != ALL:
            made.append((abi.BPF_AND_K, 0, 0, only.mask))
        left = len(only.values)
        for value in only.values:
            left -= 1
            fail = size - len(made) - 1
            word = pid if value == SELF else value
            if only.unless:
                made.append((abi.BPF_JEQ_K, fail, 0, word))
            else:
                made.append((abi.BPF_JEQ_K, left, 0 if left else fail, word))
    return [*made, (abi.BPF_RET_K, 0, 0, ALLOW)]


def _size(only: Only) -> int:
    return 1 + (only.mask != ALL) + len(only.values)
