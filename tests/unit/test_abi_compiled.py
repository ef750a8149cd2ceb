# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of vmm/abi against the compiler: constants through the binding, offsets through a tiny C program.

The guarded rows (newer than the header of the machine that builds) compare a fact with itself there; a machine with a
newer header compares it with the kernel's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vmm.abi import bootparam, cdef_constants
from vmm.abi.structs import STRUCTS
from vmm.kvm._kvm import lib

HEADERS = ("asm/bootparam.h", "asm/kvm_para.h", "asm/pvclock-abi.h", "linux/kvm_para.h")


@pytest.mark.parametrize("row", cdef_constants(), ids=lambda row: row.name)
def test_a_constant_has_the_compilers_value(row):
    assert getattr(lib, row.name) == row.value


def test_no_constant_is_declared_twice():
    names = [row.name for row in cdef_constants()]
    assert len(names) == len(set(names))
    assert len(names) > 250


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        pytest.skip("no gcc: offsets of the kernel's structures cannot be asked for")
    return found


def compiled(compiler: str, folder: Path, *lines: str) -> list[str]:
    """What a C program of these statements prints, by line; [] if it does not compile."""
    includes = "".join(f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\n" for name in HEADERS)
    source = "#include <linux/types.h>\n" + includes + "#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n"
    (folder / "facts.c").write_text(source + "\n".join(lines) + "\nreturn 0; }\n", encoding="utf-8")
    build = subprocess.run(
        [compiler, "-w", "-o", folder / "facts", folder / "facts.c"], capture_output=True, text=True, check=False
    )
    if build.returncode:
        return []
    return subprocess.run([folder / "facts"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("struct", [*STRUCTS, *bootparam.STRUCTS], ids=lambda struct: struct.name)
def test_a_structure_has_the_kernels_layout(struct, compiler, tmp_path):
    kind = f"struct {struct.name}"
    size = compiled(compiler, tmp_path, f'printf("%zu\\n", sizeof({kind}));')
    if not size:
        pytest.skip(f"{kind} is in no uapi header of this machine")
    lines = [
        f'printf("{field.name} %zu %zu\\n", offsetof({kind}, {field.name}), sizeof((({kind} *)0)->{field.name}));'
        for field in struct.fields
    ]
    shown = compiled(compiler, tmp_path, *lines)
    assert shown == [f"{field.name} {field.offset} {field.size}" for field in struct.fields]
    # Linux up to 6.8 shows a 65th byte of the async page-fault area, which is the guest's own: KVM checks and uses 64.
    assert int(size[0]) == struct.size or struct.name == "kvm_vcpu_pv_apf_data"


@pytest.mark.parametrize("row", list(bootparam.FLAGS), ids=lambda row: row.name)
def test_a_flag_of_the_boot_protocol_has_the_kernels_value(row, compiler, tmp_path):
    assert compiled(compiler, tmp_path, f'printf("%d\\n", {row.name});') == [str(row.value)]


def test_the_zero_page_has_its_parts_where_the_kernel_has_them(compiler, tmp_path):
    parts = {"hdr": bootparam.SETUP_HEADER_OFFSET, "e820_table": bootparam.E820_TABLE_OFFSET}
    lines = [f'printf("{name} %zu\\n", offsetof(struct boot_params, {name}));' for name in parts]
    rows = 'printf("%zu\\n", sizeof(((struct boot_params *)0)->e820_table) / sizeof(struct boot_e820_entry));'
    shown = compiled(compiler, tmp_path, *lines, rows)
    assert shown == [*(f"{name} {at}" for name, at in parts.items()), str(bootparam.E820_MAX_ENTRIES_ZEROPAGE)]


def test_the_compiler_was_asked_about_something(compiler, tmp_path):
    found = [s.name for s in STRUCTS if compiled(compiler, tmp_path, f'printf("%zu\\n", sizeof(struct {s.name}));')]
    assert "kvm_steal_time" in found
    assert "kvm_clock_pairing" in found
