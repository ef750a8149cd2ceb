# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine.snapshot, reset and fork on the device: what a guest can change is put back."""

from __future__ import annotations

import gc
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.left_behind import files_before, open_files
from vmm import Machine
from vmm.abi.msrs import msr_name
from vmm.errors import HostError, UsageError
from vmm.kvm.state import Sregs
from vmm.machine.ends import Why
from vmm.machine.snapshot import Snapshot

pytestmark = pytest.mark.kvm

COUNTS = """
start:  mov rdi, 0x40000
        mov rcx, {pages}
again:  inc qword ptr [rdi]
        add rdi, 4096
        dec rcx
        jnz again
        hlt
"""
# By themselves these run on: the state is asked a moment later. 0x40000010 is Hyper-V's count of a vCPU's time.
RUNS_ON = {"IA32_TSC", "MSR_IA32_TSC", "IA32_TIME_STAMP_COUNTER", "MSR 0x40000010", "HV_X64_MSR_TIME_REF_COUNT"}


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made


def msrs(part: bytes) -> dict[str, int]:
    count = struct.unpack_from("<I", part)[0]
    rows = struct.iter_unpack("<IIQ", part[8 : 8 + 16 * count])
    return {msr_name(index): value for index, _, value in rows}


def state(machine: Machine) -> dict[str, object]:
    """What KVM says now, each structure by its name; the time that goes by left out."""
    with machine.snapshot() as now:
        found: dict[str, object] = {}
        for name, part in now.parts.items():
            if name.endswith("msrs"):
                values = msrs(part)
                found |= {f"{name} {each}": value for each, value in values.items() if each not in RUNS_ON}
            elif name != "clock":
                found[name] = part
        return found


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


@pytest.mark.every_host
def test_a_reset_puts_back_the_pages_that_were_written(machine: Machine) -> None:
    machine.load(COUNTS.format(pages=10))
    snap = machine.snapshot()
    for _ in range(3):
        assert machine.run(5).stop.why is Why.HALT
        assert [machine.memory.read_u64(0x40000 + page * 4096) for page in (0, 9)] == [1, 1]
        put = machine.reset(snap)
        assert [machine.memory.read_u64(0x40000 + page * 4096) for page in (0, 9)] == [0, 0]
        assert 10 <= put <= 10 + 6  # and those of its tables, in which the CPU sets accessed and dirty bits
    assert machine.reset(snap) == 0


def test_the_cost_is_that_of_what_was_touched_not_of_memory() -> None:
    with Machine(memory="512M") as machine:
        machine.load(COUNTS.format(pages=3))
        snap = machine.snapshot()
        assert snap.size == 512 << 20
        assert snap.touched < 1 << 20
        assert machine.run(5).stop.why is Why.HALT
        assert machine.reset(snap) < 16


WRITES = {
    "write": lambda memory: memory.write(0x40FF0, bytes(range(1, 65))),
    "write_u64": lambda memory: memory.write_u64(0x40000, 0x1234),
    "write_u16 at the end of a page": lambda memory: memory.write_u16(0x40FFF, 0xABCD),
    "pack": lambda memory: memory.pack("QI", 0x40000, 1, 2),
    "fill": lambda memory: memory.fill(0x40000, 9000, 7),
    "clear": lambda memory: memory.clear(0x41000, 8192),
}


@pytest.mark.parametrize("how", WRITES)
def test_what_the_host_wrote_is_put_back(machine: Machine, how: str) -> None:
    machine.memory.write(0x40000, random.Random(1).randbytes(16384))
    before = machine.memory.read(0, machine.memory.size)
    snap = machine.snapshot()
    WRITES[how](machine.memory)
    assert machine.memory.read(0, machine.memory.size) != before
    assert machine.reset(snap) in (1, 2, 3)
    assert machine.memory.read(0, machine.memory.size) == before


def test_several_snapshots_of_one_machine(machine: Machine) -> None:
    """KVM tells each write once; each snapshot has to hear of it, of what another put back too."""
    page = [0x40000 + number * 4096 for number in range(4)]

    def values() -> list[int]:
        return [machine.memory.read_u64(each) for each in page]

    machine.load(COUNTS.format(pages=2))
    zero = machine.snapshot()
    machine.run(5)
    machine.reset(zero)
    machine.memory.write_u64(page[3], 5)
    five = machine.snapshot()
    machine.run(5)
    one = machine.snapshot()
    machine.memory.write_u64(page[2], 9)
    nine = machine.snapshot()
    order = random.Random(7)
    wanted = {zero: [0, 0, 0, 0], five: [0, 0, 0, 5], one: [1, 1, 0, 5], nine: [1, 1, 9, 5]}
    for _ in range(60):
        snap = order.choice(list(wanted))
        if snap in (zero, five):
            machine.reset(snap)
            machine.run(5)
        machine.memory.write_u64(order.choice(page), order.randrange(1 << 60))
        machine.reset(snap)
        assert values() == wanted[snap]
    one.close()
    machine.reset(zero)
    assert values() == wanted[zero]
    machine.reset(nine)
    assert values() == wanted[nine]


# What a guest can leave behind it, by the part of the state that it should show in.
LEAVES = {
    "vcpu 0 regs": "mov r15, 0x1122334455667788; std; hlt",
    "vcpu 0 sregs": "mov rax, cr4; or rax, 4; mov cr4, rax; mov ax, 0; mov gs, ax; hlt",
    "vcpu 0 xsave": "mov rax, cr0; and rax, ~4; mov cr0, rax; mov rax, cr4; or rax, 0x200; mov cr4, rax; "
                    "movdqu xmm3, [0x1000]; hlt",
    "vcpu 0 debugregs": "mov rax, 0x77; mov dr0, rax; mov rax, 0x700; mov dr7, rax; hlt",
    "vcpu 0 msrs MSR_STAR": "mov ecx, 0xC0000081; mov eax, 5; mov edx, 6; wrmsr; hlt",
    "vcpu 0 msrs MSR_LSTAR": "mov ecx, 0xC0000082; mov eax, 5; mov edx, 6; wrmsr; hlt",
    "vcpu 0 msrs MSR_KERNEL_GS_BASE": "mov ecx, 0xC0000102; mov eax, 5; mov edx, 6; wrmsr; hlt",
    "vcpu 0 msrs MSR_IA32_SYSENTER_EIP": "mov ecx, 0x176; mov eax, 5; mov edx, 0; wrmsr; hlt",
    "vcpu 0 msrs MSR_IA32_CR_PAT": "mov ecx, 0x277; mov eax, 0x00010406; mov edx, 0x00070406; wrmsr; hlt",
    "vcpu 0 msrs MSR_MTRRphysBase0": "mov ecx, 0x200; mov eax, 0x80000006; mov edx, 0; wrmsr; hlt",
    "vcpu 0 msrs MSR_MTRRdefType": "mov ecx, 0x2FF; mov eax, 0xC06; mov edx, 0; wrmsr; hlt",
    "vcpu 0 msrs MSR_KVM_SYSTEM_TIME_NEW": "mov ecx, 0x4B564D01; mov eax, 0x50001; mov edx, 0; wrmsr; hlt",
    "vcpu 0 msrs MSR_KVM_WALL_CLOCK_NEW": "mov ecx, 0x4B564D00; mov eax, 0x51000; mov edx, 0; wrmsr; hlt",
    "vcpu 0 msrs MSR_KVM_STEAL_TIME": "mov ecx, 0x4B564D03; mov eax, 0x52001; mov edx, 0; wrmsr; hlt",
    "vcpu 0 lapic": "mov eax, 0xfee000f0; mov dword ptr [rax], 0x1ff; mov eax, 0xfee00320; mov dword ptr [rax], 0x30; "
                    "hlt",
    "chips": "mov al, 0xA5; out 0x21, al; mov al, 0x5A; out 0xA1, al; hlt",
    "pit": "mov al, 0x34; out 0x43, al; mov al, 1; out 0x40, al; out 0x40, al; hlt",
}  # fmt: skip


@pytest.mark.every_host
@pytest.mark.on_demand
@pytest.mark.parametrize("irqchip", ["none", "kernel"])
@pytest.mark.parametrize("part", LEAVES)
def test_nothing_can_be_smuggled(part: str, irqchip: str) -> None:
    if irqchip == "none" and part in ("chips", "pit", "vcpu 0 lapic"):
        pytest.skip("a machine without an interrupt controller has none of it")
    if irqchip == "kernel" and part == "pit":
        irqchip_has_no_pit = True
        with Machine(irqchip="kernel") as asked:
            irqchip_has_no_pit = not asked.vm.has_pit
        if irqchip_has_no_pit:
            pytest.skip("this board has no PIT of KVM's")
    with Machine(irqchip=irqchip) as machine:  # type: ignore[arg-type]
        machine.load(LEAVES[part] if irqchip == "none" else LEAVES[part].replace("hlt", "mov al, 0; out 0xf4, al"))
        snap = machine.snapshot()
        before, memory = state(machine), machine.memory.read(0, machine.memory.size)
        result = machine.run(5)
        if result.stop.why not in (Why.HALT, Why.EXIT_PORT):
            pytest.skip(f"this host's guests cannot do that: {result.stop.text}")
        left = differences(before, state(machine))
        assert part in left, left
        machine.reset(snap)
        assert differences(before, state(machine)) == []
        assert machine.memory.read(0, machine.memory.size) == memory


def test_cr8_of_a_machine_without_a_lapic_is_put_back(machine: Machine) -> None:
    """It has a second place, in kvm_run, from which the next KVM_RUN takes it."""
    machine.load("start: mov rbx, cr8; mov rax, 9; mov cr8, rax; hlt")
    snap = machine.snapshot()
    for _ in range(2):
        machine.run(5)
        assert machine.regs.rbx == 0
        machine.reset(snap)
    saved = machine.save()
    machine.run(5)
    machine.restore(saved)
    machine.run(5)
    assert machine.regs.rbx == 0


def test_devices_are_put_back(machine: Machine) -> None:
    machine.load("""
        start: mov dx, 0x3fb
               in al, dx
               mov bl, al
               mov al, 3
               out dx, al
               hlt
    """)
    snap = machine.snapshot()
    for _ in range(3):
        machine.run(5)
        assert machine.regs.bl == 0
        machine.reset(snap)


def test_two_vcpus_with_their_lapics() -> None:
    with Machine(cpus=2, irqchip="kernel") as machine:
        machine.load("""
            start:  lock inc qword ptr [0x40000]
            wait1:  pause
                    cmp qword ptr [0x40000], 2
                    jne wait1
                    mov al, 0
                    out 0xf4, al
            other:  lock inc qword ptr [0x40000]
            spin:   pause
                    jmp spin
        """)
        machine.start(1, "other")
        snap = machine.snapshot()
        before = state(machine)
        for _ in range(5):
            assert machine.run(10).stop.why is Why.EXIT_PORT
            assert machine.memory.read_u64(0x40000) == 2
            machine.reset(snap)
            assert machine.memory.read_u64(0x40000) == 0
        assert differences(before, state(machine)) == []


def test_a_fork_has_its_own_memory(machine: Machine) -> None:
    machine.load(COUNTS.format(pages=4))
    machine.memory.write_u64(0x43008, 77)
    snap = machine.snapshot()
    machine.run(5)
    twins = [machine.fork(snap) for _ in range(3)]
    try:
        for twin in twins:
            assert twin.memory.read_u64(0x40000) == 0
            assert twin.memory.read_u64(0x43008) == 77
            assert twin.run(5).stop.why is Why.HALT
            assert twin.memory.read_u64(0x40000) == 1
        again = twins[0].snapshot()  # a fork is a machine like any
        twins[0].memory.write_u64(0x40000, 9)
        twins[0].reset(again)
        assert twins[0].memory.read_u64(0x40000) == 1
        assert twins[1].fork(twins[1].snapshot()).memory.read_u64(0x43008) == 77
    finally:
        for twin in twins:
            twin.close()
    machine.reset(snap)
    assert machine.memory.read_u64(0x40000) == 0


def test_a_fork_copies_nothing_of_a_large_machine() -> None:
    with Machine(memory="64M") as machine:
        machine.memory.fill(0x100000, 60 << 20, 0x5A)
        machine.load(
            "mov eax, [0x3000000]; mov rbx, 0x2000000; mov dword ptr [rbx], 7; mov dword ptr [rbx + 0x5000], 7; hlt"
        )
        snap = machine.snapshot()
        before = _private_bytes()
        with machine.fork(snap) as twin:
            twin.run(5)
            assert twin.regs.eax == 0x5A5A5A5A
            assert _private_bytes() - before < 8 << 20
            (slot,) = twin.memory.slots
            own = _of_mapping(slot.hva)
            assert own["Size"] >= 60 << 20
            assert 2 * 4096 <= own["Anonymous"] <= 32 * 4096  # what it wrote: two pages, tables, its stack
            assert twin.memory.read_u64(0x2005000) == 0x5A5A5A5A_00000007
        assert machine.memory.read_u64(0x2005000) == 0x5A5A5A5A_5A5A5A5A


def _of_mapping(address: int) -> dict[str, int]:
    """What of the mapping at that address is where, in bytes by the names of proc(5), smaps."""
    found: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *values = line.split()
        if "-" in name and not name.endswith(":"):
            first, last = (int(each, 16) for each in name.split("-"))
            inside = first <= address < last
        elif inside and values[-1] == "kB":
            found[name.rstrip(":")] = int(values[0]) * 1024
    return found


def _private_bytes() -> int:
    """What this process has for itself: anonymous memory, in bytes (proc(5), smaps_rollup)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no line Anonymous")


def test_what_is_no_snapshot_of_this_machine_is_refused(machine: Machine) -> None:
    machine.load("hlt")
    snap = machine.snapshot()
    with Machine() as other, pytest.raises(UsageError, match="another machine") as caught:
        other.reset(snap)
    assert "fork" in caught.value.hint
    machine.memory.add(0x40000000, 4096)
    with pytest.raises(UsageError, match="memslots"):
        machine.reset(snap)
    snap.close()
    snap.close()
    with pytest.raises(UsageError, match="closed"):
        machine.fork(snap)
    with Machine() as gone:
        ended = gone.snapshot()
    with pytest.raises(HostError, match="closed"):
        gone.reset(ended)


def test_a_fork_needs_the_same_devices(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with Machine() as machine:
        machine.add_virtio_blk(disk)
        machine.load("hlt")
        snap = machine.snapshot()
        with pytest.raises(UsageError, match="this one has no"):
            machine.fork(snap)
        with machine.fork(snap, lambda twin: twin.add_virtio_blk(disk)) as twin:
            assert twin.run(5).stop.why is Why.HALT


def test_one_that_is_refused_leaves_nothing_behind(machine: Machine) -> None:
    """What ends it early is raised, and no more: not by what was made of it either, when it goes."""
    machine.load("hlt")
    before = files_before()

    def refused() -> int:
        raise UsageError("not now")

    machine.all_cpus.settle = refused
    with pytest.raises(UsageError, match="not now"):
        machine.snapshot()
    gc.collect()
    assert open_files() == before


def test_a_log_that_is_read_otherwise_is_refused() -> None:
    def by_hand(machine: Machine) -> None:
        from vmm.machine.extra.dirty_pages import protect_manually

        protect_manually(machine.vm)

    with Machine(before_vcpus=by_hand) as machine, pytest.raises(UsageError, match="MANUAL_DIRTY_LOG_PROTECT2"):
        machine.snapshot()


def test_a_guest_that_is_inside_of_an_exit(machine: Machine) -> None:
    """The exit port's OUT is not over when the run ends; what it still does must not reach the registers put back."""
    machine.load("start: mov rbx, 5; mov al, 1; out 0xf4, al; hlt")
    snap = machine.snapshot()
    at = machine.regs.rip
    for _ in range(3):
        assert machine.run(5).stop.why is Why.EXIT_PORT
        machine.reset(snap)
        assert machine.regs.rip == at


def test_many_resets_keep_nothing(machine: Machine) -> None:
    machine.load(COUNTS.format(pages=2))
    snap = machine.snapshot()

    def turns(count: int) -> None:
        for _ in range(count):
            machine.run(5)
            machine.reset(snap)

    turns(50)
    before = files_before(), _private_bytes()
    turns(500)
    assert open_files() == before[0]
    assert _private_bytes() - before[1] < 1 << 20


def test_sregs_say_what_the_next_run_has(machine: Machine) -> None:
    machine.load("mov rbx, cr8; hlt")
    sregs: Sregs = machine.cpus[0].vcpu.get_sregs()
    sregs.cr8 = 7
    machine.cpus[0].vcpu.set_sregs(sregs)
    machine.run(5)
    assert machine.regs.rbx == 7


def test_a_snapshot_outlives_its_machine() -> None:
    with Machine() as machine:
        machine.load(COUNTS.format(pages=1))
        snap = machine.snapshot()
        with machine.fork(snap) as twin:
            machine.close()
            assert isinstance(snap, Snapshot)
            assert twin.run(5).stop.why is Why.HALT
