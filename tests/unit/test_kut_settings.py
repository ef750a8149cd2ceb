# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's options as settings; what stands in the way; and -cpu as an edit of CPUID."""

from __future__ import annotations

import json
import shlex

import pytest

from vmm.abi.cpuid import find
from vmm.abi.qemu_cpus import BESIDE, MODELS
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.kut import child
from vmm.payload.kut.cpu_model import editor
from vmm.payload.kut.settings import CpuChoice, Settings, settings_of


def made(text: str) -> Settings:
    return settings_of(shlex.split(text))


def test_the_usual_options() -> None:
    found = made("-cpu qemu64,+x2apic,-pcid -machine kernel_irqchip=split -m 2048 -append 'a b' -initrd f -nodefaults")
    assert found.cpu == CpuChoice("qemu64", (("x2apic", True), ("pcid", False)))
    assert (found.irqchip, found.memory, found.args, found.initrd) == ("split", "2048M", "a b", "f")
    assert (found.obstacles, found.notes, found.cpus) == ([], [], 1)


def test_sizes_and_numbers() -> None:
    assert [made(f"-m {text}").memory for text in ("4g", "256M", "size=1G,slots=2", "2560")] == [
        "4g", "256M", "1G", "2560M",
    ]  # fmt: skip
    assert made("-smp 3").cpus == 3
    assert made("-smp cpus=4,sockets=2").cpus == 4


def test_test_args_come_first() -> None:
    assert settings_of(["-append", "b"], args="a").args == "a b"
    assert settings_of([], args="a").args == "a"


def test_properties_of_a_cpu() -> None:
    found = made("-cpu IvyBridge,phys-bits=36,host-phys-bits=off,vendor=GenuineIntel,migratable=no,x2apic=off,avx")
    assert found.cpu == CpuChoice("IvyBridge", (("x2apic", False), ("avx", True)), "GenuineIntel", 36)
    assert not found.obstacles


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-device hyperv-testdev", "-device hyperv-testdev: the testdev board has no such device"),
        ("-device intel-iommu,intremap=on", "-device intel-iommu: the testdev board has no such device"),
        ("-cpu kvm64,hv_synic", "-cpu hv_synic: pyvmm offers no Hyper-V enlightenments"),
        ("-cpu kvm64,hv-time=on", "-cpu hv-time=on: pyvmm offers no Hyper-V enlightenments"),
        ("-machine vmport=on", "-machine vmport=on: the testdev board has it not"),
        ("-machine accel=tcg", "-machine accel=tcg: there is only KVM here"),
        ("-accel tcg", "-accel tcg: there is only KVM here"),
        ("-machine kernel_irqchip=off", "-machine kernel_irqchip=off: kvm-unit-tests need"),
        ("-drive file=x", "QEMU's option -drive has no meaning here"),
        ("-append", "QEMU's option -append stands without a value"),
        ("-m lots", "-m lots: no size of memory"),
        ("-smp 0", "-smp 0: no number of CPUs"),
        ("-global x.y=1", "-global x.y=1: no device here"),
        ("-cpu max,vendor=Me", "-cpu vendor=Me: a vendor has twelve letters"),
        ("-cpu max,foo=7", "-cpu foo=7: no such property here"),
    ],
)
def test_obstacles(text: str, reason: str) -> None:
    (found,) = made(text).obstacles
    assert found.startswith(reason)


def test_what_only_differs_is_a_note() -> None:
    found = made("-M q35 -device pci-testdev -smp 2,cores=2 -machine pit=off,vmport=off")
    assert [note.split(":")[0] for note in found.notes] == [
        "-machine q35", "-device pci-testdev", "-smp 2,cores=2", "-machine pit=off",
    ]  # fmt: skip
    assert not found.obstacles


def test_a_request_is_what_the_child_reads() -> None:
    found = made("-cpu qemu64,+umip -m 64 -append 'é'")
    found.notes.append("n")
    asked = json.loads(child.request(found, __import__("pathlib").Path("/x"), None))
    assert child.settings_from(asked["settings"]) == found
    assert (asked["image"], asked["timeout"]) == ("/x", None)


# -cpu


def offered(*names: str) -> CpuidModel:
    model = CpuidModel()
    model.set_register(0, 0, "eax", 0xD)
    model.enable(*names)
    return model


def edited(model: CpuidModel, text: str) -> list[str]:
    notes: list[str] = []
    edit = editor(made(f"-cpu {text}").cpu, notes)
    assert edit is not None
    edit(model)
    return notes


@pytest.mark.parametrize("text", ["max", "host", "host,migratable=no"])
def test_the_whole_cpu_is_not_edited(text: str) -> None:
    assert editor(made(f"-cpu {text}").cpu, []) is None


def test_no_cpu_is_not_edited() -> None:
    assert editor(Settings().cpu, []) is None


def test_a_model_takes_away() -> None:
    model = offered("fpu", "apic", "avx2", "umip", "pcid", "x2apic", "lm", "vme")
    assert edited(model, "qemu64,+umip,-apic") == []
    has = {name for name in ("fpu", "apic", "avx2", "umip", "pcid", "x2apic", "lm", "vme") if model.has(name)}
    assert has == {"fpu", "umip", "x2apic", "lm"}


def test_what_is_taken_away_is_told_to_kvm_also_where_it_is_not_offered() -> None:
    """The guest may have it all the same, and that is said (not_taken)."""
    model = offered("fpu")
    assert edited(model, "max,-movbe") == []
    assert "movbe" in model.wanted


def test_a_model_adds_nothing_and_that_is_said() -> None:
    model = offered("fpu")
    assert edited(model, "max,+umip") == ["-cpu +umip: this KVM does not offer it"]
    assert not model.has("umip")


def test_an_unknown_model_and_an_unknown_feature_are_said() -> None:
    notes = edited(offered("fpu"), "IvyBridge,+nonsense")
    assert notes[0].startswith("-cpu IvyBridge: not known here")
    assert notes[1] == "-cpu +nonsense: no CPUID feature that is known here"


def test_vendor_and_phys_bits() -> None:
    model = offered("fpu")
    model.set_register(0x80000008, 0, "eax", 0x3030)
    edited(model, "max,vendor=AuthenticAMD,phys-bits=36")
    assert model.vendor == "AuthenticAMD"
    assert model.register(0x80000008, 0, "eax") == 0x3024
    edited(model, "max,phys-bits=52")  # more than there are cannot be given
    assert model.register(0x80000008, 0, "eax") == 0x3024


def test_every_feature_of_a_model_has_a_bit() -> None:
    for name, features in MODELS.items():
        assert not [each for each in features | BESIDE if find(each) is None], name
