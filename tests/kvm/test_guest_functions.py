# SPDX-License-Identifier: GPL-2.0-or-later
"""Property tests of guest code: the fixtures fresh_machine and guest_function, in a project of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vmm import Machine
from vmm.errors import GuestError, UsageError

pytestmark = pytest.mark.kvm
ROOT = Path(__file__).resolve().parents[2]

FAILING = """
from hypothesis import given, settings, strategies as st

GUEST = '''
less:   mov al, 'x'
        out 0xe9, al
        mov rax, rdi
        cmp rdi, 1000
        jb fine
        ud2
fine:   ret
hangs:  cmp rdi, 9
        jae hangs
        ret
wrong:  lea rax, [rdi + rdi]
        cmp rdi, 77
        jb fine
        inc rax
        ret
'''
few = settings(max_examples=100)
numbers = st.integers(0, 2**32)

@few
@given(numbers)
def test_crash(guest_function, n):
    assert guest_function("less")(n) == n

@few
@given(numbers)
def test_wrong(guest_function, n):
    assert guest_function("wrong")(n) == 2 * n

@settings(max_examples=10)
@given(st.sampled_from([1, 9]))
def test_hangs(guest_function, n):
    guest_function("hangs", timeout=0.05)(n)

def test_fresh(fresh_machine):
    assert fresh_machine.call("less", 5) == 5
    fresh_machine.memory.write_u64(0x40000, 7)

def test_fresh_again(fresh_machine):
    assert fresh_machine.memory.read_u64(0x40000) == 0
    assert fresh_machine.sink.data == b""
"""
IN_C = """
from hypothesis import given, strategies as st

GUEST = "guest.c"

@given(st.integers(-2**31, 2**31 - 1))
def test_c(guest_function, n):
    assert guest_function("twice")(n) == 2 * n % 2**64
"""
C = """#include "pyvmm.h"
__attribute__((used, retain)) long twice(long x) { return 2 * x; }
int main(void) { return 0; }
"""


# On a machine that has no time hypothesis says so of itself. Its check for fixtures of a function stays.
PROFILE = """
from hypothesis import HealthCheck, settings
settings.register_profile(
    "here", deadline=None, database=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("here")
"""


def run_pytest(folder: Path) -> str:
    (folder / "conftest.py").write_text(PROFILE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run([*command, "."], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_smallest_failing_example_is_shown(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILING, encoding="utf-8")
    text = run_pytest(tmp_path)
    assert "3 failed, 2 passed" in text, text
    crash, wrong, hangs = (text[text.index(f"_ {name} _") :] for name in ("test_crash", "test_wrong", "test_hangs"))
    assert "less(1000) did not return: the guest took an exception" in crash
    assert re.search(r"-+ guest: console -+\nx\n", crash)
    assert re.search(r"-+ guest: post-mortem -+\n.*\n +exception  #UD", crash)
    assert "rdi 00000000000003e8" in crash
    assert "assert 155 == (2 * 77)" in wrong
    assert "rdi 000000000000004d" in wrong
    assert "hangs(9) did not return: the guest did not end within its time limit" in hangs


def test_what_the_documentation_shows(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(encoding="utf-8"), re.S)
    (shown,) = (each for each in blocks if "guest_function" in each)
    (tmp_path / "test_it.py").write_text(shown, encoding="utf-8")
    assert "3 passed" in (text := run_pytest(tmp_path)), text


def test_a_function_in_c(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(IN_C, encoding="utf-8")
    (tmp_path / "guest.c").write_text(C, encoding="utf-8")
    assert "1 passed" in (text := run_pytest(tmp_path)), text


def test_without_a_guest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(fresh_machine): ...", encoding="utf-8")
    assert "this module has no GUEST" in run_pytest(tmp_path)


def test_each_call_begins_anew() -> None:
    with Machine() as machine:
        machine.load("""
            count:  inc qword ptr [0x40000]
                    mov rax, [0x40000]
                    ret
            fill:   mov byte ptr [rdi], 7
                    mov rax, rsi
                    sub rax, rdi
                    ret
            stops:  hlt
        """)
        with machine.function("count") as count:
            assert [count() for _ in range(5)] == [1] * 5
        assert machine.memory.read_u64(0x40000) == 0
        with machine.function("fill") as fill:
            assert fill(b"abc", b"d") == 32  # with room between the two
            assert fill.buffer(0, 3) == b"\7bc"
            with pytest.raises(UsageError, match="64 bits"):
                fill(1 << 64)
            with pytest.raises(UsageError, match="7 arguments"):
                fill(*range(7))
            with pytest.raises(UsageError, match="buffers of more than"):
                fill(bytes(1 << 20))
            assert fill(b"", 0) > 0
        with pytest.raises(UsageError, match="outside of its block"):
            fill(1)
        with machine.function("stops") as stops, pytest.raises(GuestError, match=r"stops\(1\) did not return"):
            stops(1)
        assert machine.call("count") == 1
