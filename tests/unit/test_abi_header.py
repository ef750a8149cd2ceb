# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row that names a kernel header agrees with it, by the word of the compiler. No device is needed.

Rows with a `since` may be missing from an older header; rows without one must be there.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from vmm import abi
from vmm.abi import structs, svm, vmx, x86

HEADERS = ("stddef.h", "errno.h", "linux/kvm.h", "linux/kvm_para.h", "asm/kvm.h", "asm/kvm_para.h")
FLAGS_HEADER = Path("/usr/include/x86_64-linux-gnu/asm/processor-flags.h")


def compile_errors(checks: list[str], *more_headers: str) -> str:
    """What gcc says about these lines of C after the kernel's headers; empty if nothing is wrong."""
    gcc = shutil.which("gcc")
    if gcc is None or not Path("/usr/include/linux/kvm.h").exists():
        pytest.skip("needs gcc and the kernel's headers")
    source = "\n".join([f"#include <{name}>" for name in (*HEADERS, *more_headers)] + checks)
    command = [gcc, "-fsyntax-only", "-w", "-x", "c", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False).stderr


def is_equal(name: str, value: int) -> str:
    return f'_Static_assert(({name}) == {value}ULL, "{name} is {value}");'


def if_defined(name: str, value: int) -> str:
    return f"#ifdef {name}\n{is_equal(name, value)}\n#endif"


def test_constants_agree() -> None:
    checks = [(if_defined if row.since else is_equal)(row.name, row.value) for row in abi.cdef_constants()]
    assert compile_errors(checks) == ""


@pytest.mark.parametrize("check", [is_equal("KVM_CAP_SIGNAL_MSI", 78), is_equal("KVM_CAP_NO_SUCH", 1)])
def test_a_wrong_row_is_noticed(check: str) -> None:
    assert "error" in compile_errors([check])


@pytest.mark.parametrize("module", [svm, vmx], ids=["svm", "vmx"])
def test_exits_of_a_nested_guest_agree(module: ModuleType) -> None:
    rows = [row for row in module.EXITS if row.header]
    assert len(rows) > 8
    assert compile_errors([is_equal(row.name, row.value) for row in rows], module.HEADER) == ""


@pytest.mark.parametrize("check", [is_equal("SVM_EXIT_HLT", 0x79), is_equal("SVM_EXIT_NO_SUCH", 1)])
def test_a_wrong_exit_is_noticed(check: str) -> None:
    assert "error" in compile_errors([check], svm.HEADER)


def test_structures_agree() -> None:
    checks = [
        f'_Static_assert(offsetof(struct {struct.name}, {field.name}) == {field.offset}, "{struct.name}.{field.name}");'
        f'_Static_assert(sizeof(((struct {struct.name} *)0)->{field.name}) == {field.size}, "size of {field.name}");'
        for struct in (structs.KVM_STEAL_TIME, structs.KVM_CLOCK_PAIRING, structs.KVM_VCPU_PV_APF_DATA)
        for field in struct.fields
    ]
    checks += [
        f'_Static_assert(sizeof(struct {struct.name}) == {struct.size}, "size of {struct.name}");'
        for struct in (structs.KVM_STEAL_TIME, structs.KVM_CLOCK_PAIRING)
    ]
    assert compile_errors(checks) == ""


@pytest.mark.skipif(not FLAGS_HEADER.exists(), reason="needs <asm/processor-flags.h>")
def test_processor_flags_agree() -> None:
    names = [name for name in x86.asm_constants() if name.startswith(("X86_CR0_", "X86_CR4_", "X86_EFLAGS_"))]
    text = FLAGS_HEADER.read_text()
    checked = [name for name in names if f"#define {name}\t" in text]
    assert len(checked) > 45
    values = x86.asm_constants()
    assert compile_errors([is_equal(name, values[name]) for name in checked], "asm/processor-flags.h") == ""
