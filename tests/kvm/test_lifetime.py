# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors and mappings: nothing is left after a close, in any order; a closed thing is an error, not a crash."""

from __future__ import annotations

import errno
import gc
import itertools
import resource
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.left_behind import files_before, open_files
from vmm.errors import HostError, KvmCallError, VmmError, exhausted, resource_hint
from vmm.kvm import Kvm, kick
from vmm.kvm.exits import Halt
from vmm.kvm.memory import Mapping
from vmm.machine.ends import Why
from vmm.machine.extra.ioeventfd import WriteEvent
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot

HLT = b"\xf4"


@pytest.fixture(autouse=True)
def _swept_floor() -> None:
    """A machine that an earlier test left in a cycle is not one that these left."""
    gc.collect()


def kvm_files() -> int:
    return sum("kvm" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


def kvm_maps() -> int:
    return sum("anon_inode:kvm" in line for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines())


def address_space() -> int:
    """Bytes mapped by this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def timers() -> int:
    lines = Path("/proc/self/timers").read_text(encoding="ascii").splitlines()
    return sum(line.startswith("ID:") for line in lines)


def binding_cycle() -> None:
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        memory = Mapping(0x1_0000)
        vm.set_user_memory_region(0, 0, memory)
        vcpu = vm.create_vcpu(0)
        memory.bytes[0x1000] = HLT[0]
        sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
        sregs.cs.base = sregs.cs.selector = 0
        regs.rip = 0x1000
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)
        assert vcpu.run() == Halt()


def machine_cycle() -> None:
    with Machine(cpus=2, irqchip="split") as machine:
        boot.write_tables(machine.memory, 2)
        machine.memory.write(layout.REGIONS["code"].base, b"\xe6\xf4")  # out 0xf4, al
        machine.start(0, layout.REGIONS["code"].base)
        assert machine.run(timeout=5).stop.why is Why.EXIT_PORT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cycle", "growth"),
    [
        (binding_cycle, 8 << 20),  # 1,000 times 64 KiB of guest memory would be 64 MiB
        (machine_cycle, 256 << 20),  # 2 GiB; glibc keeps a few thread stacks and arenas for itself
    ],
)
def test_a_thousand_cycles_leave_nothing(cycle: Callable[[], None], growth: int):
    for _ in range(20):
        cycle()  # caches, the thread's stack and the allocator's arenas are filled
    files, threads, waiting, size = files_before(), threading.active_count(), timers(), address_space()
    for _ in range(1000):
        cycle()
    assert open_files() == files
    assert kvm_files() == kvm_maps() == 0
    assert threading.active_count() == threads
    assert timers() == waiting
    assert address_space() - size < growth


def test_what_is_counted_is_there_while_it_lives():
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        before = kvm_files(), kvm_maps()
        vcpu = vm.create_vcpu(0)
        assert kvm_files() - before[0] == 1
        assert kvm_maps() - before[1] == 1
        vcpu.close()
        assert (kvm_files(), kvm_maps()) == before
    assert (kvm_files(), kvm_maps()) == (0, 0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_any_order_of_closing_will_do(order):
    kvm = Kvm.open()
    vm = kvm.create_vm()
    memory = Mapping(0x1000)
    vm.set_user_memory_region(0, 0, memory)
    things = [kvm, vm, vm.create_vcpu(0), vm.create_vcpu(1)]
    for index in (*order, *order):
        things[index].close()
    assert kvm_files() == kvm_maps() == 0
    assert memory.bytes.closed


def test_statistics_outlive_their_vcpu_and_close_by_themselves():
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        with vcpu.get_stats() as stats:
            vcpu.close()
            assert stats["exits"] >= 0
        stats.close()
    assert kvm_files() == 0


def test_a_device_that_cannot_be_used_is_not_left_open():
    before = files_before()
    with pytest.raises(HostError):
        Kvm.open("/dev/null")
    assert open_files() == before


@pytest.mark.parametrize(
    "fails",
    [
        {"irqchip": "bogus"},
        {"cpus": [0, 1 << 31]},
        {"cpuid": lambda model: 1 / 0},
        {"before_vcpus": lambda machine: 1 / 0},
    ],
    ids=["irqchip", "vcpu id", "cpuid", "before_vcpus"],
)
def test_a_machine_that_could_not_be_made_leaves_nothing(fails):
    with pytest.raises((VmmError, ZeroDivisionError)):
        Machine(**fails)
    assert kvm_files() == kvm_maps() == 0


def test_no_descriptors_left_is_an_error_that_says_so():
    with Kvm.open() as kvm, kvm.create_vm() as vm:

        def fill() -> None:
            for apic_id in range(free + 1):
                vm.create_vcpu(apic_id)

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = max(int(link.name) for link in Path("/proc/self/fd").iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(HostError, match=r"EMFILE|Too many open files"):
                fill()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kvm_files() == kvm_maps() == 0


def test_a_closed_machine_is_an_error_not_a_crash(booted):
    machine = booted(HLT, cpus=2, irqchip="split")
    machine.run(timeout=0.01)
    machine.close()
    machine.close()
    machine.stop()  # a late watchdog is no error
    for ask in (
        machine.run,
        lambda: machine.start(0, 0x2_0000),
        lambda: machine.memory.read(0, 1),
        lambda: machine.cpus[0].vcpu.get_regs(),
        lambda: machine.vm.get_clock(),
    ):
        with pytest.raises(HostError, match="closed"):
            ask()
    machine.cpus[0].interrupt()
    assert kvm_files() == kvm_maps() == 0


def test_a_machine_closed_from_another_thread_ends_its_run_first(booted):
    machine = booted(b"\xeb\xfe", cpus=2, irqchip="split")  # jmp $
    results = []
    thread = threading.Thread(target=lambda: results.append(machine.run(timeout=30)))
    thread.start()
    while machine.cpus[0].thread_id is None and thread.is_alive():
        pass
    machine.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [result.stop.why for result in results] == [Why.STOPPED]
    assert kvm_files() == kvm_maps() == 0


def test_a_closed_machine_has_no_threads(booted):
    machine = booted(b"\xeb\xfe", cpus=3, irqchip="split", aps={1: 0, 2: 0})  # jmp $
    machine.run(timeout=0.01)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("vcpu-")]
    held = list(machine.all_cpus._threads)
    assert len(threads) == len(held) == 2
    machine.close()
    assert not any(thread.is_alive() for thread in threads)


def test_a_timer_that_nobody_holds_is_gone():
    before = timers()
    timer = kick.Timer(1, 1)
    assert timers() == before + 1
    del timer
    assert timers() == before


def test_a_shared_kvm_stays_open():
    with Kvm.open() as kvm:
        with Machine(kvm=kvm) as one, Machine(kvm=kvm) as other:
            assert one.kvm is other.kvm is kvm
        assert kvm.get_api_version() == 12
        assert kvm_files() == 1


# -- dropped, forked, used up


def drop(make: Callable[[], object]) -> list[str]:
    """What is said when nobody holds what `make` gave."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return [str(each.message) for each in said if each.category is ResourceWarning]


def whole_machine() -> Machine:
    machine = Machine(cpus=2, irqchip="split")
    machine.add_virtio_rng()
    machine.add_virtio_console(print)
    machine.load("hlt")
    machine.on_port_write(0x80, lambda value: machine.stop())  # a callback that holds its machine
    machine.start(1, machine.address(machine.program.entry))
    machine.run(timeout=0.05)
    return machine


def test_a_machine_that_is_dropped_is_closed_and_said():
    gc.collect()
    files, threads = files_before(), threading.active_count()
    for _ in range(3):
        assert drop(whole_machine) == ["unclosed machine with 2 vCPUs; call close(), or use `with`"]
        assert (open_files(), threading.active_count()) == (files, threads)
    assert kvm_files() == kvm_maps() == 0
    assert drop(lambda: whole_machine().close()) == []


def test_handles_of_the_binding_that_are_dropped_are_closed_in_the_right_order():
    def vm_alone() -> object:
        kvm = Kvm.open()
        vm = kvm.create_vm()
        vm.set_user_memory_region(0, 0, Mapping(0x1000))
        return vm.create_vcpu(0)

    assert {each.split(" (")[0] for each in drop(vm_alone)} >= {"unclosed the VM", "unclosed /dev/kvm"}
    assert kvm_files() == kvm_maps() == 0


def test_a_kick_that_is_dropped_is_closed():
    with Machine() as machine:
        before = files_before()
        assert drop(lambda: WriteEvent(machine.vm, 0xD0010000, 4)) == ["unclosed write event at 0xd0010000"]
        assert open_files() == before


@pytest.mark.parametrize("shared", [False, True])
def test_machines_that_are_dropped_do_not_use_up_the_descriptors(shared):
    """Dropped inside cycles, which the collector has not come to when the last descriptor is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kvm = Kvm.open() if shared else None
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 40, hard))
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(40):
                machine = Machine(kvm=kvm)
                machine.on_port_write(0x80, lambda value, machine=machine: machine.stop())
    finally:
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        machine.close()
        if kvm is not None:
            kvm.close()


CLOSE = "try: m.close()\n            except Exception as error: assert 'a hook cannot close' in str(error)"
FORK = """
import os, sys, threading
from vmm import Machine
with Machine(cpus=2{options}) as m:
    m.load("start: out 0x80, al\\nout 0x81, al\\nhlt\\nb: jmp b")
    m.start(1, "b")
    if {virtio}:
        m.add_virtio_rng()
    seen = []
    def fork(value):
        pid = os.fork()
        if not pid:
            {child}
            return
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    m.on_port_write(0x80, fork)
    m.on_port_write(0x81, lambda value: (seen.append(1), m.stop()))
    parent = os.getpid()
    try:
        result = m.run(timeout=20)
    except Exception as error:
        if os.getpid() != parent:
            m.close()
            sys.stdout.flush()
            wrong = 0 if "belongs to process" in str(error) and type(error).__name__ == "HostError" else 1
            os._exit(7 + wrong)
        raise
    assert seen == [1] and result.stop.text == "the host asked for it", result
    if {virtio}:
        assert [each.is_alive() for each in threading.enumerate()].count(True) >= 3
    m.memory.write(0xa0000, b"still there")
    m.save()
"""


@pytest.mark.parametrize("options", ["", ", irqchip='split'", ", fast=False"])
@pytest.mark.parametrize("child", ["pass", CLOSE, "m.regs", "m.cpus[1].interrupt()"])
def test_a_child_by_fork_ends_with_one_error_and_leaves_its_parent_alone(options, child):
    text = FORK.format(options=options, child=child, virtio="split" in options)
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)


@pytest.mark.parametrize(
    ("err", "words"),
    [
        (errno.EMFILE, ["descriptors of this process", "ulimit -n", "with Machine()"]),
        (errno.ENOMEM, ["address space", "ulimit -v"]),
        (errno.EAGAIN, ["threads", "ulimit -u"]),
        (errno.ENFILE, ["fs.file-max"]),
    ],
)
def test_what_is_used_up_is_named_with_its_limit(err, words):
    for error in (KvmCallError("KVM_CREATE_VM", err, "making a VM"), exhausted("making a VM", "eventfd", err)):
        assert all(word in str(error).partition("try: ")[2] for word in words)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert f"of {soft:,} descriptors" in resource_hint(errno.EMFILE)
    assert resource_hint(errno.EINVAL) == ""
