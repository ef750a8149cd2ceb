# SPDX-License-Identifier: GPL-2.0-or-later
"""Every payload of guest_payloads/basics ends as its header says; and each check fails when the machine is broken."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from vmm.abi.x86 import CR0
from vmm.machine import plain
from vmm.machine.bus.bus import Bus
from vmm.machine.devices.scratch import ScratchMmio
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86 import boot, descriptors
from vmm.payload import guest as guest_module
from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.guest import Guest
from vmm.payload.options import Options
from vmm.payload.outcome import EXIT_CODES, Outcome
from vmm.payload.run import run_payload

# Generous: it bounds a hang, it measures nothing.
PATIENT = Options(timeout=60.0)
BASICS = [name for name, path in shipped().items() if path.parent.name == "basics"]
OUTCOMES = {None: "pass", Why.HALT: "pass", Why.TIME_LIMIT: "timeout"}  # any other end that is meant is a crash: fail
WITHOUT_LINK = ("ping",)  # nobody answers where no `--net` was given; tests/kvm/test_virtio_net.py gives it one
WITH_CHECK = [name for name in BASICS if (half := find(name).host_half()) and half.check]


def edited(name: str, old: str = "", new: str = "", **header: Any) -> Payload:
    """A shipped payload with one piece of its source or its header changed."""
    payload = find(name)
    assert payload.text is not None
    assert old in payload.text, f"{name}.asm has no {old!r} any more"
    return replace(payload, text=payload.text.replace(old, new, 1), header=replace(payload.header, **header))


def host_half(name: str) -> Any:
    return importlib.import_module(f"guest_payloads.basics.{name}")


# As the header says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASICS)
def test_ends_as_its_header_says(name: str) -> None:
    payload = find(name)
    options = replace(PATIENT, timeout=payload.header.timeout or PATIENT.timeout)
    outcome = run_payload(payload, options)
    wanted = "skip" if name in WITHOUT_LINK else OUTCOMES.get(payload.header.ends, "fail")
    assert (outcome.outcome, outcome.exit_code) == (wanted, EXIT_CODES[wanted]), outcome
    assert not outcome.failures
    assert (outcome.postmortem is None) == (wanted in ("pass", "skip"))
    if wanted == "pass":
        assert None not in outcome.results.values()
    with Guest(payload, replace(options, output_limit=1000)) as guest:
        if (half := payload.host_half()) and half.setup:
            half.setup(guest)
        assert guest.run().stop.why is (payload.header.ends or Why.EXIT_PORT)


def test_hello_says_hello() -> None:
    pieces: list[bytes] = []
    outcome = run_payload(find("hello"), PATIENT, live=pieces.append)
    assert outcome.console == b"Hello from ring 0 of a virtual machine.\n" == b"".join(pieces)


def test_storm_fills_its_limit_and_no_more() -> None:
    outcome = run_payload(find("storm"), replace(PATIENT, output_limit=1000))
    text = b"All work and no play makes the vCPU a dull boy, says the guest.\n"
    assert outcome.console == (text * 16)[:1000]
    assert outcome.postmortem
    assert "--output-limit" in outcome.postmortem.hint


def test_spin_is_found_where_it_spins() -> None:
    outcome = run_payload(find("spin"), Options(timeout=0.2))
    assert outcome.postmortem
    assert outcome.postmortem.vcpus[0].where == "start"


def test_triple_names_the_instruction() -> None:
    post = run_payload(find("triple"), PATIENT).postmortem
    assert post
    assert [row.text for row in post.vcpus[0].code if row.here] == ["ud2"]
    assert post.vcpus[0].last_exits == ("Shutdown",)


@pytest.mark.parametrize("cpus", [1, 2, 4, 8])
def test_smp_on_many_vcpus(cpus: int) -> None:
    outcome = run_payload(find("smp"), replace(PATIENT, cpus=cpus, params={"rounds": 200}))
    assert (outcome.outcome, outcome.results) == ("pass", {"arrived": cpus, "total": 200 * cpus}), outcome
    assert outcome.exits.get("Halt", 0) <= cpus - 1


@pytest.mark.parametrize("name", ["hello", "paging", "ring3", "pio"])
def test_vcpus_that_a_payload_does_not_use_do_not_disturb_it(name: str) -> None:
    assert run_payload(find(name), replace(PATIENT, cpus=4)).outcome == "pass"


def test_pio_listens_where_it_is_told() -> None:
    assert run_payload(find("pio"), replace(PATIENT, params={"port": 0x300})).outcome == "pass"


@pytest.mark.parametrize("feature", ["STEAL_TIME", "rdrand"])
def test_cpuid_compares_what_was_set_and_not_what_is_offered(feature: str) -> None:
    masked = run_payload(find("cpuid"), replace(PATIENT, mask=(feature,)))
    exposed = run_payload(find("cpuid"), replace(PATIENT, expose=(feature,)))
    assert (masked.outcome, exposed.outcome) == ("pass", "pass"), masked.failures + exposed.failures


# Sabotage ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sabotage:
    """One way to break `payload`'s run, by its source, its header or the machine; `said` is in the reason."""

    payload: str
    said: str
    old: str = ""
    new: str = ""
    header: tuple[tuple[str, Any], ...] = ()
    patch: Callable[[pytest.MonkeyPatch], object] | None = None
    options: Options = PATIENT
    outcome: str = "fail"


@pytest.fixture(autouse=True)
def fresh_boot_state() -> Iterator[None]:
    """What a vCPU starts with is packed once per process; a test that spoils its parts must not meet the old ones."""
    packed = (boot._sregs, boot._tss)
    for each in packed:
        each.cache_clear()
    yield
    for each in packed:
        each.cache_clear()


def _patched(target: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], object]:
    return lambda patch: patch.setattr(target, name, value)


def _one_bit_wrong(patch: pytest.MonkeyPatch) -> None:
    module = host_half("cpuid")
    right = module.expected

    def expected(guest: Guest) -> Any:
        first, *rest = right(guest)
        return [first._replace(ebx=first.ebx ^ 1), *rest]

    patch.setattr(module, "expected", expected)


def _typed(data: bytes) -> Callable[[pytest.MonkeyPatch], object]:
    return _patched(host_half("serial"), "setup", lambda guest: guest.machine.uart.feed(data))


def _nobody_is_somebody(patch: pytest.MonkeyPatch) -> None:
    scratch = REGIONS["scratch_mmio"]
    load = Machine.load

    def loading(self: Machine, *args: Any, **more: Any) -> Any:
        self.on_mmio_read(scratch.base + scratch.size, lambda: 0)
        return load(self, *args, **more)

    patch.setattr(Machine, "load", loading)


def _slow(method: str, value: Any) -> Callable[[pytest.MonkeyPatch], object]:
    """A bus that does it wrong; the C core, which does single elements without the bus, is left out."""

    def spoil(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(guest_module, "Machine", partial(Machine, fast=False))
        patch.setattr(Bus, method, value)

    return spoil


def _bytewise(self: Bus, address: int, size: int, data: bytes) -> None:
    """String output that steps the port and the datum byte by byte, as if each element were a byte."""
    for byte in data:
        self.write(address, bytes((byte,)))


def _steps_the_port(self: Bus, address: int, size: int, count: int) -> bytes:
    return b"".join(self.read(address + size * at, size) for at in range(count))


def _ports(*allowed: int) -> Callable[[pytest.MonkeyPatch], object]:
    """A TSS whose bitmap lets these ports through, whatever the header says."""
    right = descriptors.tss

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(descriptors, "tss", lambda block, ports: right(block, allowed))
        _make_anew(monkeypatch)

    return patch


def _make_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guest begins with that was made before is not what is asked for now."""
    for made_once in ("_tables", "_tss", "image", "_sregs", "registers"):
        monkeypatch.setattr(boot, made_once, getattr(boot, made_once).__wrapped__)
    monkeypatch.setattr(plain, "_beginning", plain._beginning.__wrapped__)


def _begins(name: str, value: Any) -> Callable[[pytest.MonkeyPatch], object]:
    """A constant of vmm/machine/x86/boot.py is another."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(boot, name, value)
        _make_anew(monkeypatch)

    return patch


WITHOUT_WP = boot.LONG_MODE_CR0 & ~CR0.WP
HANGS: dict[str, Any] = {"options": Options(timeout=0.4), "outcome": "timeout"}
SABOTAGE = {
    "cpuid-bit": Sabotage("cpuid", "the guest read", patch=_one_bit_wrong),
    "cpuid-ebx": Sabotage("cpuid", "index 0: the guest read", "    cpuid\n", "    cpuid\n    xor ebx, ebx\n"),
    "cpuid-index": Sabotage("cpuid", "the guest read", "mov   ecx, dword ptr [rsi + 4]", "xor ecx, ecx"),
    "cpuid-few": Sabotage("cpuid", "the number of leaves", "je    done", "je    done\n cmp ebp, 3\n je done"),
    "faults-none": Sabotage("faults", "opcode is 0xf", "ud2\nafter_ud", "nop\nafter_ud"),
    "faults-gate": Sabotage("faults", "no handler", "mov   edi, UD_VECTOR", "mov   edi, 0x20"),
    "faults-ts": Sabotage("faults", "device is", "or    rax, X86_CR0_TS", "or    rax, 1"),
    "faults-present": Sabotage("faults", "segment is", "    and   rax, rcx\n", ""),
    "faults-zero": Sabotage("faults", "divide is 0xf", "    xor   ecx, ecx\n    div", "    mov   ecx, 1\n    div"),
    "faults-trap": Sabotage("faults", "debug is 0x6", "use_trap_flag, 0x102", "use_trap_flag, 0x2"),
    "mmio-answer": Sabotage("mmio", "read8 is 0x10", patch=_patched(ScratchMmio, "read", lambda s, o, size: 0x10)),
    "mmio-lost": Sabotage("mmio", "read8 is 0x0", patch=_patched(ScratchMmio, "write", lambda *_: None)),
    "mmio-width": Sabotage("mmio", "widths of the writes", "mov   byte ptr [rbx]", "mov   word ptr [rbx]"),
    "mmio-claimed": Sabotage("mmio", "nobody holds is 0x0", patch=_nobody_is_somebody),
    "msr-lstar": Sabotage("msr", "LSTAR is", "rax, LSTAR_VALUE", "rax, LSTAR_VALUE + 1"),
    "msr-nothing": Sabotage("msr", "LSTAR is 0x0", "    call  write_msr\n", ""),
    "msr-clock": Sabotage("msr", "counter did not grow", "sub   rax, rbx", "sub   rax, rax"),
    "msr-exists": Sabotage("msr", "does not exist is 0x0", "NO_SUCH_MSR = 0xdead", "NO_SUCH_MSR = MSR_LSTAR"),
    "msr-efer": Sabotage("msr", "EFER is 0xd00", patch=_begins("LONG_MODE_EFER", 0xD00)),
    "paging-wp": Sabotage("paging", "read-only page is 0x2", patch=_begins("LONG_MODE_CR0", WITHOUT_WP)),
    "paging-rw": Sabotage("paging", "read-only page is 0x2", "and   rax, -3", "and   rax, -1"),
    "paging-nx": Sabotage("paging", "executable page is 0x3", "NX_BIT = 0x8000000000000000", "NX_BIT = 0x200"),
    "paging-exec": Sabotage("paging", "no-execute page is 0x10", "or    rax, qword", "mov   rax, qword"),
    "paging-present": Sabotage("paging", "absent page is", "mov   qword ptr [rbx], 0 ", "mov   qword ptr [rbx], r12 "),
    "paging-remap": Sabotage("paging", "after the remap is 0x1111", "or    rax, OTHER", "or    rax, PAGE"),
    "pio-answer": Sabotage("pio", "in8 is 0x7", patch=_patched(host_half("pio").Recorder, "read", lambda *_: 7)),
    "pio-rep-out": Sabotage("pio", "elements of REP OUTSW", "mov   ecx, 5", "mov   ecx, 4"),
    "pio-rep-in": Sabotage("pio", "elements of REP INSW", "ecx, 4\n    rep", "ecx, 3\n    rep"),
    "pio-bytes": Sabotage("pio", "single writes", patch=_slow("write_string", _bytewise)),
    "pio-step": Sabotage("pio", "elements of REP INSW", patch=_slow("read_string", _steps_the_port)),
    "pio-order": Sabotage("pio", "single writes", "mov   ax, 0x2222", "mov   ax, 0x2223"),
    "ring3-denied": Sabotage("ring3", "#GP for a denied port", header=(("ports", ()),)),
    "ring3-allowed": Sabotage("ring3", "CLI and RDMSR is 0x2", header=(("ports", (0x80, 0x81, 0x82)),)),
    "ring3-bitmap": Sabotage("ring3", "CLI and RDMSR is 0x2", patch=_ports(0x80, 0x81, 0x82)),
    "ring3-closed": Sabotage("ring3", "CLI and RDMSR is 0x5", patch=_ports()),
    "ring3-page": Sabotage("ring3", "time limit", header=(("user", ()),), **HANGS),
    "ring3-open": Sabotage("ring3", "no result 'pf_error'", "mov   ebx, DATA_BASE", "mov   ebx, user_begin"),
    "serial-typed": Sabotage("serial", "input by polling", patch=_typed(b"BY POLLSby irq 4")),
    "serial-late": Sabotage("serial", "input by interrupt", patch=_typed(b"by pollsBY IRQ 4")),
    "serial-more": Sabotage("serial", "left unread", patch=_typed(b"by pollsby irq 4!")),
    "serial-deaf": Sabotage("serial", "time limit", patch=_patched(Machine, "irq_line", lambda *_: None), **HANGS),
    "serial-mute": Sabotage("serial", "the greeting", 'asciz "Serial', 'asciz "serial'),
    "serial-fifo": Sabotage("serial", "IIR", "0x1                         ; FIFOs on", "0x0"),
    "smp-total": Sabotage("smp", "the shared counter", "mov   ecx, PARAM_rounds", "lea   ecx, [rdi + PARAM_rounds]"),
    "smp-alone": Sabotage("smp", "time limit", header=(("start_all", False),), **HANGS),
    "smp-index": Sabotage("smp", "marks of the vCPUs", "lea   eax, [rdi + 1]", "lea   eax, [rdi + 2]"),
    "hlt-silent": Sabotage("hlt", "no result reached", "    RESULT reached\n", ""),
    "hlt-asleep": Sabotage("hlt", "time limit", header=(("irqchip", "kernel"),), **HANGS),
    "hlt-port": Sabotage("hlt", "it was meant to end by: halt", "    hlt\n", "    PASS\n"),
    "hello-fails": Sabotage("hello", "the guest reports failure", "    PASS\n", "    FAIL\n"),
    "hello-skips": Sabotage("hello", "cannot show it", "    PASS\n", "    SKIP\n", outcome="skip"),
    "spin-ends": Sabotage("spin", "it was meant to end by: time limit", "    jmp   start\n", "    hlt\n"),
    "storm-ends": Sabotage("storm", "it was meant to end by: output limit", "    jmp   again\n", "    hlt\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", SABOTAGE)
def test_the_check_sees_sabotage(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = SABOTAGE[case]
    if how.patch:
        how.patch(monkeypatch)
    outcome: Outcome = run_payload(edited(how.payload, how.old, how.new, **dict(how.header)), how.options)
    assert outcome.outcome == how.outcome, outcome
    assert how.said in "\n".join((outcome.reason, *outcome.failures)), outcome


@pytest.mark.parametrize("case", ["hello", *WITH_CHECK])
def test_an_edit_that_changes_nothing_breaks_nothing(case: str) -> None:
    assert run_payload(edited(case, "start:", "start:\n    nop"), PATIENT).outcome == "pass"


def test_every_check_is_sabotaged() -> None:
    assert {how.payload for how in SABOTAGE.values()} >= set(WITH_CHECK)


def test_a_tripled_guest_with_an_idt_is_no_triple_fault() -> None:
    outcome = run_payload(edited("triple", "    lidt  [rip + empty]\n", ""), PATIENT)
    assert outcome.postmortem
    assert outcome.postmortem.fault
    assert outcome.postmortem.fault.name.startswith("#UD")


# A person's own ----------------------------------------------------------------------------------------------------


def test_a_fault_in_ring_3_is_told_as_one() -> None:
    text = "; machine: ring=3\n; user: a b\n.p2align 12\na:\nstart:\n    nop\n    cli\n.p2align 12\nb:\n"
    payload = replace(find("hello"), name="own", group="", text=text)
    from vmm.payload.header import parse

    outcome = run_payload(replace(payload, header=parse(text, "own.asm")), PATIENT)
    post = outcome.postmortem
    assert post
    assert post.fault
    assert post.fault.name.startswith("#GP")
    assert (post.vcpus[0].mode, post.vcpus[0].where) == ("64-bit ring 3", "a+0x1")
    assert [row.text for row in post.vcpus[0].code if row.here] == ["cli"]
