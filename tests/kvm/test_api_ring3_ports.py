# SPDX-License-Identifier: GPL-2.0-or-later
"""Port I/O of ring 3 on this host, and the kernel by which other lessons leave ring 3."""

import pytest

from vmm.abi.ports import EXIT_VALUE_FAIL, EXIT_VALUE_PASS
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86 import boot
from vmm.payload.catalog import find
from vmm.payload.guest import Guest
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def test_works():
    (row,) = prove(find("ring3_ports"))
    assert row.verdict is Verdict.WORKS, row.finding.reason


@pytest.mark.parametrize(("allowed", "name"), [((0x80, 0x81, 0x82), "denied"), ((), "allowed")])
def test_another_bitmap_shows(monkeypatch, allowed, name):
    write = boot.write_tables

    def spoiled(memory, cpus, *, user=(), allowed_ports=()):
        write(memory, cpus, user=user, allowed_ports=allowed)

    monkeypatch.setattr(boot, "write_tables", spoiled)
    (row,) = prove(find("ring3_ports"))
    assert row.verdict is Verdict.BROKEN
    assert row.finding.reason.startswith(f"{name} is ")


PROGRAM = """; summary: what a kernel does for ring 3
; user:    user_begin user_end
%include "results.inc"
%include "ring3.inc"
start:
    START_RING3 program
.p2align 12
user_begin:
program:
    mov   eax, 0x41
    mov   edx, 0x1234
    KERNEL_OUT DEBUG_CONSOLE
    mov   word ptr [USER_BASE], dx
    mov   dx, cs
    mov   word ptr [USER_BASE + 2], dx
"""
END = """
.p2align 12
user_end:
%include "kernel.inc"
%include "idt.inc"
"""


@pytest.mark.parametrize(
    ("last", "code"),
    [("USER_PASS", EXIT_VALUE_PASS), (".byte 0x0f, 0xff", EXIT_VALUE_FAIL)],
    ids=["pass", "another #UD"],
)
@pytest.mark.every_host
def test_the_kernel_does_out_for_ring_3_and_nothing_else(tmp_path, last, code):
    path = tmp_path / "own.asm"
    path.write_text(f"{PROGRAM}    {last}\n{END}")
    with Guest(find(str(path))) as guest:
        result = guest.run()
        assert result.stop.code == code
        assert result.console == b"A"
        edx, cs = guest.machine.memory.unpack("HH", REGIONS["user"].base)
        assert (edx, cs & 3) == (0x1234, 3)
