# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID edits: by name, by register, KVM's own leaves, APIC ids; what is refused; what a difference reads like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import cpuid
from vmm.abi.cpuid import FLAG_SIGNIFCANT_INDEX, SIGNATURE, CpuidEntry
from vmm.errors import UsageError
from vmm.machine.x86.cpuid import CpuidModel, diff, feature_named

INTEL = (0x756E6547, 0x6C65746E, 0x49656E69)  # EBX, ECX, EDX
AMD = (0x68747541, 0x444D4163, 0x69746E65)
INDEXED = FLAG_SIGNIFCANT_INDEX


def offered(vendor: tuple[int, int, int] = INTEL) -> CpuidModel:
    ebx, ecx, edx = vendor
    return CpuidModel(
        [
            CpuidEntry(0x0, eax=0x1F, ebx=ebx, ecx=ecx, edx=edx),
            CpuidEntry(0x1, eax=0x806C1, ebx=0x00010800, ecx=1 << 21 | 1 << 31, edx=0x0183F3FF),
            CpuidEntry(0x7, 0, INDEXED, eax=2, ebx=1 << 7),
            CpuidEntry(0x7, 1, INDEXED, eax=1 << 4),
            CpuidEntry(0xB, 0, INDEXED),
            CpuidEntry(0xB, 1, INDEXED, ecx=0x201),
            CpuidEntry(0x1F, 0, INDEXED),
            CpuidEntry(0x40000000, 0, 0, 0x40000001, *SIGNATURE),
            CpuidEntry(0x40000001, eax=0x01007EFB),
            CpuidEntry(0x80000001, edx=0x0183F3FF | 1 << 29),
        ]
    )


u32 = st.integers(0, 0xFFFFFFFF)
entries = st.builds(
    CpuidEntry,
    st.sampled_from([0, 1, 7, 0xB, 0xD, 0x40000000, 0x40000001, 0x80000001]),
    st.integers(0, 3),
    st.sampled_from([0, INDEXED]),
    u32, u32, u32, u32,
)  # fmt: skip


@given(st.lists(entries, max_size=20))
def test_a_list_comes_back_as_it_was(given_entries: list[CpuidEntry]) -> None:
    assert CpuidModel(given_entries).entries() == given_entries


@given(st.lists(entries, max_size=20), entries)
def test_what_is_put_answers(given_entries: list[CpuidEntry], entry: CpuidEntry) -> None:
    model = CpuidModel(given_entries)
    model.put(entry)
    assert model.get(entry.function, entry.index) == entry
    others = [old for old in given_entries if old.function != entry.function]
    assert [kept for kept in model if kept.function != entry.function] == others


@given(st.lists(entries, max_size=10), entries, st.sampled_from(["eax", "ebx", "ecx", "edx"]), u32)
def test_set_register(given_entries: list[CpuidEntry], where: CpuidEntry, register: str, value: int) -> None:
    model = CpuidModel(given_entries)
    before = {name: model.register(where.function, where.index, name) for name in cpuid.REGISTERS}
    model.set_register(where.function, where.index, register, value)
    after = {name: model.register(where.function, where.index, name) for name in cpuid.REGISTERS}
    assert after == before | {register: value}


@given(st.sampled_from(sorted(cpuid.features())), st.sampled_from([INTEL, AMD]))
def test_enable_then_disable_touches_one_bit(name: str, vendor: tuple[int, int, int]) -> None:
    model = offered(vendor)
    model.enable(name)
    assert model.has(name)
    enabled = model.copy()
    model.disable(name)
    assert not model.has(name)
    assert enabled.has(name), "a copy is a model of its own"
    changed = diff(enabled, model)
    feature = feature_named(name)
    repeated = vendor is AMD and feature.leaf == 1 and feature.register == "edx" and feature.mask & 0x0183F3FF
    assert len(changed) == (2 if repeated else 1)
    assert f"-{name}" in changed[0]
    model.enable(name)
    assert model == enabled


def test_masking_a_kvm_feature() -> None:
    model = offered()
    model.disable("STEAL_TIME", "KVM_FEATURE_PV_EOI")
    assert model.register(0x40000001, 0, "eax") == 0x01007EFB & ~0x60
    assert not model.has("KVM_FEATURE_STEAL_TIME")
    assert model.has("CLOCKSOURCE2")
    model.enable("KVM_HINTS_REALTIME")
    assert model.register(0x40000001, 0, "edx") == 1


def test_an_entry_without_the_index_flag_answers_for_every_index() -> None:
    model = offered()
    assert model.get(1, 5) == model.get(1, 0)
    assert model.get(7, 2) is None
    assert model.get(7, 1) != model.get(7, 0)
    assert model.get(0x123) is None


def test_a_new_entry_knows_whether_its_leaf_is_indexed() -> None:
    model = CpuidModel()
    model.set_register(0x7, 0, "ebx", 1)
    model.set_register(0x7, 2, "edx", 1)
    model.set_register(0x1, 0, "ecx", 1)
    model.set_register(0x55, 3, "eax", 1)
    assert [(entry.function, entry.index, entry.indexed) for entry in model] == [
        (0x7, 0, True), (0x7, 2, True), (0x1, 0, False), (0x55, 3, True),
    ]  # fmt: skip


def test_put_takes_the_place_of_what_it_answers_for() -> None:
    model = CpuidModel([CpuidEntry(7, 0, INDEXED), CpuidEntry(1), CpuidEntry(7, 1, INDEXED)])
    model.put(CpuidEntry(7, eax=5))
    assert model.entries() == [CpuidEntry(7, eax=5), CpuidEntry(1)]
    model.put(CpuidEntry(7, 1, INDEXED, eax=6))
    assert model.entries() == [CpuidEntry(7, 1, INDEXED, eax=6), CpuidEntry(1)]


def test_remove() -> None:
    model = offered()
    model.remove(7, 1)
    assert model.get(7, 0)
    assert model.get(7, 1) is None
    model.remove(7)
    model.remove(0x123)
    assert model.get(7, 0) is None
    assert len(model) == len(offered()) - 2


def test_amd_repeats_leaf_1() -> None:
    amd, intel = offered(AMD), offered(INTEL)
    assert (amd.vendor, intel.vendor, CpuidModel().vendor) == ("AuthenticAMD", "GenuineIntel", "")
    for model, left in ((amd, 0), (intel, 1)):
        model.disable("apic")
        assert model.register(0x80000001, 0, "edx") >> 9 & 1 == left
    amd.enable("apic")
    assert amd.register(0x80000001, 0, "edx") >> 9 & 1
    amd.remove(0x80000001)
    amd.disable("apic")
    assert amd.get(0x80000001) is None, "nothing to mirror into"
    amd.set_register(0x80000001, 0, "edx", 0)
    amd.enable("sep")  # bit 11 of 0x80000001.EDX is syscall, which is something else
    assert not amd.has("syscall")


def test_kvm_leaves_are_found_as_a_guest_does() -> None:
    model = offered()
    assert (model.kvm_base(), model.kvm_features_leaf()) == (0x40000000, 0x40000001)
    model.disable("STEAL_TIME")
    model.set_kvm_signature(0x40000100)
    assert (model.kvm_base(), model.kvm_features_leaf()) == (0x40000100, 0x40000101)
    assert model.register(0x40000101, 0, "eax") == 0x01007EFB & ~0x20
    assert model.get(0x40000000) is None
    model.enable("STEAL_TIME")
    assert model.register(0x40000101, 0, "eax") == 0x01007EFB
    assert diff(offered(), model)[-1] == "0x40000101 added"


def test_the_first_signature_wins() -> None:
    model = CpuidModel()
    for base in (0x40000200, 0x40000100):
        model.put(CpuidEntry(base, 0, 0, base + 1, *SIGNATURE))
    assert model.kvm_base() == 0x40000100


def test_another_hypervisor_in_front_stays() -> None:
    model = CpuidModel([CpuidEntry(0x40000000, 0, 0, 0x40000005, 1, 2, 3), CpuidEntry(0x40000003, eax=7)])
    assert model.kvm_base() is None
    model.set_kvm_signature(0x40000100)
    model.remove_kvm_leaves()
    model.remove_kvm_leaves()
    assert [entry.function for entry in model] == [0x40000000, 0x40000003]


def test_without_kvm_leaves() -> None:
    model = offered()
    model.remove_kvm_leaves()
    assert model.kvm_features_leaf() is None
    assert not model.has("STEAL_TIME")
    model.disable("STEAL_TIME")  # it is not there: nothing to do
    before = model.copy()
    with pytest.raises(UsageError, match="STEAL_TIME is a bit in KVM's CPUID leaves, and this guest has none"):
        model.enable("smap", "STEAL_TIME")
    assert model == before
    model.set_kvm_signature()
    model.enable("STEAL_TIME")
    assert model.register(0x40000001, 0, "eax") == 0x20


@given(u32)
def test_apic_id(apic_id: int) -> None:
    model = offered()
    model.set_apic_id(apic_id)
    assert model.register(1, 0, "ebx") == (apic_id & 0xFF) << 24 | 0x010800
    assert {entry.edx for entry in model if entry.function in (0xB, 0x1F)} == {apic_id}
    amd = CpuidModel([*(CpuidEntry(0x80000026, index, FLAG_SIGNIFCANT_INDEX, ebx=4) for index in (0, 1)),
                      CpuidEntry(0x8000001E, ebx=0x100, ecx=0x1)])  # fmt: skip
    amd.set_apic_id(apic_id)
    assert [(entry.ebx, entry.edx) for entry in amd][:2] == [(4, apic_id)] * 2
    assert amd.get(0x8000001E) == CpuidEntry(0x8000001E, eax=apic_id, ebx=0x100, ecx=0x1)
    assert model.register(0xB, 1, "ecx") == 0x201
    bare = CpuidModel()
    bare.set_apic_id(apic_id)
    assert len(bare) == 0, "no leaf is made up"


def test_what_is_refused() -> None:
    model = offered()
    before = model.copy()
    with pytest.raises(UsageError, match=r"no CPUID feature is called 'x2apik'; did you mean x2apic"):
        model.disable("STEAL_TIME", "x2apik")
    with pytest.raises(UsageError, match=r"steel_time.*STEAL_TIME"):
        model.has("KVM_FEATURE_STEEL_TIME")
    with pytest.raises(UsageError, match="does not fit in 32 bits"):
        model.set_register(1, 0, "eax", 1 << 32)
    with pytest.raises(UsageError, match="does not fit in 32 bits"):
        CpuidModel([CpuidEntry(1, eax=-1)])
    with pytest.raises(UsageError, match="not in 'rax'"):
        model.set_register(1, 0, "rax", 1)
    with pytest.raises(UsageError, match="not at 0x40000080"):
        model.set_kvm_signature(0x40000080)
    with pytest.raises(UsageError, match="does not fit in 32 bits"):
        model.set_apic_id(1 << 32)
    assert model == before


def test_diff_in_words() -> None:
    model = offered()
    assert diff(model, model.copy()) == []
    model.disable("x2apic", "hypervisor", "STEAL_TIME")
    model.enable("monitor")
    model.set_register(7, 0, "eax", 1)
    model.remove(0x1F)
    model.put(CpuidEntry(0x80000001, 0, 2, edx=0x0183F3FF | 1 << 29))
    assert diff(offered(), model) == [
        "0x1:ECX -x2apic -hypervisor +monitor",
        "0x7.0:EAX 0x2 -> 0x1",
        "0x1f.0 removed",
        "0x40000001:EAX -STEAL_TIME",
        "0x80000001 flags 0x0 -> 0x2",
    ]


def test_it_is_a_value() -> None:
    assert offered() == offered()
    assert offered() != CpuidModel()
    assert offered() != "text"
    assert repr(offered()) == "CpuidModel(10 entries, vendor 'GenuineIntel')"
    with pytest.raises(TypeError):
        hash(offered())
