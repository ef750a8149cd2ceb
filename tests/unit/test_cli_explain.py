# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm explain`: every topic has its text and its document, names are found, drawings are exact."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from vmm import cli
from vmm.abi import msrs, pv, structs
from vmm.abi.structs import Field, Struct
from vmm.errors import UsageError
from vmm.machine.memory import layout
from vmm.payload.proof.prove import proofs
from vmm.report import explain, explain_text
from vmm.report.bytemap import CELL, draw
from vmm.report.style import Style

TOPICS = explain.topics(proofs({}))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: f"{topic.kind}-{topic.name}")
def test_every_topic_is_explained(topic: explain.Topic, follows: Callable[[str, Any], Any]) -> None:
    doc = follows("explain", explain.document(topic, proofs({})))
    text = explain_text.text(doc, Style())
    assert text.startswith(doc["kernel_name"])
    assert doc["meaning"][1:] in re.sub(r"\s+", " ", text)
    assert max(map(len, text.splitlines())) <= 160
    for each in (*doc["msrs"], *doc["structures"], *doc["constants"], *doc["related"]):
        assert each["name"] in text
    if topic.feature:
        assert f"bit {topic.feature.bit} of" in text
        assert topic.feature.since in text
    if doc["proof"]:
        assert all(each["name"] in text for each in doc["proof"]["results"])
    assert explain.find(topic.name, proofs({})) in TOPICS


def test_all_there_is_can_be_listed(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("explain", explain.list_document(TOPICS))
    text = explain_text.listing(TOPICS, Style())
    assert {row.name for row in pv.FEATURES} <= {each["name"] for each in doc["topics"]}
    assert all(re.search(rf"^  \S.*\b{each['name']}  ", text, re.M) for each in doc["topics"])


@pytest.mark.parametrize(
    ("word", "kind", "name"),
    [
        ("steal-time", "feature", "STEAL_TIME"),
        ("KVM_FEATURE_PV_EOI", "feature", "PV_EOI"),
        ("MSR_KVM_STEAL_TIME", "msr", "MSR_KVM_STEAL_TIME"),
        ("KVM_STEAL_TIME", "feature", "STEAL_TIME"),
        ("0x4b564d03", "msr", "MSR_KVM_STEAL_TIME"),
        ("pv_eoi_en", "msr", "MSR_KVM_PV_EOI_EN"),
        ("KVM_HC_SEND_IPI", "hypercall", "KVM_HC_SEND_IPI"),
        ("send_ipi", "hypercall", "KVM_HC_SEND_IPI"),
        ("KVM_HC_MMU_OP", "hypercall", "KVM_HC_MMU_OP"),
        ("realtime", "feature", "HINTS_REALTIME"),
    ],
)
def test_names(word: str, kind: str, name: str) -> None:
    assert explain.find(word, {})[:2] == (kind, name)


@pytest.mark.parametrize("word", ["STEALTIME", "0xzz", "0x10", "", "0x", "MSR_EFERS", "\x1b[2J"])
def test_unknown_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="is called"):
        explain.find(word, {})
    assert cli.main(["explain", word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pyvmm: no paravirtual feature, MSR of KVM, hypercall or constant is called")
    assert "\x1b" not in err
    assert word != "STEALTIME" or "did you mean STEAL_TIME" in err


@pytest.mark.parametrize(
    ("word", "name"),
    [("kvmclock", "CLOCKSOURCE2"), ("kvm-asyncpf", "ASYNC_PF"), ("kvm-asyncpf-int", "ASYNC_PF_INT"),
     ("kvm-asyncpf-vmexit", "ASYNC_PF_VMEXIT"), ("kvm-pv-ipi", "PV_SEND_IPI"), ("kvm_nopiodelay", "NOP_IO_DELAY"),
     ("kvmclock-stable-bit", "CLOCKSOURCE_STABLE_BIT"), ("kvm-hint-dedicated", "HINTS_REALTIME"), ("kvm-mmu", "MMU_OP"),
     ("kvm-steal-time", "STEAL_TIME"), ("kvm-pv-unhalt", "PV_UNHALT"), ("kvm-msi-ext-dest-id", "MSI_EXT_DEST_ID")],
)  # fmt: skip
def test_the_names_of_qemu_and_libvirt(word: str, name: str) -> None:
    assert explain.find(word, {})[:2] == ("feature", name)


@pytest.mark.parametrize(
    ("word", "said"),
    [("EXIT_PORT", "0xf4 (244)"), ("exit_port", "0xf4 (244)"), ("MSR_LSTAR", "0xc0000082"), ("X2APIC_LVTT", "0x832"),
     ("DATA_BASE", "0xa0000")],
)  # fmt: skip
def test_constants_of_assembly_text(
    word: str, said: str, follows: Callable[[str, Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", word]) == 0
    assert said in capsys.readouterr().out
    assert cli.main(["explain", word, "--json"]) == 0
    doc = follows("explain", capsys.readouterr().out)
    assert (doc["kind"], f"{doc['value']:#x}") == ("constant", said.partition(" ")[0])


def test_the_map(follows: Callable[[str, Any], Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "map"]) == 0
    text = capsys.readouterr().out
    assert all(f"{region.base:#x} " in text and region.what in text for region in layout.MAP)
    assert cli.main(["explain", "map", "--json"]) == 0
    assert len(follows("explain", capsys.readouterr().out)["regions"]) == len(layout.MAP)


def test_what_a_text_holds() -> None:
    text = explain_text.text(explain.document(explain.find("ASYNC_PF_INT", {}), {}), Style())
    assert "bit 14 of EAX in CPUID leaf 0x40000001, since Linux 5.8" in text
    assert "struct kvm_vcpu_pv_apf_data: 64 bytes" in text
    assert "Duty of the VMM: create the local APIC in the kernel." in text
    assert "pyvmm has no payload that proves it" in text
    text = explain_text.text(explain.document(explain.find("KVM_HC_CLOCK_PAIRING", {}), {}), Style())
    assert "RAX = 9; RBX = guest-physical address of 64 bytes; RCX = clock type, 0" in text
    assert "struct kvm_clock_pairing" in text


def test_the_structures_belong_to_rows_that_exist() -> None:
    assert all(msrs.find(f"MSR_KVM_{name}") for name in structs.OF_MSR)
    assert all(pv.find_hypercall(name) for name in structs.OF_HYPERCALL)
    for name, struct in structs.OF_MSR.items():
        row = msrs.find(f"MSR_KVM_{name}")
        assert row is not None
        assert struct.name in row.what or struct is structs.PV_EOI
    assert {*structs.OF_MSR.values(), *structs.OF_HYPERCALL.values()} == set(structs.STRUCTS)
    for prefix in explain.CONSTANTS_OF.values():
        assert any(row.name.startswith(prefix) for row in pv.CONSTANTS), prefix


# Drawings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct", structs.STRUCTS, ids=lambda struct: struct.name)
def test_a_drawing_has_every_field_where_it_is(struct: Struct) -> None:
    lines = draw(struct)
    rows = {int(line.split()[0], 16): line for line in lines[1:]}
    start = lines[0].index("0")
    for field in struct.fields:
        line = rows[field.offset & ~7]
        cell = line[start + (field.offset & 7) * CELL :][: field.size * CELL - 1]
        assert cell.strip() == field.name or cell == field.name[: len(cell) - 1] + "~"
        assert line[start + (field.offset & 7) * CELL - 1] == "|"
        assert line[start + ((field.offset & 7) + field.size) * CELL - 1] == "|"
    assert max(map(len, lines)) <= 78


def test_a_drawing_of_gaps() -> None:
    made = Struct("x", "X", 44, 4, (Field("a", 4, 1), Field("b", 24, 8)))
    assert draw(made) == [
        "at    0        1        2        3        4        5        6        7",
        " 0x0 |                 .                 |   a    |            .             |",
        " 0x8 |unused, 16 bytes",
        "0x18 |                                   b                                   |",
        "0x20 |unused, 12 bytes",
    ]


def test_commands(capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]) -> None:
    for arguments, begin in (([], "Features"), (["PV_EOI"], "KVM_FEATURE_PV_EOI: bit 6")):
        assert cli.main(["explain", *arguments]) == 0
        assert capsys.readouterr().out.startswith(begin)
        assert cli.main(["explain", "--json", *arguments]) == 0
        follows("explain", capsys.readouterr().out)
