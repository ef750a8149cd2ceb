# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM_TRANSLATE beside pyvmm's own walk: as a topic, and on page tables that hypothesis makes, in every paging mode."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_payloads.api import translate
from vmm.abi.x86 import CR0
from vmm.machine.machine import Machine
from vmm.machine.x86 import modes
from vmm.machine.x86.page_walk import walk
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("translate")
TABLES = [0xA0000 + 0x1000 * i for i in range(4)]  # the first is the root
PLACES = [*TABLES, 0, 0x1000, 0x400000, 0x3FE00000, 0xFFFFF000]
CLEAR = {"long": 0, "pae": 0x8000_0000_0000_01E6, "paging32": 0}  # of the PDPTEs of PAE: what a load of CR3 refuses


def run(**params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(params=params))
    return row


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_works(seed: int) -> None:
    row = run(seed=seed)
    assert row.verdict is Verdict.WORKS, row.finding
    assert row.finding.evidence["of which pages"] > 50


def test_another_answer_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "translate", lambda guest, va: va)
    assert run().verdict is Verdict.BROKEN


def test_other_tables_than_the_cpus_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    read = translate._read

    def later(guest, addresses):
        for address in range(translate.POOL + 5 * 0x1000, translate.POOL + 9 * 0x1000, 8):
            entry = guest.machine.memory.read_u64(address)
            if entry & 1:
                guest.machine.memory.pack("Q", address, entry ^ 0x1000)
        return read(guest, addresses)

    monkeypatch.setattr(translate, "_read", later)
    assert run().verdict is Verdict.BROKEN


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine(memory="2M") as machine:
        machine.load(b"\xf4")
        yield machine


@st.composite
def entries(draw: st.DrawFn, wide: bool) -> int:
    """An entry that leads somewhere, or is simply any number."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.integers(0, (1 << 64 if wide else 1 << 32) - 1))
    flags = draw(st.sampled_from([1, 3, 7, 5, 0x81, 0x83, 0x87, 0, 2]))
    high = (
        draw(st.sampled_from([0, 0, 0, 1 << 63, 1 << 51, 1 << 13])) if wide else draw(st.sampled_from([0, 0, 1 << 13]))
    )
    return draw(st.sampled_from(PLACES)) | flags | high


@pytest.mark.parametrize("mode", ["long", "pae", "paging32"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_equal_on_random_page_tables(machine: Machine, mode: str, data: st.DataObject) -> None:
    vcpu, memory, model = machine.cpus[0].vcpu, machine.memory, machine.cpuid
    wide = mode != "paging32"
    rng = random.Random(data.draw(st.integers(0, 1 << 32)))
    pool = data.draw(st.lists(entries(wide), min_size=4, max_size=12))
    for number, table in enumerate(TABLES):
        count = 512 if wide else 1024
        values = [rng.choice(pool) for _ in range(count)]
        if number == 0:
            values = [value & ~CLEAR[mode] & ((1 << 64 if wide else 1 << 32) - 1) for value in values]
        memory.write(table, struct.pack(f"<{count}{'Q' if wide else 'I'}", *values))
    modes.enter(vcpu, mode, 0x20000, cr3=TABLES[0])
    sregs = vcpu.get_sregs()
    if not sregs.cr0 & CR0.PG:
        pytest.skip("this KVM has paging in long mode only")
    kind = {
        "maxphyaddr": model.register(0x80000008, 0, "eax") & 0xFF or 36,
        "gib_pages": bool(model.register(0x80000001, 0, "edx") >> 26 & 1),
    }
    for _ in range(8):
        va = rng.getrandbits(47 if mode == "long" else 32)
        if mode == "long" and rng.random() < 0.3:
            va |= 0xFFFF_8000_0000_0000
        found = walk(memory.read_u64, sregs.cr3, sregs.cr4, sregs.efer, sregs.cr0, va, **kind)
        assert vcpu.translate(va) == found.gpa, f"{va:#x}: {found}"
