# SPDX-License-Identifier: GPL-2.0-or-later
"""The pc board's ACPI tables: sums, pointers and entries read back, and the whole judged by acpica's iasl."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.abi import acpi as facts
from vmm.abi import pc
from vmm.machine.boards import acpi, aml
from vmm.machine.boards.board import VirtioPlace
from vmm.machine.memory.layout import MAX_CPUS, REGIONS

VIRTIO = (VirtioPlace(0xD100_0000, 0x1000, 5), VirtioPlace(0xD100_1000, 0x1000, 23))
IASL = shutil.which("iasl")


def by_signature(ids=(0,), virtio=VIRTIO, **options) -> dict[bytes, tuple[int, bytes]]:
    made = acpi.tables(list(ids), virtio, **options)
    assert made.segments[0][0] == made.rsdp
    return {data[:4]: (base, data) for base, data in made.segments}


def entries(madt: bytes) -> list[tuple[int, bytes]]:
    at, found = facts.HEADER_LENGTH + 8, []
    while at < len(madt):
        kind, length = madt[at], madt[at + 1]
        found.append((kind, madt[at + 2 : at + length]))
        at += length
    assert at == len(madt)
    return found


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 20))
def test_every_sum_is_zero_and_every_pointer_true(cpus: int, devices: int) -> None:
    virtio = [VirtioPlace(0xD100_0000 + 0x1000 * i, 0x1000, i) for i in range(devices)]
    tables = by_signature(range(cpus), virtio)
    for signature, (base, data) in tables.items():
        assert base % 16 == 0
        if signature == b"RSD ":
            assert sum(data[: facts.RSDP_FIRST]) & 0xFF == 0
        elif signature != b"FACS":
            assert int.from_bytes(data[4:8], "little") == len(data)
        if signature != b"FACS":
            assert sum(data) & 0xFF == 0, signature
    rsdp = tables[b"RSD "][1]
    assert struct.unpack_from("<I", rsdp, 16)[0] == tables[b"RSDT"][0]
    assert struct.unpack_from("<Q", rsdp, 24)[0] == tables[b"XSDT"][0]
    listed = [tables[b"FACP"][0], tables[b"APIC"][0]]
    assert list(struct.unpack_from("<2I", tables[b"RSDT"][1], 36)) == listed
    assert list(struct.unpack_from("<2Q", tables[b"XSDT"][1], 36)) == listed
    fadt = tables[b"FACP"][1]
    assert struct.unpack_from("<II", fadt, 36) == (tables[b"FACS"][0], tables[b"DSDT"][0])
    assert struct.unpack_from("<Q", fadt, 140)[0] == tables[b"DSDT"][0]


def test_tables_lie_apart_and_in_the_bios_area_for_as_many_cpus_as_there_can_be() -> None:
    virtio = [VirtioPlace(0xD100_0000 + 0x1000 * i, 0x1000, i) for i in range(32)]
    end = pc.BIOS_BASE
    for base, data in acpi.tables(range(MAX_CPUS), virtio).segments:
        assert base >= end
        end = base + len(data)
    assert end <= pc.BIOS_BASE + pc.BIOS_SIZE


def test_the_fadt_says_where_the_fixed_hardware_is() -> None:
    fadt = by_signature()[b"FACP"][1]
    assert len(fadt) == 276
    at, where = facts.HEADER_LENGTH, {}
    for name, size in facts.FADT:
        where[name] = int.from_bytes(fadt[at : at + size], "little")
        at += size
    assert (where["PM1a_EVT_BLK"], where["PM1a_CNT_BLK"], where["PM_TMR_BLK"]) == (0x600, 0x604, 0x608)
    assert (where["SCI_INT"], where["SMI_CMD"], where["CENTURY"]) == (9, 0, 0x32)
    assert where["RESET_REG"] >> 32 == pc.RESET_CONTROL
    assert where["RESET_VALUE"] == 6
    assert where["Flags"] & facts.RESET_REG_SUP


def test_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="PM1c"):
        acpi.fields(facts.FADT, {"PM1c": 1})


def test_the_madt_has_each_cpu_by_its_apic_id() -> None:
    madt = by_signature([0, 1, 254, 255, 400])[b"APIC"][1]
    found = entries(madt)
    small = [body[:2] for kind, body in found if kind == facts.MADT_LAPIC]
    large = [struct.unpack("<2xIII", body) for kind, body in found if kind == facts.MADT_X2APIC]
    assert small == [b"\0\0", b"\1\1", b"\2\xfe"]
    assert large == [(255, 1, 3), (400, 1, 4)]
    overrides = [struct.unpack("<BBIH", body) for kind, body in found if kind == facts.MADT_OVERRIDE]
    assert overrides == [(0, 0, 2, 0), (0, 9, 9, 0b1101)]
    assert [struct.unpack("<2xII", body) for kind, body in found if kind == facts.MADT_IOAPIC] == [
        (REGIONS["ioapic"].base, 0)
    ]


def test_without_an_apic_there_is_no_madt() -> None:
    tables = by_signature(apic=False)
    assert b"APIC" not in tables
    assert len(tables[b"XSDT"][1]) == facts.HEADER_LENGTH + 8


@pytest.mark.parametrize("body", [0, 1, 61, 62, 63, 64, 0xFFD, 0xFFE, 0x1000, 0xFFFFB, 0xFFFFC, 0xFFFFF])
def test_a_package_length_counts_itself(body: int) -> None:
    made = aml.package_length(body)
    more = made[0] >> 6
    assert len(made) == more + 1
    rest = int.from_bytes(made[1:], "little")
    assert (rest << 4 | made[0] & 0xF if more else made[0]) == body + len(made)


def test_names_and_numbers() -> None:
    assert aml.name_string("\\_SB") == b"\\_SB_"
    assert aml.name_string("\\_SB.COM1") == b"\\\x2e_SB_COM1"
    assert aml.name_string("A.B.C") == b"\x2f\x03A___B___C___"
    assert aml.name_string("\\") == b"\\\0"
    assert [aml.integer(n) for n in (0, 1, 2, 0x100, 0x10000, 1 << 32)] == [
        b"\0", b"\1", b"\x0a\x02", b"\x0b\0\1", b"\x0c\0\0\1\0", b"\x0e\0\0\0\0\1\0\0\0"
    ]  # fmt: skip
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c41d00501")
    with pytest.raises(ValueError, match="at most 4"):
        aml.name_string("TOOLONG")
    with pytest.raises(ValueError, match="64 bits"):
        aml.integer(1 << 64)
    with pytest.raises(ValueError, match="too many"):
        aml.package_length(1 << 28)


@pytest.mark.skipif(IASL is None, reason="no iasl (tools/install-test-tools)")
@pytest.mark.parametrize("cpus", [1, 3, 300])
def test_iasl_reads_and_compiles_them(tmp_path: Path, cpus: int) -> None:
    for signature, (_, data) in by_signature(range(cpus)).items():
        if signature == b"RSD ":
            continue
        name = signature.decode().strip()
        (tmp_path / f"{name}.dat").write_bytes(data)
        read = subprocess.run([IASL, "-d", f"{name}.dat"], cwd=tmp_path, capture_output=True, text=True, check=False)
        text = read.stdout + read.stderr
        assert read.returncode == 0, text
        assert not {"rror", "arning"} & {word for word in ("rror", "arning") if word in text}, text
        if signature in (b"RSDT", b"XSDT", b"FACS"):
            continue
        made = subprocess.run([IASL, f"{name}.dsl"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "Compilation successful. 0 Errors, 0 Warnings, 0 Remarks" in made.stdout, made.stdout + made.stderr
    shown = (tmp_path / "DSDT.dsl").read_text()
    for text in ('"LNRO0005"', "0xD1001000", "0x00000017", 'EisaId ("PNP0501")', "Name (\\_S5, Package (0x04)"):
        assert text in shown


@pytest.mark.skipif(IASL is None, reason="no iasl (tools/install-test-tools)")
def test_iasl_sees_a_damaged_sum(tmp_path: Path) -> None:
    data = bytearray(by_signature()[b"DSDT"][1])
    data[9] ^= 1
    (tmp_path / "D.dat").write_bytes(data)
    read = subprocess.run([IASL, "-d", "D.dat"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Incorrect checksum" in read.stdout + read.stderr
