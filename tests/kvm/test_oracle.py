# SPDX-License-Identifier: GPL-2.0-or-later
"""Ten thousand random programs on KVM and on Unicorn: the same state, or a difference with a name; and it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.oracle import compare, programs, sides
from tools.oracle.__main__ import main
from tools.oracle.explain import TABLE, Difference, explained, undefined
from tools.oracle.programs import AF, CF, NAMES, OF, STATUS, Insn

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("ring", [0, 3])
def test_five_thousand_programs(ring: int):
    done = compare.Comparison(ring)
    done.run(2026, range(5000))
    assert done.findings == []
    assert done.ran == 5000 == done.same + sum(done.known.values())
    assert done.same > 3500
    assert done.known["undefined flags"] < 500


def test_an_instruction_that_is_wrong_on_one_side_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    real = sides.Unicorn.run

    def wrong(self: sides.Unicorn, program: programs.Program) -> sides.State:
        state = real(self, program)
        if any(each.kind == "bswap" for each in program.insns):
            return state._replace(regs=(state.regs[0] ^ 1 << 40, *state.regs[1:]))
        return state

    monkeypatch.setattr(sides.Unicorn, "run", wrong)
    done = compare.Comparison(3)
    done.run(1, range(150))
    assert done.findings
    assert all(": bswap " in text for _, text in done.findings), "each is told by the instruction at which it begins"


def test_a_program_is_told_by_its_number():
    assert programs.program(1, 5) == programs.program(1, 5)
    assert programs.program(1, 5) != programs.program(2, 5)
    made = programs.program(1, 5)
    assert made.first(1).code == made.insns[0].code
    kinds = {each.kind for number in range(3000) for each in programs.program(1, number).insns}
    assert kinds >= {*programs.UNDEFINED} - {"bt"}


def difference(code: str, kind: str, flags: int, **regs: int) -> Difference:
    made = programs.program(1, 1)._replace(insns=(Insn(kind, bytes.fromhex(code)),))
    made = made._replace(regs=made.regs | regs)
    state = sides.State("", tuple(made.regs[name] for name in NAMES), 0, made.data)
    return Difference(3, made.insns[0], None, made, state, state._replace(flags=flags))


@pytest.mark.parametrize(
    ("code", "kind", "regs", "open_"),
    [
        ("48d1e0", "shl", {}, AF),  # by 1: OF is defined
        ("48c1e004", "shl", {}, AF | OF),
        ("40c0e009", "shl", {}, AF | OF | CF),  # a byte by 9
        ("40d3e0", "shl", {"rcx": 0x20}, 0),  # by 0 of five bits
        ("48d3e0", "shl", {"rcx": 0x20}, AF | OF),  # 64 bits by 32
        ("48d1c0", "rol", {}, 0),
        ("48d3c0", "rol", {"rcx": 2}, OF),
        ("66400fa4d811", "shld", {}, STATUS),  # 16 bits by 17
        ("480fa4d811", "shld", {}, AF | OF),
        ("480fafc3", "imul", {}, STATUS & ~(OF | CF)),
        ("4801d8", "add", {}, 0),
    ],
)
def test_which_flags_are_open(code: str, kind: str, regs: dict[str, int], open_: int):
    found = difference(code, kind, 0, **regs)
    assert undefined(found) == open_
    for bit in (1 << n for n in range(12) if STATUS >> n & 1):
        one = found._replace(unicorn=found.unicorn._replace(flags=bit))
        if not (kind == "shld" and open_ == STATUS):
            assert explained(one) == ("undefined flags" if open_ & bit else "")


def test_the_tool_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = str(tmp_path / "state.json")
    assert main(["60", "--seed", "3", "--state", state]) == 0
    first = capsys.readouterr().out
    assert first.startswith("120 programs in ")
    assert "ring 3: 60 programs" in first
    assert main(["90", "--seed", "3", "--state", state]) == 0
    again = capsys.readouterr().out
    assert again.startswith("60 programs in ")
    assert "ring 0: 90 programs" in again
    with pytest.raises(SystemExit, match="is of seed 3"):
        main(["90", "--seed", "4", "--state", state])


def test_the_page_has_every_name():
    page = (Path(__file__).parents[2] / "docs/oracle.md").read_text(encoding="utf-8")
    for row in TABLE:
        assert f"| {row.name} | {row.whose} |" in page
