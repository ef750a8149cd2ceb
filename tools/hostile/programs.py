# SPDX-License-Identifier: GPL-2.0-or-later
"""One hostile program by its number: what is put into a machine before it runs. The same seed gives the same program.

Four kinds, in turn: random bytes as code; random page tables; random descriptors and segment registers; and exits of
every kind, instructions that are well-formed with operands that are not. It knows guest memory and registers; it runs
nothing.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from vmm.abi.x86 import PAGE
from vmm.errors import VmmError
from vmm.kvm.state import Regs
from vmm.machine.memory.layout import REGIONS

KINDS = ("bytes", "tables", "descriptors", "exits")
BOARDS = ({}, {"irqchip": "split"}, {"board": "pc"}, {"irqchip": "none"})
CODE = REGIONS["code"].base
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 47, (1 << 63) - 1, 1 << 63)


def rng_of(seed: int, number: int) -> random.Random:
    """The numbers of one program."""
    return random.Random(f"{seed}:{number}")


def shape(number: int) -> tuple[str, dict[str, str]]:
    """(kind, arguments of Machine) of a program."""
    return KINDS[number % len(KINDS)], BOARDS[number // len(KINDS) % len(BOARDS)]


def put(machine: Any, kind: str, rng: random.Random) -> str:
    """Put the program into the machine: an empty text, or what KVM did not take of it."""
    memory, vcpu = machine.memory, machine.cpus[0].vcpu
    memory.write(CODE, rng.randbytes(rng.choice((16, 64, 512))) if kind == "bytes" else exits(rng))
    try:
        if kind == "tables":
            _tables(memory, rng)
        elif kind == "descriptors":
            _descriptors(memory, vcpu, rng)
        if rng.random() < 0.5:
            vcpu.set_regs(_registers(rng))
    except VmmError as error:
        return error.one_line
    return ""


def _registers(rng: random.Random) -> Regs:
    names = [name for name in Regs.__record__ if name not in ("rsp", "rip", "rflags")]
    values = {name: _number(rng) for name in names}
    return Regs(**values, rsp=REGIONS["user"].base + 0x1000 if rng.random() < 0.7 else _number(rng), rip=CODE, rflags=2)


def _number(rng: random.Random) -> int:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.getrandbits(64)
    if kind == 1:
        return rng.choice(EDGES)
    if kind == 2:
        region = rng.choice(list(REGIONS.values()))
        return region.base + rng.randrange(-16, region.size + 16) & (1 << 63) - 1
    return rng.randrange(1 << 22)


def _tables(memory: Any, rng: random.Random) -> None:
    """Entries that point everywhere, with rights of every kind; some of them to themselves."""
    base, size = REGIONS["page_tables"].base, REGIONS["page_tables"].size
    for _ in range(rng.randrange(1, 48)):
        at = base + 8 * rng.randrange(size // 8)
        target = rng.choice((base + PAGE * rng.randrange(size // PAGE), rng.getrandbits(52), CODE, 0, memory.size))
        memory.write(at, struct.pack("<Q", (target & ~0xFFF | rng.getrandbits(12) | rng.getrandbits(1) << 63)))


def _descriptors(memory: Any, vcpu: Any, rng: random.Random) -> None:
    for name in ("gdt", "idt"):
        row = REGIONS[name]
        if rng.random() < 0.7:
            memory.write(row.base, rng.randbytes(min(row.size, 0x1000)))
    if rng.random() < 0.5:
        return
    sregs = vcpu.get_sregs()
    for name in rng.sample(("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"), rng.randrange(1, 4)):
        row = getattr(sregs, name)
        for field in rng.sample(list(row.__record__), 3):
            limit = {"base": 64, "limit": 32, "selector": 16, "type": 4, "dpl": 2}.get(field, 1)
            setattr(row, field, rng.getrandbits(limit))
    if rng.random() < 0.3:
        setattr(sregs, rng.choice(("cr0", "cr3", "cr4", "efer", "cr8", "apic_base")), _number(rng))
    vcpu.set_sregs(sregs)


def exits(rng: random.Random) -> bytes:
    """Up to 40 instructions that leave the guest, or try to: ports, MMIO, MSRs, CPUID, hypercalls, traps, halts."""
    made = b"".join(rng.choice(_EXITS)(rng) for _ in range(rng.randrange(1, 40)))
    return made + b"\xf4"


def _codes(text: str) -> tuple[bytes, ...]:
    """Instructions, each as hexadecimal digits."""
    return tuple(bytes.fromhex(each) for each in text.split())


def _imm(rng: random.Random, opcode: bytes, size: int = 4) -> bytes:
    return opcode + rng.randbytes(size)


def _mov(rng: random.Random) -> bytes:
    """mov r64, imm64."""
    return bytes((0x48 | rng.getrandbits(1), 0xB8 | rng.randrange(8))) + struct.pack("<Q", _number(rng))


def _port(rng: random.Random) -> bytes:
    """mov edx, port; rep or not, in/out/ins/outs of each width."""
    port = rng.choice((0xE9, 0xF4, 0x3F8, 0x60, 0x64, 0x70, 0xCF8, 0xCFC, 0x20, 0x40, 0x43, rng.getrandbits(16)))
    count = b"\xb9" + struct.pack("<I", rng.choice((0, 1, 3, 4095, 70000)))
    one = rng.choice((b"\xec", b"\xed", b"\xee", b"\xef", b"\x6c", b"\x6d", b"\x6e", b"\x6f"))
    return b"\xba" + struct.pack("<I", port) + count + rng.choice((b"", b"\xf3", b"\xf2", b"\x66", b"\x67")) + one


_ACCESSES = _codes("8807 8907 488907 8a07 8b07 488b07 f00107 f3a4 f3ab 0f7f07 668907 ff07 488707")


def _mmio(rng: random.Random) -> bytes:
    """mov edi, address; a read, a write, a string, an atomic of each width."""
    row = rng.choice([each for each in REGIONS.values() if not each.ram])
    address = row.base + rng.randrange(row.size) - rng.choice((0, 0, 0, 8))
    one = rng.choice(_ACCESSES)
    return b"\xb9" + struct.pack("<I", rng.choice((1, 5, 5000))) + b"\xbf" + struct.pack("<I", address) + one


def _msr(rng: random.Random) -> bytes:
    """mov ecx, MSR; rdmsr or wrmsr: KVM's, the LAPIC's, anything."""
    msr = rng.choice((rng.getrandbits(32), 0x4B564D00 + rng.randrange(16), 0x800 + rng.randrange(64), 0x1B, 0xC0000080,
                      0x40000000 + rng.randrange(0x120), 0x10))  # fmt: skip
    value = (
        b"\xb8"
        + struct.pack("<I", _number(rng) & 0xFFFFFFFF)
        + b"\xba"
        + struct.pack("<I", rng.choice((0, 1, ~0 & 0xFFFFFFFF)))
    )
    return b"\xb9" + struct.pack("<I", msr) + value + rng.choice((b"\x0f\x32", b"\x0f\x30"))


def _virtio(rng: random.Random) -> bytes:
    """A register of a virtio device's page: mov edi, address; mov dword ptr [rdi], value."""
    at = REGIONS["virtio_mmio"].base + 0x1000 * rng.randrange(3) + 4 * rng.randrange(0x48)
    value = rng.choice((0, 1, 2, 3, 4, 0xB, 0xF, 128, 0x40000, rng.getrandbits(32)))
    return b"\xbf" + struct.pack("<I", at) + b"\xc7\x07" + struct.pack("<I", value)


def _raw(text: str) -> Any:
    codes = _codes(text)
    return lambda rng: rng.choice(codes)


_EXITS = (
    _mov, _port, _port, _mmio, _mmio, _msr, _virtio, _virtio,
    _raw("0fa2 0f01c1 0f01d9 0f0b f4 cc fbf4 f390"),
    _raw("0f20c0 0f22c0 0f22d8 0f22e0 440f22c0 0f06 0f09"),
    _raw("0f0117 0f011f 0f00d8 0f00d0 0fae07 0fae0f 0fc70f"),
    _raw("48cf cb c3 0f05 0f07 0f34 0f35 0f01f8 0fc737"),
    lambda rng: b"\xcd" + rng.randbytes(1),  # int n
    lambda rng: _imm(rng, b"\xe9"),  # jmp far away
    lambda rng: b"\xeb" + bytes((rng.choice((0xFE, 0xFC, 0x10)),)),
)  # fmt: skip
