# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm explain`: every topic has its text and its document, names are found, drawings are exact."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm import cli
from vmm.abi import elsewhere, msrs, port_map, pv, structs
from vmm.abi.structs import Field, Struct
from vmm.errors import UsageError
from vmm.machine.boards.own import OwnBoard
from vmm.machine.boards.pc import PcBoard
from vmm.machine.boards.testdev import TestdevBoard
from vmm.machine.devices.sink import Sink
from vmm.machine.memory import layout
from vmm.payload.proof.prove import proofs
from vmm.report import explain, explain_find, explain_text
from vmm.report.bytemap import CELL, draw
from vmm.report.explain_facts import KINDS
from vmm.report.style import Style

ROOT = Path(__file__).resolve().parents[2]
TOPICS = explain.topics(proofs({}))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: f"{topic.kind}-{topic.name}")
def test_every_topic_is_explained(topic: explain.Topic, follows: Callable[[str, Any], Any]) -> None:
    doc = follows("explain", explain.document(topic, proofs({})))
    text = explain_text.text(doc, Style())
    assert text.startswith(doc["kernel_name"])
    assert doc["meaning"][1:] in re.sub(r"\s+", " ", text)
    assert max(map(len, text.splitlines())) <= 160
    assert doc["where"] or topic.kind == "row"
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


@pytest.mark.parametrize("word", ["STEALTIME", "0xzz", "", "0x", "MSR_EFERS", "\x1b[2J"])
def test_unknown_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="is called"):
        explain.find(word, {})
    assert cli.main(["explain", word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pyvmm: no feature, register, structure, port, exit, capability or constant is called")
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
    [("EXIT_PORT", "0xf4"), ("exit_port", "0xf4"), ("MSR_LSTAR", "0xc0000082"), ("X2APIC_LVTT", "0x832"),
     ("DATA_BASE", "0xa0000")],
)  # fmt: skip
def test_constants_of_assembly_text(
    word: str, said: str, follows: Callable[[str, Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", word]) == 0
    assert said in capsys.readouterr().out
    assert cli.main(["explain", word, "--json"]) == 0
    doc = follows("explain", capsys.readouterr().out)
    assert f"{doc['value']:#x}" == said.partition(" ")[0]


def explained(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], follows: Any) -> Any:
    """The document of `pyvmm explain WORDS`; its text is not empty either."""
    assert cli.main(["explain", "--json", "--", *words]) == 0
    doc = follows("explain", capsys.readouterr().out)
    assert cli.main(["explain", "--", *words]) == 0
    assert capsys.readouterr().out.strip()
    return doc


@pytest.mark.parametrize(
    ("words", "kind", "name", "value"),
    [
        ("KVM_EXIT_IO", "exit", "KVM_EXIT_IO", 2),
        ("exit 2", "exit", "KVM_EXIT_IO", 2),
        ("exit:io", "exit", "KVM_EXIT_IO", 2),
        ("exit hlt", "exit", "KVM_EXIT_HLT", 5),
        ("cap irqfd", "capability", "KVM_CAP_IRQFD", 32),
        ("KVM_CAP_IRQFD", "capability", "KVM_CAP_IRQFD", 32),
        ("port 0x3fb", "port", "COM1", 0x3F8),
        ("port 0xe9", "port", "debug console", 0xE9),
        ("I8042_DATA", "register", "I8042_DATA", 0x60),
        ("kvm_steal_time", "structure", "kvm_steal_time", None),
        ("struct vmcb", "structure", "vmcb", None),
        ("kvm_steal_time.preempted", "field", "kvm_steal_time.preempted", 16),
        ("STEAL_TIME_preempted", "field", "kvm_steal_time.preempted", 16),
        ("GUEST_RIP", "field", "VMCS.GUEST_RIP", 0x681E),
        ("MSR_LSTAR", "msr", "MSR_LSTAR", 0xC0000082),
        ("lstar", "msr", "MSR_LSTAR", 0xC0000082),
        ("0xc0000082", "msr", "MSR_LSTAR", 0xC0000082),
        ("x2apic", "cpuid", "x2apic", None),
        ("sse4.2", "cpuid", "sse4_2", None),
        ("#PF", "exception", "#PF", 14),
        ("vector 14", "exception", "#PF", 14),
        ("0x9010", "address", "0x9010", 0x9010),
        ("address 0x7000", "address", "0x7000", 0x7000),
        ("results", "region", "results", 0x9000),
        ("DATA_BASE", "region", "data", 0xA0000),
        ("APIC_EOI", "register", "APIC_EOI", 0xB0),
        ("APIC_DM_NMI", "register", "APIC_DM_NMI", 0x400),
        ("UART_LCR_DLAB", "register", "UART_LCR_DLAB", 0x80),
        ("X86_CR0_PG", "register", "X86_CR0_PG", 1 << 31),
        ("VIRTIO_MMIO_STATUS", "virtio", "VIRTIO_MMIO_STATUS", 0x70),
        ("KVM_MEM_LOG_DIRTY_PAGES", "flag", "KVM_MEM_LOG_DIRTY_PAGES", 1),
        ("EXIT_REASON_CPUID", "vmexit", "EXIT_REASON_CPUID", 10),
        ("EPT violation", "vmexit", "EXIT_REASON_EPT_VIOLATION", 48),
        ("VMEXIT_NPF", "vmexit", "SVM_EXIT_NPF", 0x400),
        ("triple fault", "vmexit", "EXIT_REASON_TRIPLE_FAULT", 2),
        ("memslot", "term", "memslot", None),
        ("gpa", "term", "GPA", None),
        ("guest-physical address", "term", "GPA", None),
        ("cpuid 1", "leaf", "CPUID 0x1", 1),
        ("KVM_FEATURE_PV_EOI_MASK", "constant", "KVM_FEATURE_PV_EOI_MASK", 64),
        ("<feature policy='require' name='x2apic'/>", "cpuid", "x2apic", None),
        ("<features><kvm><pv-ipi state='on'/></kvm></features>", "feature", "PV_SEND_IPI", None),
        ("<apic eoi='on'/>", "feature", "PV_EOI", None),
        ("kvm-pv-eoi=off", "feature", "PV_EOI", None),
        ("+kvm-steal-time", "feature", "STEAL_TIME", None),
    ],
)
def test_every_kind_by_name_and_number(
    words: str, kind: str, name: str, value: int | None, capsys: pytest.CaptureFixture[str], follows: Any
) -> None:
    doc = explained((words,), capsys, follows)
    assert (doc["kind"], doc["name"], doc["value"]) == (kind, name, value)
    assert doc["where"] or kind == "address"
    if " " in words and "<" not in words:
        assert explained(tuple(words.split()), capsys, follows) == doc


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("hlt", ["exit", "capability"]),
        ("0x60", ["capability", "port", "address"]),
        ("-cpu host,kvm-pv-ipi=on,kvm-asyncpf=on", ["feature", "feature"]),
    ],
)
def test_an_ambiguous_word_lists_what_it_may_be(
    word: str, kinds: list[str], capsys: pytest.CaptureFixture[str], follows: Any
) -> None:
    doc = explained((word,), capsys, follows)
    assert [each["kind"] for each in doc["topics"]] == kinds
    assert doc["word"] == word
    assert cli.main(["explain", "--", word]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{word} may be {len(kinds)} things")
    named = re.search(r"`pyvmm explain (.*)` names one", text)
    assert named
    assert explained((named[1],), capsys, follows)["kind"] == kinds[0]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("-5", "numbers and addresses go from 0"),
        ("0x1" + "0" * 16, "numbers and addresses go from 0"),
        ("9" * 100, "numbers and addresses go from 0"),
        ("x" * 5000, "5000 characters"),
        ("hv-relaxed", "Hyper-V's interface"),
        ("exit 4000", "no exit has the number 0xfa0"),
        ("KVM_EXIT_MIMO", "did you mean KVM_EXIT_MMIO"),
        ("kvm_steal_time.preempt", "did you mean kvm_steal_time.preempted"),
        ("kvm-pv-eio", "kvm-pv-eoi"),
        ("serial", "in the text of COM1"),
        ("<a/>", "is called 'a'"),
        ("é漢", "is called 'é漢'"),
        ("port hlt", "is called"),
    ],
)
def test_what_names_nothing_is_one_line_with_what_to_try(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", "--", word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_all_of_a_kind_is_listed_and_each_is_found(capsys: pytest.CaptureFixture[str], follows: Any) -> None:
    assert cli.main(["explain", "--list", "--json"]) == 0
    rows = follows("explain", capsys.readouterr().out)["topics"]
    assert {row["kind"] for row in rows} == {"feature", "msr", "hypercall", "row", *KINDS}
    assert len({(row["kind"], row["name"]) for row in rows}) == len(rows)
    assert not [row for row in rows if not row["meaning"].strip() or not row["name"].isprintable()]
    lost, proven = [], proofs({})
    for row in rows:
        found = explain_find.candidates(row["name"], proven)
        if (row["kind"], row["name"]) not in [each[:2] for each in found]:
            found = explain_find.candidates(f"{row['kind']} {row['name']}", proven) if row["kind"] != "row" else []
            if (row["kind"], row["name"]) not in [each[:2] for each in found]:
                lost.append((row["kind"], row["name"]))
    assert not lost
    assert cli.main(["explain", "--list", "exits"]) == 0
    assert capsys.readouterr().out.startswith("Exits: why KVM_RUN came back")
    assert cli.main(["explain", "--list", "exitz"]) == 2
    assert cli.main(["explain", "--list", "exit", "--", "io"]) == 2


def test_the_names_elsewhere_are_taken_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for row in elsewhere.ROWS:
        found = explain_find.candidates(row.name, proofs({}))
        assert row.ours in [each.name for each in found], row
        assert elsewhere.of(row.ours)
        if row.who == "QEMU" and row.name != "kvm":
            feature = pv.find(row.name)
            assert feature is not None
            assert feature.name == row.ours
    assert cli.main(["explain", "PV_EOI"]) == 0
    text = capsys.readouterr().out
    assert "-cpu host,kvm-pv-eoi=on" in text
    assert "<features><apic eoi='on'/></features>" in text
    assert "Documentation/virt/kvm/x86/cpuid.rst" in text


@pytest.mark.parametrize("board", port_map.ALL)
def test_every_port_that_a_board_answers_has_a_row(board: str) -> None:
    made = {"own": OwnBoard, "pc": PcBoard, "testdev": TestdevBoard}[board](Sink(), lambda stop: None)
    claimed = [*made.platform.ports.readers, *made.platform.ports.writers]
    assert claimed
    for claim in claimed:
        for port in {claim.base, claim.stop - 1}:
            assert any(board in row.boards for row in port_map.at(port)), f"{port:#x} {claim.name}"


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


def test_the_page_of_beginners_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "begin.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ pyvmm (explain .*)\n(.*)$", page, re.M)
    assert len(shown) >= 5
    for words, first in shown:
        assert cli.main(shlex.split(words)) == 0
        assert capsys.readouterr().out.splitlines()[0] == first
