# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes as text for a person, and the text of a guest made safe to show."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState
from vmm.payload.outcome import EXIT_CODES, Outcome
from vmm.report.style import CODES, Style, printable
from vmm.report.text import REGISTER_ROWS, closing_line, outcome_lines, postmortem_lines

PLAIN, COLOURED = Style(), Style(True)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")

VCPU = VcpuState(
    index=0,
    apic_id=0,
    rip=0x20004,
    where="start+0x4",
    mode="64-bit ring 0",
    mp_state=None,
    registers={name: number for number, name in enumerate(name for row in REGISTER_ROWS for name in row)}
    | {"rip": 0x20004, "rflags": 0x246},
    control={"cr0": 0x80010033, "cr2": 0xDEAD, "cr3": 0xA000, "cr4": 0x620, "efer": 0xD01, "apic_base": 0},
    segments={"cs": "CS!", "ss": "SS!", "ds": "DS!", "tr": "TR!"},
    code=(CodeLine(0x20000, "90", "nop", False), CodeLine(0x20004, "0f 0b", "ud2", True)),
    walks=(("0x20004, paging 4-level", "  PML4E"),),
    last_exits=("OUT port 0xe9, 1 byte: 0x41 'A'",),
)
POSTMORTEM = PostMortem(
    "the guest took an exception", "Because.", FaultInfo(6, "#UD (invalid opcode)", 0, "", None), (VCPU,), ("a note",)
)


# Safe to show ------------------------------------------------------------------------------------------------------


def test_printable_keeps_text() -> None:
    text = "tabs\tand\nlines, ä€漢字🙂 and ~!\\x1b"
    assert printable(text) == text


@pytest.mark.parametrize(
    "char",
    [*map(chr, (*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0))), *"\u200e\u200f\u202a\u202e\u2066\u2069"],
    ids=lambda char: f"{ord(char):04x}",
)  # fmt: skip
def test_printable_shows_controls_and_does_not_send_them(char: str) -> None:
    assert printable(f"a{char}b") == f"a\\x{ord(char):02x}b"


@given(st.text())
def test_printable_lets_nothing_through_that_moves_the_cursor(text: str) -> None:
    shown = printable(text)
    assert not [char for char in shown if unicodedata.category(char) == "Cc" and char not in "\n\t"]
    assert not [char for char in shown if unicodedata.bidirectional(char) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI")]


def test_style() -> None:
    assert PLAIN("bad", "x") == "x"
    for kind in CODES:
        assert ESCAPE.sub("", COLOURED(kind, "x")) == "x"
        assert COLOURED(kind, "x").endswith("\x1b[0m")


# The outcome -------------------------------------------------------------------------------------------------------


def test_closing_line() -> None:
    outcome = Outcome("hello", "pass", exits={"Halt": 1, "PortOut": 2}, wall_ms=0.44)
    assert closing_line(outcome, PLAIN) == "pass  hello  3 exits (1 Halt, 2 PortOut), 0.4 ms"
    assert closing_line(replace(outcome, exits={"Halt": 1}), PLAIN) == "pass  hello  1 exit (1 Halt), 0.4 ms"
    assert closing_line(Outcome("x", "skip", "no such thing here"), PLAIN) == "skip  x: no such thing here"


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_colour_is_an_addition_only(kind: str) -> None:
    outcome = Outcome("x", kind, "why", results={"a": 1}, failures=("f",), postmortem=POSTMORTEM, unclaimed=1)
    coloured = outcome_lines(outcome, COLOURED)
    assert [ESCAPE.sub("", line) for line in coloured] == outcome_lines(outcome, PLAIN)
    assert coloured != outcome_lines(outcome, PLAIN)


def test_results() -> None:
    outcome = Outcome("x", "pass", results={"short": 9, "longer": 10, "none": None, "minus": -1, "big": 2**64 - 1})
    assert outcome_lines(outcome, PLAIN)[:-1] == [
        "  short   9",
        "  longer  0xa (10)",
        "  none    not stored",
        "  minus   -1",
        "  big     0xffffffffffffffff (18446744073709551615)",
    ]


def test_evidence_failures_and_unclaimed() -> None:
    outcome = Outcome("x", "fail", evidence={"seen": {1: 2}}, failures=("a is 1, and should be 2",), unclaimed=1)
    assert outcome_lines(outcome, PLAIN) == [
        "  seen  {1: 2}",
        "  failed: a is 1, and should be 2",
        "  1 access that no device claims: a read gives all ones (see --strict)",
        "fail  x",
    ]
    assert "  2 accesses that no device claims" in outcome_lines(replace(outcome, unclaimed=2), PLAIN)[2]


def test_nothing_that_a_guest_or_a_file_name_says_reaches_the_terminal_raw() -> None:
    evil = "\x1b[2J\u202e"
    vcpu = replace(VCPU, last_exits=(evil,), code=(CodeLine(0, "", evil, True),), where=evil)
    post = PostMortem(evil, "", FaultInfo(6, "#UD", 0, evil, None), (vcpu, vcpu), (evil,))
    outcome = Outcome(evil, "fail", evil, b"", {}, (evil,), {evil: evil}, {"Halt": 1}, postmortem=post)
    text = "\n".join(outcome_lines(outcome, PLAIN))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("\\x1b[2J") == 12


# The post-mortem ---------------------------------------------------------------------------------------------------


def test_postmortem_says_everything() -> None:
    text = "\n".join(postmortem_lines(POSTMORTEM, PLAIN))
    for part in (
        "post-mortem: the guest took an exception",
        "exception  #UD (invalid opcode), error code 0x0",
        "vCPU 0 (APIC id 0, 64-bit ring 0) at 0x20004 start+0x4",
        "->  0x20004  0f 0b                           ud2",
        "     0x20000  90                              nop",
        "r15 000000000000000f",
        "rip 0000000000020004  rflags 0x246 (FIXED|PF|ZF|IF)",
        "cr2 0xdead",
        "CS!",
        "TR!",
        "paging 4-level",
        "last exits, oldest first:\n    OUT port 0xe9",
        "why  Because.",
        "note  a note",
    ):
        assert part in text
    assert "DS!" not in text


def test_the_other_vcpus_get_one_line_each() -> None:
    others = [replace(VCPU, index=n, apic_id=2 * n, mp_state=3) for n in (1, 2)]
    lines = postmortem_lines(replace(POSTMORTEM, vcpus=(VCPU, *others)), PLAIN)
    assert [line for line in lines if "vCPU" in line][1:] == [
        f"  vCPU {n} (APIC id {2 * n}, 64-bit ring 0, halted) at 0x20004 start+0x4" for n in (1, 2)
    ]
    assert "\n".join(lines).count("rax ") == 1


def test_a_postmortem_without_code_walks_or_exits() -> None:
    bare = replace(VCPU, code=(), walks=(), last_exits=(), where="")
    lines = postmortem_lines(PostMortem("why", "", None, (bare,)), PLAIN)
    assert lines[1] == "  vCPU 0 (APIC id 0, 64-bit ring 0) at 0x20004"
    assert "exits" not in "\n".join(lines)
    assert postmortem_lines(PostMortem("why", "", None, ()), PLAIN) == ["post-mortem: why"]
