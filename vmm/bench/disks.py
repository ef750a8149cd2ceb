# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio disks: 4 KiB reads at random places by a driver of our own, beside the C floor's disk and beside QEMU's."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from vmm.abi import apic
from vmm.abi.x86 import PAGE
from vmm.bench import disk_guest, ending, guests
from vmm.bench.compare import Budget, Goal, Row, as_rate, per_operation, pinned, row_of, take_turns
from vmm.bench.floor import Floor
from vmm.bench.processes import PATIENCE, QEMU, NoPeer, peer_name
from vmm.bench.sides import CODE, Batch, Side
from vmm.bench.spec import Spec
from vmm.bench.stats import Pair
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot, descriptors

COUNT = 50  # requests in a round
DEPTH = 8
QEMU_PLACES, QEMU_STRIDE = 0xFEB0_0000, 0x200  # of virtio-mmio, in a microvm
LOAD = 0x40_0000  # of the image that QEMU loads: above what the guest has


class DiskReads(Batch):
    """A guest that reads from a disk over `path`."""

    def __init__(self, path: Path, depth: int) -> None:
        super().__init__(disk_guest.disk_reads(depth, COUNT), irqchip="split")
        self.disk = self.machine.add_virtio_blk(path, readonly=True, vector=guests.VECTOR)
        self.machine.memory.write(disk_guest.BASE, struct.pack("<2Q", self.disk.base, PAGE))
        self.set_up |= {"msi_address": apic.msi_address(0), "msi_data": apic.msi_data(guests.VECTOR)}


class QemuReads:
    """The same guest in QEMU: a microvm whose stamp port is a byte on its standard output. It stands still between
    turns.

    Raises:
        NoPeer: there is no QEMU, or its guest does not come to its first stamp.
    """

    def __init__(self, folder: Path, path: Path, depth: int) -> None:
        kernel = folder / "reads.bin"
        kernel.write_bytes(multiboot(depth))
        try:
            self._process = subprocess.Popen(
                command(kernel, path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
                    raise NoPeer(f"{QEMU}: its guest has read nothing for {PATIENCE:g} s") from None
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


def command(kernel: Path, path: Path) -> list[str]:
    """QEMU without an iothread, and without anything it does not need."""
    return [
        QEMU, "-M", "microvm,ioapic2=off,pit=off,rtc=off", "-accel", "kvm", "-m", "16M", "-kernel", str(kernel),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-chardev", "stdio,id=c",
        "-device", f"isa-debugcon,iobase={guests.STAMP:#x},chardev=c",
        "-global", "virtio-mmio.force-legacy=false", "-drive", f"if=none,id=d,format=raw,readonly=on,file={path}",
        "-device", "virtio-blk-device,drive=d",
    ]  # fmt: skip


def multiboot(depth: int) -> bytes:
    """The guest as a flat multiboot image (GNU Multiboot Specification 0.6.96, 3.1): pyvmm's memory, a page at a time,
    and what copies it to its places and goes over to its 64-bit mode.
    """
    from vmm.asm.assembler import assemble

    guest = disk_guest.disk_reads(depth, COUNT)
    with Machine(irqchip="split") as machine:
        memory = machine.memory
        boot.write_tables(memory, 1)
        memory.write(CODE, guest.code)
        assert guest.handler is not None
        gate = layout.REGIONS["idt"].base + 16 * guests.VECTOR
        memory.write(gate, descriptors.gate(CODE + guest.handler))
        machine.start(0, CODE)
        memory.write(disk_guest.BASE, struct.pack("<2Q", QEMU_PLACES, QEMU_STRIDE))
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


def _turns(ours: DiskReads, peer: Side | None, budget: Budget) -> Pair:
    return per_operation(take_turns(ours, peer, budget), COUNT)


def _measured(row: Row, depth: int, budget: Budget, *, qemu: bool) -> Row:
    """`row` with the figures; without QEMU those of pyvmm alone."""
    why, name = "", "C"
    with pinned(2), ExitStack() as stack:
        folder = stack.enter_context(ending.folder())
        path = folder / "disk"
        path.write_bytes(os.urandom(disk_guest.DISK_SIZE))
        ours = DiskReads(path, depth)
        stack.callback(ours.close)
        try:
            peer: Side
            if qemu:
                name = peer_name(QEMU)
                peer = QemuReads(folder, path, depth)
            else:
                peer = Floor("disk", str(path), hex(ours.disk.base), guest=ours.image())
            stack.callback(peer.close)
            pair = _turns(ours, peer, budget)
        except NoPeer as error:
            pair, why = _turns(ours, None, budget), str(error)
    made = row_of(pair, row)
    return replace(made, why=why) if why else replace(made, peer=name)


def _row(name: str, what: str, depth: int, goal: Goal, *, qemu: bool = False, rate: bool = False) -> Spec:
    row = Row(name, "goals", what, "C core", peer="QEMU" if qemu else "C", goal=goal)

    def measure(budget: Budget) -> Row:
        made = _measured(row, depth, budget, qemu=qemu)
        return as_rate(made) if rate else made

    return Spec(row, measure)


def specs() -> Iterator[Spec]:
    """The rows of this module. The goals of a rate are of what pyvmm does a second, over what the other does."""
    one, many = "4 KiB from a virtio disk, at random", f"the same, {DEPTH} in flight, as reads a second"
    enough = Goal(0.7, "at least 0.70 x", better="higher")
    yield _row("disk_read", one, 1, Goal(1.1, "at most 1.10 x"))
    yield _row("disk_read_qemu", f"{one}; QEMU's, without an iothread", 1, Goal(1.0, "at most 1.00 x"), qemu=True)
    yield _row("disk_rate", many, DEPTH, Goal(0.9, "at least 0.90 x", better="higher"), rate=True)
    yield _row("disk_rate_qemu", f"{many}; QEMU's, without an iothread", DEPTH, enough, qemu=True, rate=True)
