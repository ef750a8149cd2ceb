# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stranger asks wrongly of the library is one error of ours that says how to ask, and changes nothing."""

from __future__ import annotations

import enum
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.made_images import Load, elf, multiboot1
from vmm import Machine
from vmm.abi import ports
from vmm.errors import GuestError, MissingCapability, UsageError
from vmm.machine.ends import Why
from vmm.machine.extra.folder import Folder
from vmm.machine.extra.syscalls import SyscallService
from vmm.machine.run import ring3_traps

PATIENCE = 20.0


class Two(enum.IntEnum):
    TWO = 2


@pytest.mark.parametrize("cpus", ["2", b"2", 1.5, None, [], ["0"], [0, 1.5], [-1], -1, 10**12, object()])
def test_what_is_no_number_of_vcpus(cpus: Any):
    with pytest.raises(UsageError, match=r"cpus=|1 to 1020"):
        Machine(cpus=cpus)


@pytest.mark.parametrize("memory", [1.5, b"2M", [], object()])
def test_what_is_no_size(memory: Any):
    with pytest.raises(UsageError, match="is not a size"):
        Machine(memory=memory)


def test_numbers_of_other_types_are_numbers():
    with Machine(cpus=Two.TWO) as machine:
        assert len(machine.cpus) == 2
        machine.regs.rax = Two.TWO
        assert machine.regs.rax == 2


@pytest.mark.parametrize("value", [None, "1", 1.5, b"\1"])
@pytest.mark.parametrize("name", ["rax", "al", "cr3", "fs_base", "cs"])
def test_what_no_register_holds(name, value: Any):
    with Machine() as machine, pytest.raises(UsageError, match=f"{name} = .*: give an integer"):
        setattr(machine.regs, name, value)


WRONG: dict[str, Any] = {
    "start": lambda m: m.start(7, 0x20000),
    "start by name": lambda m: m.start("one", 0x20000),
    "entry": lambda m: m.start(0, 1.5),
    "until": lambda m: m.run(until=1.5),
    "address": lambda m: m.address(None),
    "vcpu": lambda m: m.read_virtual(0x20000, 1, vcpu=3),
    "read": lambda m: m.memory.read("0x1000", 1),
    "read a half": lambda m: m.memory.read(0x1000, 0.5),
    "write": lambda m: m.memory.write(None, b"x"),
    "write text": lambda m: m.memory.write(0x1000, "text"),
    "write a number": lambda m: m.memory.write(0x1000, 5),
    "load nothing": lambda m: m.load(b""),
    "load an empty text": lambda m: m.load("\n"),
    "observe": lambda m: m.observe(5),
    "observe no kind": lambda m: m.observe(print, int),
    "observe a name": lambda m: m.observe(print, "Halt"),
    "on_exit": lambda m: setattr(m, "on_exit", 5),
}


@pytest.mark.parametrize("ask", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_errors_of_the_caller(ask):
    with Machine() as machine:
        machine.load("hlt")
        with pytest.raises(UsageError):
            ask(machine)
        assert machine.run(PATIENCE).stop.why is Why.HALT


KERNEL = elf(Load(multiboot1() + b"\xf4", 0x10_0000), entry=0x10_000C)
WRONG_IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "args number": ({"args": 5}, "args=5: give text, or bytes"),  # of which bytes() would make five NULs
    "args none": ({"args": None}, "args=None: give text"),
    "args no text": ({"args": "ab\ud800"}, "args: character 2 is no text"),
    "args NUL": ({"args": b"a\0b"}, "a command line ends at its first NUL byte"),
    "initrd": ({"initrd": 7}, "initrd 7: give a path, or bytes"),
    "modules bytes": ({"modules": b"abc"}, "modules=b'abc': give a list"),
    "modules text": ({"modules": "m3"}, "modules='m3': give a list"),
    "modules path": ({"modules": Path("m3")}, "modules=PosixPath.*: give a list"),
    "modules none": ({"modules": None}, "modules=None: give a list"),
    "a module": ({"modules": [3]}, "module 3: give a path, or bytes"),
    "base text": ({"base": "1M"}, "base='1M' is no whole number"),
    "base half": ({"base": 1.5}, "base=1.5 is no whole number"),
    "entry half": ({"entry": 2.0}, "entry=2.0 is no whole number"),
    "entry bytes": ({"entry": b"start"}, "entry=b'start' is no whole number"),
    "mode": ({"mode": 16}, "mode 16: there are real"),
    "protocol": ({"protocol": 1}, "protocol 1: there are"),
    "name": ({"name": 3}, "name=3: give text"),
    "image": ({"what": None}, "image None: give a path, or bytes"),
}


@pytest.mark.parametrize(("given", "said"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_wrong_arguments_of_an_image_are_errors_of_the_caller(given: dict[str, Any], said: str):
    with Machine("4M") as machine:
        machine.load("hlt")
        with pytest.raises(UsageError, match=said):
            machine.load_image(**{"what": KERNEL, **given})
        assert machine.run(PATIENCE).stop.why is Why.HALT  # nothing has been written


def test_an_image_outside_of_the_own_map_has_no_function_to_call():
    with Machine("4M") as machine:
        machine.load_image(elf(Load(b"\xf4", 0x10_0000), symbols={"f": 0x10_0000}))
        for ask in (lambda: machine.call("f"), lambda: machine.start(0, "f")):
            with pytest.raises(UsageError, match=r"at f: .* lies outside of pyvmm's own map"):
                ask()
        assert machine.run(PATIENCE).stop.why is Why.HALT
        machine.load_image(elf(Load(b"\xb8\7\0\0\0\xc3", 0x2_0000), entry=0x2_0000, symbols={"f": 0x2_0000}))
        assert machine.call("f") == 7


@pytest.mark.parametrize("irqchip", ["none", "split", "kernel"])
def test_a_run_before_load_says_so(irqchip):
    with Machine(irqchip=irqchip) as machine:
        with pytest.raises(UsageError, match=r"run\(\) before load\(\)"):
            machine.run()
        machine.load("mov al, 0; out 0xf4, al")
        assert machine.run(PATIENCE).stop.why is Why.EXIT_PORT


def test_a_vcpu_that_somebody_set_up_by_hand_runs_without_load():
    with Machine() as machine:
        machine.memory.write(0x1000, b"\xf4")
        vcpu = machine.cpus[0].vcpu
        sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
        sregs.cs.base = sregs.cs.selector = 0
        regs.rip = 0x1000
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)
        assert machine.run(PATIENCE).stop.why is Why.HALT


def test_a_plain_machine_calls_functions():
    with Machine() as machine:
        machine.load("double:\nlea rax, [rdi + rdi]\nret\nhangs:\nhlt\n", entry="double")
        assert machine.call("double", 21) == 42
        with pytest.raises(GuestError, match="hangs did not return"):
            machine.call("hangs")


def test_unclaimed_accesses_are_named_with_address_and_value():
    with Machine() as machine:
        machine.load(
            "mov eax, 0x1234; out 0x90, ax; out 0x90, al; in al, 0x91; mov ebx, 0xd0010000; mov [rbx], eax; hlt"
        )
        result = machine.run(PATIENCE)
        assert result.unclaimed == 4
        assert [str(each) for each in result.missed] == [
            "wrote 0x1234 to port 0x90 (2 bytes), 2 times",
            "read port 0x91 (1 byte), once",
            "wrote 0x12ff to MMIO address 0xd0010000 (4 bytes), once",
        ]


def test_a_second_folder_is_refused_in_words_of_its_own(tmp_path):
    with Machine() as machine, Folder(tmp_path) as folder:
        SyscallService(machine, folder)
        with pytest.raises(UsageError, match="system calls of this guest are served already") as caught:
            SyscallService(machine, folder)
        assert f"release({ports.SYSCALL:#x})" not in str(caught.value)


# -- breakpoints


BREAKPOINTS = "start: nop\na: nop\nb: out 0x80, al\nc: inc ecx\njmp a\n"


def test_after_a_breakpoint_a_further_run_goes_on():
    with Machine() as machine:
        machine.load(BREAKPOINTS)
        seen: list[int] = []
        machine.on_port_write(0x80, seen.append)
        places = [machine.address(name) for name in ("start", "a", "b", "c")]
        machine.cpus[0].vcpu.set_guest_debug(breakpoints=places)
        stops = [machine.run(PATIENCE).stop for _ in range(9)]
        assert [stop.exit.pc for stop in stops] == [places[i] for i in (0, 1, 2, 3, 1, 2, 3, 1, 2)]
        assert (len(seen), machine.regs.ecx) == (2, 2)
        assert machine.cpus[0].vcpu.debug.breakpoints == tuple(places)  # as they were


def test_a_stop_on_the_way_off_a_breakpoint_is_a_stop():
    with Machine() as machine:
        machine.load(BREAKPOINTS)
        machine.on_port_write(0x80, lambda value: machine.stop())
        machine.cpus[0].vcpu.set_guest_debug(breakpoints=[machine.address("b")])
        assert [machine.run(PATIENCE).stop.why for _ in range(4)] == [Why.DEBUG, Why.STOPPED, Why.DEBUG, Why.STOPPED]


def test_a_breakpoint_that_is_jumped_to_after_the_trap_strikes_again():
    with Machine() as machine:
        machine.load(BREAKPOINTS)
        at = machine.address("a")
        machine.cpus[0].vcpu.set_guest_debug(breakpoints=[at])
        machine.on_port_write(0x80, lambda value: None)
        assert machine.run(PATIENCE).stop.exit.pc == at
        machine.regs.rip = machine.address("start")
        assert machine.run(PATIENCE).stop.exit.pc == at
        assert machine.regs.ecx == 0


def test_until_in_ring_3_strikes_or_says_that_it_cannot():
    with Machine() as machine:
        machine.load("start: mov eax, 1\nhere: mov eax, 2\nout 0x80, al\nl: jmp l\n", ring=3, user=[(0x20000, 0x21000)],
                     allowed_ports=[0x80])  # fmt: skip
        machine.on_port_write(0x80, lambda value: machine.stop())
        if ring3_traps.breakpoint_strikes(machine.kvm, Machine):
            assert machine.run(PATIENCE, until="here").stop.why is Why.REACHED
        else:
            with pytest.raises(MissingCapability, match="in ring 3, and there breakpoints do not strike on this host"):
                machine.run(PATIENCE, until="here")
            assert machine.run(PATIENCE).stop.why is Why.STOPPED


@pytest.mark.parametrize("strikes", [True, False])
def test_a_place_open_to_ring_3_that_was_not_reached_says_what_the_host_lacks(monkeypatch, strikes):
    monkeypatch.setattr(ring3_traps, "_found", {"breakpoint": strikes})
    with Machine() as machine, warnings.catch_warnings():
        machine.load("start: hlt\nhere: nop\nhlt", user=[(0x20000, 0x21000)])
        stop = machine.run(PATIENCE, until="here").stop
        assert stop.why is Why.HALT
        assert ("is open to ring 3, where breakpoints do not strike" in stop.text) is not strikes


@pytest.mark.parametrize(
    ("what", "said"),
    [(Path("prog.asm"), r"neither assembly text, nor bytes, nor a Program\n  try: its text \(`path.read_text"),
     (5, "loading 5: it is neither"), (None, "loading None"), ([0x90], "try: bytes"), (b"\x7fELF" + bytes(60), "ELF")],
)  # fmt: skip
def test_what_is_no_program_is_not_loaded(what: Any, said: str):
    with Machine() as m:
        with pytest.raises(UsageError, match=said):
            m.load(what)
        for code in (b"\xf4", bytearray(b"\xf4"), memoryview(b"\xf4")):
            m.load(code)
            assert m.run(timeout=5).stop.why is Why.HALT


def test_a_path_is_not_made_of_bytes():
    with Machine() as m, pytest.raises(UsageError, match=r"'prog\.bin' is not made of bytes"):
        m.memory.write(0xA0000, Path("prog.bin"))


def test_a_load_that_is_refused_changes_nothing():
    seen: list[Any] = []
    with Machine() as machine:
        machine.load("out 0x80, al; mov al, 1; out 0x81, al; hlt")

        def write(_value: int) -> None:
            with pytest.raises(UsageError, match="vCPU 0 is running"):
                machine.load("nop; nop; mov al, 99; out 0x81, al; hlt")

        machine.on_port_write(0x80, write)
        machine.on_port_write(0x81, seen.append)
        machine.run(PATIENCE)
    assert seen == [1]


def test_stop_is_a_callback_too():
    with Machine() as machine:
        machine.load("l: out 0x80, al; jmp l")
        machine.on_port_write(0x80, machine.stop)
        stop = machine.run(PATIENCE).stop
    assert (stop.why, stop.text) == (Why.STOPPED, "the host asked for it")


def test_what_was_told_in_a_call_that_was_cut_off_is_not_the_next_ones():
    """What the C core had told in the call that ^C cut off belongs to that call alone."""
    with Machine() as machine:
        machine.load("in al, 0x60; mov al, 0; out 0xf4, al; hlt")
        machine.on_port_read(0x60, bool)
        core = machine.cpus[0].core
        core._told += ["of", "the", "last", "call"]
        for _ in range(2):  # the core knows the handler in the second
            machine.start(0, "start" if "start" in machine.program.symbols else machine.program.base)
            assert machine.run(PATIENCE).stop.why is Why.EXIT_PORT


def test_a_run_whose_end_was_interrupted_is_not_the_next_ones_reason(monkeypatch: pytest.MonkeyPatch):
    with Machine() as machine:
        machine.load("hlt")
        with monkeypatch.context() as patch:

            def interrupted(_self: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(type(machine.all_cpus), "_end_all", interrupted)
            with pytest.raises(KeyboardInterrupt):
                machine.run(PATIENCE)
        machine.stop("of the run that was cut")
        machine.start(0, machine.program.base)
        assert machine.run(PATIENCE).stop.why is Why.HALT
