# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of the bench are bytes with their assembly in a comment: the disassembler says whether it is true."""

from __future__ import annotations

import pytest

from vmm.asm.disassembler import disassemble
from vmm.bench import guests


def text(code: bytes) -> list[str]:
    return [each.text for each in disassemble(code, 0)]


@pytest.mark.parametrize("instruction", ["vmcall", "vmmcall"])
def test_map_gpa_range_is_a_hypercall_with_its_arguments(instruction: str) -> None:
    once = ["mov eax, 0xc", instruction]
    assert text(guests.map_gpa_range(2, instruction).code) == [
        "mov ebx, 0xb0000", "mov ecx, 1", "xor edx, edx", *once, *once, "out 0x81, al", "jmp 0xc",
    ]  # fmt: skip


def test_a_doorbell_waits_for_its_answer() -> None:
    found = text(guests.doorbell(1).code)
    assert found == [
        "mov ebx, dword ptr [0xa0000]", "out 0x80, al", "pause", "cmp ebx, dword ptr [0xa0000]", "je 9",
        "out 0x81, al", "jmp 0",
    ]  # fmt: skip


def test_an_ipi_waits_until_it_is_counted() -> None:
    guest = guests.ipi(1)
    assert guest.second is not None
    assert guest.handler is not None
    first, second = text(guest.code[: guest.second]), text(guest.code[guest.second : guest.handler])
    sent = first.index("mov ecx, 0x830")
    assert first[sent + 3] == "wrmsr"
    assert first[sent + 4 : sent + 6] == ["pause", "cmp ebx, dword ptr [0xa0000]"]
    assert second[-3:-1] == ["sti", "hlt"]
    assert text(guest.code[guest.handler :])[0] == "lock inc dword ptr [0xa0000]"
