# SPDX-License-Identifier: GPL-2.0-or-later
"""Real lldb at the gdb server, by a batch of commands. Skips by name where there is no lldb."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmm.base.bits import MASK64
from vmm.debug.gdb.regions import region
from vmm.machine.machine import Machine

LLDB = shutil.which("lldb")
LIMIT = 100
WHERE = re.compile(r"target remote (\S+)")


@pytest.mark.skipif(LLDB is None, reason="lldb is not installed")
def test_break_step_into_ring3_registers_memory_and_the_way_to_the_end(tmp_path: Path) -> None:
    elf = tmp_path / "ring3.elf"
    command = [sys.executable, "-m", "vmm", "run", "ring3"]
    subprocess.run([*command, "--elf-out", str(elf)], check=True, capture_output=True, timeout=LIMIT)
    with subprocess.Popen(
        [*command, "--gdb", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stderr is not None
            found = WHERE.search(run.stderr.readline())
            assert found
            script = (
                "version", f"gdb-remote {found[1]}", "b report_privilege", "c", "bt", "register read rsi cr3", "si",
                "b back", "c", "register read cs", "si", "register write rbx 0x77", "register read rbx",
                "memory write -s 4 0xa0100 0x600d", "x/2wx 0xa0100", "memory region $rip",
                "memory region 0x7fff00000000",
                "p/x $rax + 1", "process plugin packet monitor where", "c",
            )  # fmt: skip
            each = [word for line in script for word in ("-o", line)]
            done = subprocess.run(
                [str(LLDB), "-b", "--no-lldbinit", str(elf), *each], capture_output=True, text=True, timeout=LIMIT,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            said = done.stdout + done.stderr
            assert "Assertion failed" not in said
            assert "frame #0: 0x000000000002" in said
            assert "stop reason = breakpoint 1.1" in said, said
            assert "rsi = 0x0000000000001234" in said
            assert "cr3 = 0x" in said
            assert "stop reason = breakpoint 2.1" in said
            assert re.search(r"cs = 0x0000\w*3\b", said), said
            assert "rbx = 0x0000000000000077" in said
            assert "0x000a0100: 0x0000600d" in said
            assert re.search(r"\[0x\w+-0x\w+\) rwx", said), said
            assert "---" in said
            assert "= 0x" in said
            assert "vCPU 0: 0x2" in said
            assert "exited with status = 0" in said
            run.wait(LIMIT)
            assert run.returncode == 0
        finally:
            run.kill()


def test_regions_follow_one_another_over_all_addresses() -> None:
    """As lldb looks for room: each region begins where the one before ended, and it comes to the end soon."""
    with Machine() as machine:
        program = machine.load("start: hlt")
        memory, sregs = machine.memory, machine.cpus[0].vcpu.get_sregs()
        begin = time.monotonic()
        at, seen = 0, []
        while at <= MASK64:
            start, size, rights = region(memory, sregs, at)
            assert start <= at < start + size
            seen.append((start, start + size, rights))
            at = start + size
            assert len(seen) < 1000
        assert at == MASK64 + 1
        mine = [each for each in seen if each[0] <= program.base < each[1]]
        assert mine
        assert "x" in mine[0][2]
        assert any(not rights and end - start >= 1 << 30 for start, end, rights in seen)
        assert time.monotonic() - begin < LIMIT
        sregs.cr0 &= ~(1 << 31)  # without paging
        assert region(memory, sregs, 1 << 32) == (1 << 32, MASK64 + 1 - (1 << 32), "")
