# SPDX-License-Identifier: GPL-2.0-or-later
"""The header of a payload: each key, and each way to write one wrong."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.errors import PayloadError
from vmm.machine.ends import Why
from vmm.payload.catalog import find, shipped
from vmm.payload.header import ENDS, MAX_RESULTS, Header, parse

WHOLE = """\
; summary: one line
; needs:   irqchip, cpus >= 2, KVM_CAP_STEAL_TIME, STEAL_TIME avx2
; machine: irqchip=kernel cpus=3 memory=4M timeout=0.5
; Machine: output=64K start=all ring=3
;
; some words about it, and a note: this is none of the keys
; user:    begin end
; ports:   0x80 0x3f8
; ports:   129
; param:   count = 0x10   how often
; param:   mask=-1
; result:  ticks   u64   what must hold
; result:  delta   i64
; result:  flag    bool  it is set
; result:  plain
; result:  worded  it says what must hold
; quirks:  FIX_HYPERCALL_INSN, KVM_X86_QUIRK_LAPIC_MMIO_HOLE
; enable:  KVM_CAP_X86_DISABLE_EXITS=0x2, ENFORCE_PV_FEATURE_CPUID=1
; devices: ioapic, virtio_blk=disk.img, virtio_net=tap:tap0
; ends:    shutdown

start:
; summary: too late to be a header
"""


def test_every_key() -> None:
    header = parse(WHOLE, "x.asm")
    assert header.summary == "one line"
    assert (header.capabilities, header.features, header.min_cpus) == (("STEAL_TIME",), ("STEAL_TIME", "avx2"), 2)
    assert (header.irqchip, header.cpus, header.memory) == ("kernel", 3, 4 << 20)
    assert (header.timeout, header.output_limit) == (0.5, 64 << 10)
    assert (header.start_all, header.ring) == (True, 3)
    assert (header.user, header.ports) == (("begin", "end"), (0x80, 0x3F8, 129))
    assert {name: (each.default, each.what) for name, each in header.params.items()} == {
        "count": (16, "how often"),
        "mask": (-1, ""),
    }
    assert [(each.name, each.slot, each.kind, each.what) for each in header.results.values()] == [
        ("ticks", 0, "u64", "what must hold"),
        ("delta", 1, "i64", ""),
        ("flag", 2, "bool", "it is set"),
        ("plain", 3, "u64", ""),
        ("worded", 4, "u64", "it says what must hold"),
    ]
    assert header.quirks == ("FIX_HYPERCALL_INSN", "KVM_X86_QUIRK_LAPIC_MMIO_HOLE")
    assert header.enable == (("X86_DISABLE_EXITS", (2,)), ("ENFORCE_PV_FEATURE_CPUID", (1,)))
    assert header.devices == (("ioapic", ""), ("virtio_blk", "disk.img"), ("virtio_net", "tap:tap0"))
    assert header.ends is Why.SHUTDOWN
    assert header.notes == (
        "x.asm:23: `; summary: too late to be a header` is a comment: "
        "the header ends at the first line of code, line 22",
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [("; reslut: a u64", "did you mean `result`?"), ("; results: a", "did you mean `result`?"),
     ("; need: irqchip", "did you mean `needs`?"), ("; machin: cpus=2", "did you mean `machine`?"),
     ("; parameter: n = 1", "did you mean `param`?"), ("; result a u64 it is", "write `; result: ...`, with a colon"),
     ("; machine cpus=2", "write `; machine: ...`, with a colon"),
     ("; ends halt", "write `; ends: ...`, with a colon")],
)  # fmt: skip
def test_a_comment_that_was_meant_as_a_header_line_is_said(line: str, said: str) -> None:
    header = parse(f"{line}\nstart: hlt\n", "x.asm")
    assert header.notes == (f"x.asm:1: `{line}` is a comment: {said}",)
    assert not header.results


@pytest.mark.parametrize("line", ["; result: a u64 x", "; reslut: a u64 x", "    ;; Result : a", "; machine: cpus=2"])
def test_a_header_line_below_the_first_line_of_code_is_said(line: str) -> None:
    (note,) = parse(f'; summary: x\n%include "results.inc"\n{line}\n', "x.asm").notes
    assert note.startswith("x.asm:3: ")
    assert note.endswith("is a comment: the header ends at the first line of code, line 2")


@pytest.mark.parametrize(
    "line", ["; note: this", "; see also: that", "; result of it all", "; needs no irqchip", "; ports of call",
             "; usage: x", "; user space goes here", "; 1: one", ";", "; machine dependent: yes",
             "; reset: now", "; ends here"],
)  # fmt: skip
def test_words_are_words(line: str) -> None:
    assert parse(f"{line}\nstart: hlt\n{line}\n", "x.asm") == Header()


@pytest.mark.parametrize("line", [";; result: a u64 x", "; result : a u64 x", ";\tRESULT: a u64 x"])
def test_spaces_and_semicolons_do_not_make_a_comment(line: str) -> None:
    assert list(parse(line, "x.asm").results) == ["a"]


def test_no_header_is_the_defaults() -> None:
    assert parse("start: hlt\n; a comment: yes", "x.asm") == parse("", "x.asm") == Header()


def test_blank_lines_and_indents_belong_to_the_header() -> None:
    assert parse("\n   ; summary: a\n\t\n  ;ends:halt\n", "x.asm") == Header(summary="a", ends=Why.HALT)


def test_irqchip_as_a_need_is_split_unless_the_machine_says_more() -> None:
    assert parse("; needs: irqchip", "x").irqchip == "split"
    assert parse("; machine: irqchip=kernel\n; needs: irqchip", "x").irqchip == "kernel"
    assert parse("; needs: irqchip\n; machine: irqchip=kernel", "x").irqchip == "kernel"


@pytest.mark.parametrize("end", ENDS)
def test_every_end(end: str) -> None:
    assert parse(f"; ends: {end}", "x").ends is ENDS[end]


def test_constants_are_slot_offsets_and_parameters() -> None:
    header = parse("; result: a\n; result: b\n; param: n = 5", "x")
    assert header.constants({"n": 7}) == {"R_a": 0, "R_b": 16, "PARAM_n": 7}


WRONG = {
    "machine: cpus": "has no value",
    "machine: cpus=two": "'two' is not a number",
    "machine: cpus=0": "0 vCPUs",
    "machine: cpus=5000": "5000 vCPUs",
    "machine: memory=lots": "'lots' is not a size",
    "machine: timeout=soon": "is no number of seconds",
    "machine: timeout=nan": "time limit of nan",
    "machine: timeout=inf": "time limit of inf",
    "machine: timeout=0": "time limit of 0",
    "machine: output=many": "'many' is not a size",
    "machine: irqchip=apic": "'irqchip=apic' is not a setting",
    "machine: start=some": "is not a setting",
    "machine: ring=1": "is not a setting",
    "machine: color=red": "there are irqchip=none|kernel|split",
    "needs: KVM_CAP_STEAL_TIMES": "no capability is called 'STEAL_TIMES'; did you mean STEAL_TIME",
    "needs: STEAL_TME": "did you mean STEAL_TIME",
    "needs: cpus>=many": "write cpus>=N",
    "needs: cpus=2": "write cpus>=N",
    "needs: memory>=4M": "write cpus>=N",
    "user: begin": "give two labels",
    "user: a b c": "give two labels",
    "ports: 0x10000": "0x10000 is no port",
    "ports: -1": "is no port",
    "ports: com1": "'com1' is not a number",
    "param: count": "write `name = value",
    "param: count = many": "'many' is not a number",
    "param: count = 0x10000000000000000": "does not fit in 64 bits",
    "param: 2nd = 1": "'2nd' cannot be a name",
    "result:": "write `name  u64",
    "result: a-b": "write `name  u64",
    "result: ü": "'ü' cannot be a name",
    "result: ticks u46 typo": "'u46' is no type",
    "result: ticks int": "'int' is no type",
    "proves: A,": "write names of rows, with a comma between two",
    "proves: A, B, A": "A stands there twice",
    "ends: happily": "'happily' is none of halt, shutdown, fault, timeout, output",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_line_is_named(line: str) -> None:
    with pytest.raises(PayloadError) as caught:
        parse(f"; summary: fine\n\n;   {line}\n", "dir/x.asm")
    assert WRONG[line] in str(caught.value)
    assert (caught.value.file, caught.value.line, caught.value.row) == ("dir/x.asm", 3, f";   {line}")
    assert str(caught.value).startswith("dir/x.asm:3: ")


@pytest.mark.parametrize("key", ["result: twice", "param: twice = 1"])
def test_declared_twice(key: str) -> None:
    with pytest.raises(PayloadError, match=r"x:2: .*twice is declared twice"):
        parse(f"; {key}\n; {key}", "x")


def test_as_many_results_as_the_page_holds() -> None:
    lines = [f"; result: r{i}" for i in range(MAX_RESULTS)]
    assert len(parse("\n".join(lines), "x").results) == MAX_RESULTS == 256
    with pytest.raises(PayloadError, match="holds 256 slots"):
        parse("\n".join([*lines, "; result: more"]), "x")


@given(st.text(alphabet="summaryneedschiportl: ;=>,0x129-\t\n.u\x00ü", max_size=60), st.sampled_from(["", *WRONG]))
def test_any_text_is_a_header_or_a_payload_error(text: str, line: str) -> None:
    with contextlib.suppress(PayloadError):
        parse(f"; {line.partition(':')[0]}: {text}", "x")


@pytest.mark.parametrize("name", shipped())
def test_shipped_headers(name: str) -> None:
    assert find(name).header.notes == ()
    header = find(name).header
    assert header.summary, f"{name} says nothing in `pyvmm list`"
    assert len(header.summary) <= 120
    assert all(each.what for each in header.params.values())
    if find(name).group == "basics":
        assert all(each.what for each in header.results.values())


@pytest.mark.parametrize("word", ["int", "int8", "uint", "u24", "i8", "f64", "boolean"])
def test_a_word_that_looks_like_a_type_is_named_in_full(word: str) -> None:
    with pytest.raises(PayloadError, match=f"result: '{word}' is no type"):
        parse(f"; result: seen {word} what must hold", "x.asm")


@pytest.mark.parametrize("text", ["interrupts  seen", "first of all", "bootstrap code", "u", ""])
def test_a_result_without_a_type_has_its_text(text: str) -> None:
    slot = parse(f";result:\tseen\t{text}", "x.asm").results["seen"]
    assert (slot.kind, slot.what) == ("u64", text)


@pytest.mark.parametrize("text", ["; machine: cpus=1\n; machine: memory=4M cpus=2\n", "; machine: ring=3 ring=0\n"])
def test_a_setting_of_the_machine_stands_once(text):
    with pytest.raises(PayloadError, match="stands there twice"):
        parse(text + "hlt\n", "own.asm")
    assert parse("; machine: cpus=2\n; machine: memory=4M\nhlt\n", "own.asm").cpus == 2
