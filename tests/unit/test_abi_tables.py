# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of vmm.abi are sound: no fact twice, every row findable by its own name, nothing unknown fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable

import pytest

from vmm import abi
from vmm.abi import apic, caps, cpuid, exits, flags, msrs, ports, pv, quirks, rows, structs, x86

TABLES: dict[str, list[tuple[object, str]]] = {
    "exits": [(row.number, row.name) for row in exits.EXITS],
    "caps": [(row.number, row.name) for row in caps.CAPS],
    "quirks": [(row.value, row.name) for row in quirks.QUIRKS],
    "msrs": [(row.number, row.name) for row in msrs.MSRS],
    "apic": [(row.offset, row.name) for row in apic.REGISTERS],
    "features": [((row.register, row.bit), row.name) for row in pv.FEATURES],
    "hypercalls": [(row.nr, row.name) for row in pv.HYPERCALLS],
    "exceptions": [(row.vector, row.mnemonic) for row in x86.EXCEPTIONS],
    "cpuid": [(row[1:], row.name) for row in cpuid.features().values()],
    "structs": [(row.asm, row.name) for row in structs.STRUCTS],
}
SINCE = re.compile(r"\d+\.\d+")


def repeated(values: Iterable[object]) -> list[object]:
    seen: set[object] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


@pytest.mark.parametrize("table", TABLES)
def test_no_number_and_no_name_twice(table: str) -> None:
    assert repeated(number for number, _ in TABLES[table]) == []
    assert repeated(name for _, name in TABLES[table]) == []


def test_the_uniqueness_check_can_fail() -> None:
    assert repeated([1, 2, 1]) == [1]


@pytest.mark.parametrize("table", [exits.INTERNAL_ERRORS, exits.SYSTEM_EVENTS, exits.MP_STATES, flags.VM_TYPES])
def test_enumerations_have_one_name_per_value(table: tuple[rows.Named, ...]) -> None:
    assert repeated(row.value for row in table) == []


def test_constants_of_the_build_are_unique_and_dated() -> None:
    constants = abi.cdef_constants()
    assert repeated(row.name for row in constants) == []
    assert all(row.since is None or SINCE.fullmatch(row.since) for row in constants)
    assert {row.header for row in constants} == {
        "linux/kvm.h", "asm/kvm.h", "asm/kvm_para.h", "linux/kvm_para.h",
    }  # fmt: skip
    assert len(constants) > 300


def test_constants_of_the_assembler() -> None:
    constants = abi.asm_constants()
    assert constants is abi.asm_constants()
    for name, value in {
        "MSR_KVM_STEAL_TIME": 0x4B564D03,
        "MSR_EFER": 0xC0000080,
        "MSR_IA32_APICBASE": 0x1B,
        "KVM_FEATURE_STEAL_TIME": 5,
        "KVM_FEATURE_STEAL_TIME_MASK": 0x20,
        "KVM_HINTS_REALTIME": 0,
        "KVM_HC_KICK_CPU": 5,
        "X86_CR4_OSFXSR": 1 << 9,
        "EFER_LME": 1 << 8,
        "X86_EFLAGS_IF": 0x200,
        "PF_VECTOR": 14,
        "APIC_EOI": 0xB0,
        "X2APIC_EOI": 0x80B,
        "X2APIC_ICR": 0x830,
        "X2APIC_ISR7": 0x817,
        "STEAL_TIME_preempted": 16,
        "PVCLOCK_tsc_shift": 28,
        "KERNEL_CS": 8,
        "DEBUG_CONSOLE": 0xE9,
        "EXIT_SKIP": 77,
    }.items():
        assert constants[name] == value, name
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in constants)
    assert all(0 <= value < 1 << 64 for value in constants.values())


def test_two_facts_under_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ports.ASM, "MSR_EFER", 1)
    with pytest.raises(ValueError, match="MSR_EFER"):
        abi.asm_constants.__wrapped__()


def test_exit_names_never_fail() -> None:
    assert (exits.exit_name(2), exits.exit_name(39), exits.exit_name(999)) == ("IO", "MEMORY_FAULT", "REASON_999")
    assert all(row.meaning.endswith(".") and len(row.meaning.splitlines()) == 1 for row in exits.EXITS)
    assert exits.exit_meaning(5) == exits.EXITS[5].meaning
    assert "999" in exits.exit_meaning(999)
    assert [row.number for row in exits.EXITS] == list(range(len(exits.EXITS)))
    assert exits.exit_reason(8) is exits.EXITS[8]
    assert exits.exit_reason(-1) is None


def test_small_enumerations_by_value() -> None:
    assert exits.value_name(exits.INTERNAL_ERRORS, 1) == "KVM_INTERNAL_ERROR_EMULATION"
    assert exits.value_name(exits.INTERNAL_ERRORS, 77) == "77"
    assert "emulate" in exits.value_meaning(exits.INTERNAL_ERRORS, 1)
    assert exits.value_meaning(exits.INTERNAL_ERRORS, 77) == "unknown value 77"
    assert rows.flag_names(flags.CLOCK, 0x12) == "KVM_CLOCK_TSC_STABLE|0x10"


def test_capabilities_by_name() -> None:
    signal_msi = caps.find("SIGNAL_MSI")
    assert signal_msi is not None
    assert str(signal_msi) == "KVM_CAP_SIGNAL_MSI (77)"
    assert caps.find("KVM_CAP_SIGNAL_MSI") is caps.find("kvm_cap_signal_msi ") is caps.find(77) is signal_msi
    assert all(caps.find(row.kernel_name) is row for row in caps.CAPS)
    assert caps.find("NO_SUCH") is None
    assert "SIGNAL_MSI" in caps.unknown("KVM_CAP_SIGNAL_MSL")
    assert (caps.cap_name(188), caps.cap_name(9999)) == ("KVM_CAP_X86_USER_SPACE_MSR (188)", "capability 9999")
    assert {row.enable for row in caps.CAPS} == {"", "vm", "vcpu"}


def test_quirks_by_name() -> None:
    assert quirks.find("FIX_HYPERCALL_INSN") is quirks.find("KVM_X86_QUIRK_FIX_HYPERCALL_INSN") is quirks.QUIRKS[5]
    assert quirks.find("nothing") is None
    assert "FIX_HYPERCALL_INSN" in quirks.unknown("FIX_HYPERCAL")


def test_msrs_by_name_and_number() -> None:
    assert all(msrs.find(row.name) is row and msrs.find(row.number) is row for row in msrs.MSRS)
    for name in ("efer", "MSR_IA32_EFER", "MSR_EFER"):
        assert msrs.find(name) is msrs.find(0xC0000080)
    for name in ("STEAL_TIME", "msr_kvm_steal_time", "KVM_STEAL_TIME"):
        assert msrs.find(name) is msrs.find(0x4B564D03)
    assert msrs.find("MSR_FMASK") is msrs.find(0xC0000084)
    assert msrs.find("nothing") is None
    assert "MSR_LSTAR" in msrs.unknown("MSR_LSTR")
    assert (msrs.msr_name(0x1B), msrs.msr_name(0x123)) == ("MSR_IA32_APICBASE", "MSR 0x123")
    assert (msrs.msr_name(0x401), msrs.msr_name(0x20F)) == ("MSR_IA32_MC0_STATUS", "MSR_MTRRphysMask7")
    assert (msrs.msr_name(0x268), msrs.msr_name(0x26F)) == ("MSR_MTRRfix4K_C0000", "MSR_MTRRfix4K_F8000")
    assert all(msrs.KVM_FIRST <= row.number <= msrs.KVM_LAST for row in msrs.KVM_MSRS[2:])


def test_cpuid_features_by_name() -> None:
    table = cpuid.features()
    assert all(cpuid.find(name) == row for name, row in table.items())
    assert all(alias not in table and name in table for alias, name in cpuid.ALIASES.items())
    assert all(cpuid.find(alias) == table[name] for alias, name in cpuid.ALIASES.items())
    assert cpuid.find("X86_FEATURE_X2APIC") == cpuid.find("X2APIC") == table["x2apic"]
    assert cpuid.find("KVM_FEATURE_STEAL_TIME") == cpuid.find("steal_time") == table["STEAL_TIME"]
    assert (str(table["x2apic"]), str(table["fsrm"])) == ("x2apic (0x1:ECX[21])", "fsrm (0x7.0:EDX[4])")
    assert table["STEAL_TIME"].is_kvm
    assert not table["x2apic"].is_kvm
    assert cpuid.find("nothing") is None
    assert "x2apic" in cpuid.unknown("x2apik")
    assert "STEAL_TIME" in cpuid.unknown("KVM_FEATURE_STEEL_TIME")
    assert cpuid.describe(0x80000001, 0, "edx", 1 << 9 | 1 << 11 | 1 << 26) == "apic|syscall|pdpe1gb"
    assert repeated(row.bit for row in cpuid.in_register(0x80000001, 0, "edx")) == []
    assert cpuid.describe(1, 0, "ecx", 1 << 21 | 1 << 16) == "x2apic|0x10000"


def test_ports_are_where_the_payloads_expect_them() -> None:
    assert (ports.DEBUG_CONSOLE, ports.COM1, ports.EXIT, ports.FAULT, ports.DELAY) == (0xE9, 0x3F8, 0xF4, 0xF5, 0x80)
    assert ports.EXIT_VALUES == {0: "pass", 1: "fail", 77: "skip"}


@pytest.mark.parametrize("module", ["exits", "caps", "ports", "x86", "pv", "cpuid", "msrs", "structs", "apic"])
def test_a_table_costs_only_itself(module: str) -> None:
    """Start-up is a feature: no dataclasses (they bring inspect and ast), and no table that was not asked for."""
    code = f"import sys, vmm.abi.{module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"dataclasses", "inspect", "ast", "difflib", "argparse"} & set(loaded.split())
    if module in ("exits", "ports", "structs"):
        assert not {"vmm.abi.msrs", "vmm.abi.cpuid", "vmm.abi.pv", "vmm.abi.caps"} & set(loaded.split())
