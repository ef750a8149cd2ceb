# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm cpuid`: decoded and raw leaves of made-up lists, a value from a log explained, garbage refused in words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm import cli
from vmm.abi import cpuid as facts
from vmm.abi import cpuid_leaves, pv
from vmm.abi.cpuid import FLAG_SIGNIFCANT_INDEX, CpuidEntry
from vmm.errors import UsageError
from vmm.machine.x86.cpuid import CpuidModel
from vmm.report import cpuid
from vmm.report.style import Style

AMD = CpuidEntry(0, 0, 0, 0x10, 0x68747541, 0x444D4163, 0x69746E65)
ENTRIES = [
    AMD,
    CpuidEntry(1, eax=0x00B00F21, ebx=0x02020800, ecx=1 << 21 | 1 << 16, edx=1),
    CpuidEntry(2),
    CpuidEntry(7, 0, FLAG_SIGNIFCANT_INDEX, 1, ebx=1 << 5),
    CpuidEntry(7, 1, FLAG_SIGNIFCANT_INDEX),
    CpuidEntry(0x80000002, eax=0x1B5B4241),
    CpuidEntry(0x9999, edx=0x12345678),
]
KVM = CpuidModel(ENTRIES)
KVM.set_kvm_signature(0x40000100)
KVM.set_register(0x40000101, 0, "eax", 1 << 5 | 1 << 30)

register = st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize("model", [KVM, CpuidModel(ENTRIES), CpuidModel()], ids=["kvm", "no-kvm", "empty"])
def test_document_follows_its_schema(model: CpuidModel, follows: Callable[[str, Any], Any]) -> None:
    doc = follows("cpuid", cpuid.document("supported", model))
    assert [(each["leaf"], each["index"]) for each in doc["entries"]] == [
        (each.function, each.index if each.indexed else None) for each in model
    ]


def test_leaves_are_decoded() -> None:
    text = cpuid.text(cpuid.document("guest", KVM), Style())
    assert "0x00000000  highest basic leaf, vendor  'AuthenticAMD'" in text
    assert "ecx 0x00210000  x2apic bit 16" in text
    assert "APIC id = 2" in text
    assert "0x00000007.0  extended features" in text
    assert "0x40000101  KVM: paravirtual features" in text
    assert "eax 0x40000020  STEAL_TIME bit 30" in text
    assert "all registers 0: 0x00000002, 0x00000007.1" in text
    assert "edx 0x12345678" in text
    assert "\x1b" not in text
    assert "this list is empty" in cpuid.text(cpuid.document("emulated", CpuidModel()), Style())


@given(st.sampled_from(sorted({row.leaf for row in facts.features().values()})), st.integers(0, 2), register, register)
def test_no_bit_is_dropped(leaf: int, index: int, ecx: int, edx: int) -> None:
    doc = cpuid.document("supported", CpuidModel([CpuidEntry(leaf, index, FLAG_SIGNIFCANT_INDEX, 0, 0, ecx, edx)]))
    for name, value in (("ecx", ecx), ("edx", edx)):
        found = doc["entries"][0][name]
        assert found["value"] == value
        if "features" in found:
            masks = {row.name: row.mask for row in facts.in_register(leaf, index, name)}
            assert sum(masks[each] for each in found["features"]) | sum(1 << b for b in found["unknown_bits"]) == value
            text = cpuid.text(doc, Style())
            assert all(f"bit {bit}" in text for bit in found["unknown_bits"])


def test_raw_rows_have_the_form_of_the_cpuid_tool() -> None:
    lines = cpuid.raw(KVM).splitlines()
    assert lines[0] == "CPU:"
    assert lines[1] == "   0x00000000 0x00: eax=0x00000010 ebx=0x68747541 ecx=0x444d4163 edx=0x69746e65"
    assert len(lines) == len(KVM) + 1
    row = re.compile(r"   0x[0-9a-f]{8} 0x[0-9a-f]{2}:( e[abcd]x=0x[0-9a-f]{8}){4}")
    assert all(row.fullmatch(line) for line in lines[1:])


def test_ranges() -> None:
    assert cpuid.ranges([3, 1, 2, 2, 0x40000000]) == "0x1-0x3, 0x40000000"
    assert cpuid.ranges([]) == ""


def test_leaf_facts_fit_their_registers() -> None:
    for row in cpuid_leaves.FIELDS:
        assert row.register in facts.REGISTERS
        assert row.lo + row.width <= 32
        assert row.leaf in cpuid_leaves.LEAVES, row
    assert {row.leaf for row in facts.features().values()} <= cpuid_leaves.LEAVES.keys()
    assert cpuid_leaves.TEXT.keys() <= cpuid_leaves.LEAVES.keys()


# A value from a log -----------------------------------------------------------------------------------------------


@given(register, st.sampled_from(["eax", "edx"]))
def test_every_bit_of_a_value_is_explained(value: int, name: str) -> None:
    doc = cpuid.decode(value, name)
    assert sum(1 << each["bit"] for each in doc["bits"]) == value
    text = cpuid.decoded_text(doc, Style())
    assert all(f"  bit {each['bit']} " in text for each in doc["bits"])
    known = {row.name for row in pv.FEATURES if row.register == name}
    assert {each["name"] for each in doc["bits"] if each["name"]} | set(doc["clear"]) == known


@pytest.mark.parametrize("word", ["0x01007afb", "16808699", " 0X1007AFB "])
def test_values(word: str) -> None:
    assert cpuid.parse_value(word) == 0x01007AFB


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("01007afb", "try: 0x01007afb, if it is hexadecimal"),
        ("1007afbh", "try: 0x1007afb"),
        ("", "is no number"),
        ("0x", "is no number"),
        ("0x100000000", "does not fit in 32 bits"),
        ("-1", "is no number"),
        ("1_0", "is no number"),
        ("1e3", "is no number"),
        ("\u0663", "is no number"),
        ("\x1b[2J", "'\\\\x1b[2J' is no number"),
        ("9" * 5000, "fit|number"),
    ],
)
def test_garbage_is_refused_in_words(word: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("[", "\\[")):
        cpuid.parse_value(word)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    try:
        status: object = cli.main(["cpuid", *arguments])
    except SystemExit as error:
        status = error.code
    return status, *capsys.readouterr()


def test_decode_command(capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]) -> None:
    status, out, _ = run(capsys, "--decode", "0x01007afb")
    assert status == 0
    assert out.startswith("0x01007afb (16808699) in EAX of CPUID leaf 0x40000001, KVM's features: 13 bits set\n")
    assert "not set: MMU_OP, ASYNC_PF_VMEXIT" in out
    status, out, _ = run(capsys, "--decode", "16808699", "--json")
    doc = follows("cpuid", out)
    assert [each["bit"] for each in doc["bits"]] == [0, 1, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 24]
    status, out, _ = run(capsys, "--decode", "3", "--register", "EDX")
    assert "HINTS_REALTIME" in out
    assert "bit 1  ?" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--decode", "x"),
        ("--decode", "1", "--raw"),
        ("--decode", "1", "--leaf", "1"),
        ("--decode", "1", "--register", "ecx"),
        ("--register", "edx"),
        ("--decode", "1", "--guest"),
        ("--raw", "--json"),
        ("extra",),
    ],
)
def test_bad_input_is_status_2(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert "pyvmm" in err


def test_decode_needs_neither_kvm_nor_its_binding() -> None:
    code = (
        "import sys; sys.modules['vmm.kvm._kvm'] = None; from vmm.cli import main; "
        "sys.exit(main(['cpuid', '--decode', '0x20']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "STEAL_TIME" in done.stdout
