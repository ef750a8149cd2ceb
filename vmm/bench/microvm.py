# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of the bench in QEMU's microvm: as a multiboot image that goes over to the mode and memory pyvmm gives it.

It knows QEMU and the guest map; what the guest does with its device is the caller's.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vmm.abi.x86 import PAGE
from vmm.bench import guests
from vmm.bench.guests import Guest
from vmm.bench.processes import PATIENCE, QEMU, NoPeer
from vmm.bench.sides import CODE
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot, descriptors

QEMU_PLACES, QEMU_STRIDE = 0xFEB0_0000, 0x200  # of virtio-mmio, in a microvm
LOAD = 0x40_0000  # of the image that QEMU loads: above what the guest has


class QemuGuest:
    """A guest of the bench in QEMU: a microvm whose stamp port is a byte on its standard output. It stands still
    between turns. `device` are QEMU's words for its device, `fds` the descriptors that these name.

    Raises:
        NoPeer: there is no QEMU, or its guest does not come to its first stamp.
    """

    def __init__(self, folder: Path, guest: Guest, base: int, device: Sequence[str], fds: Sequence[int] = ()) -> None:
        kernel = folder / "guest.bin"
        kernel.write_bytes(multiboot(guest, base))
        try:
            self._process = subprocess.Popen(
                [*command(kernel), *device],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(fds),
            )
        except OSError as error:
            raise NoPeer(f"{QEMU}: {error.strerror or error}") from error
        self.measure(1)

    def measure(self, rounds: int) -> list[float]:
        """The mean of these rounds, in ns: several stamps may come in one piece."""
        self._process.send_signal(signal.SIGCONT)
        self._stamps(1)
        begin = time.monotonic_ns()
        count = self._stamps(rounds)
        elapsed = time.monotonic_ns() - begin
        self._process.send_signal(signal.SIGSTOP)
        return [elapsed / count]

    def _stamps(self, count: int) -> int:
        """Read that many or more; how many."""
        pipe = self._process.stdout
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        found, end = 0, time.monotonic() + PATIENCE
        while found < count:
            try:
                data = os.read(pipe.fileno(), 4096)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise NoPeer(f"{QEMU}: its guest has said nothing for {PATIENCE:g} s") from None
                time.sleep(0.0001)
                continue
            if not data:
                raise NoPeer(f"{QEMU} ended: {self._said()}")
            found += len(data)
        return found

    def _said(self) -> str:
        pipe = self._process.stderr
        assert pipe is not None
        return pipe.read().decode("utf-8", "replace").strip()[-200:] or f"status {self._process.wait()}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def command(kernel: Path) -> list[str]:
    """QEMU without an iothread, and without anything it does not need."""
    return [
        QEMU, "-M", "microvm,ioapic2=off,pit=off,rtc=off", "-accel", "kvm", "-m", "16M", "-kernel", str(kernel),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-chardev", "stdio,id=c",
        "-device", f"isa-debugcon,iobase={guests.STAMP:#x},chardev=c",
        "-global", "virtio-mmio.force-legacy=false",
    ]  # fmt: skip


def multiboot(guest: Guest, base: int) -> bytes:
    """The guest as a flat multiboot image (GNU Multiboot Specification 0.6.96, 3.1): pyvmm's memory, a page at a time,
    and what copies it to its places and goes over to its 64-bit mode. At `base` it looks where its virtio devices are;
    0: it has none.
    """
    from vmm.asm.assembler import assemble

    with Machine(irqchip="split") as machine:
        memory = machine.memory
        boot.write_tables(memory, 1)
        memory.write(CODE, guest.code)
        if guest.handler is not None:
            gate = layout.REGIONS["idt"].base + 16 * guests.VECTOR
            memory.write(gate, descriptors.gate(CODE + guest.handler))
        machine.start(0, CODE)
        if base:
            memory.write(base, struct.pack("<2Q", QEMU_PLACES, QEMU_STRIDE))
        sregs, regs = machine.cpus[0].vcpu.get_sregs(), machine.cpus[0].vcpu.get_regs()
        _map_devices(machine, sregs.cr3)
        trampoline = layout.REGIONS["trampoline"].base
        switch = assemble(_SWITCH.format(
            gdt_limit=sregs.gdt.limit, gdt=sregs.gdt.base, idt_limit=sregs.idt.limit, idt=sregs.idt.base, cr3=sregs.cr3,
            cr4=sregs.cr4, efer=sregs.efer & ~EFER_LMA, cr0=sregs.cr0, cs=sregs.cs.selector, ss=sregs.ss.selector,
            rsp=regs.rsp, rip=CODE, base=trampoline,
        ), base=trampoline)  # fmt: skip
        memory.write(trampoline, switch.code)
        pages = [memory.read(at, PAGE) for at in range(0, memory.size, PAGE)]
    used = [(n * PAGE, page) for n, page in enumerate(pages) if page.strip(b"\0")]
    head = 32
    copier = _copier(trampoline, LOAD + PAGE)
    rows = b"".join(struct.pack("<2I", to, LOAD + 2 * PAGE + n * PAGE) for n, (to, _) in enumerate(used))
    rows += struct.pack("<2I", END, 0)
    magic, flags = 0x1BADB002, 1 << 16
    code_at = LOAD + head
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, LOAD, LOAD, 0, 0, code_at)
    first = (header + copier).ljust(PAGE, b"\0") + rows.ljust(PAGE, b"\0")
    return first + b"".join(page for _, page in used)


END = 0xFFFF_FFFF
EFER_LMA = 1 << 10
PD_ENTRY = 0x83 | 0x18  # present, writable, 2 MiB; not cached


def _map_devices(machine: Machine, cr3: int) -> None:
    """QEMU has its devices where pyvmm's boot page tables map nothing."""
    memory = machine.memory
    pdpt = memory.read_u64(cr3) & ~0xFFF
    directory = memory.read_u64(pdpt + 8 * (QEMU_PLACES >> 30)) & 0xF_FFFF_F000
    large = QEMU_PLACES >> 21
    memory.write_u64(directory + 8 * (large & 0x1FF), large << 21 | PD_ENTRY)


def _copier(entry: int, table: int) -> bytes:
    """32-bit code: copies pages by a table of (to, from), then jumps to `entry`.

    mov ebx, table; L: mov edi, [ebx]; cmp edi, -1; je done; mov esi, [ebx+4]; mov ecx, 1024; rep movsd; add ebx, 8;
    jmp L; done: mov eax, entry; jmp eax
    """
    loop = b"\x8b\x3b" + b"\x83\xff\xff" + b"\x74\x0f" + b"\x8b\x73\x04" + b"\xb9" + struct.pack("<I", PAGE // 4)
    loop += b"\xf3\xa5" + b"\x83\xc3\x08"
    loop += b"\xeb" + struct.pack("<b", -len(loop) - 2)
    return b"\xfa\xfc\xbb" + struct.pack("<I", table) + loop + b"\xb8" + struct.pack("<I", entry) + b"\xff\xe0"


_SWITCH = """
.code32
start:
    lgdt  [gdtr]
    mov   eax, {cr4:#x}
    mov   cr4, eax
    mov   eax, {cr3:#x}
    mov   cr3, eax
    mov   ecx, 0xc0000080
    rdmsr
    mov   eax, {efer:#x}
    wrmsr
    mov   eax, {cr0:#x}
    mov   cr0, eax
    jmp   far {cs:#x}:long
.code64
long:
    mov   eax, {ss:#x}
    mov   ss, eax
    mov   ds, eax
    mov   es, eax
    lidt  [rip + idtr]
    mov   esp, {rsp:#x}
    mov   eax, {rip:#x}
    jmp   rax
.p2align 3
    .short 0, 0, 0
gdtr:
    .short {gdt_limit:#x}
    .quad {gdt:#x}
    .short 0, 0, 0
idtr:
    .short {idt_limit:#x}
    .quad {idt:#x}
"""
