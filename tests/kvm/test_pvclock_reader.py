# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's reader of the paravirtual clock (inc/pvclock.inc), on pages that the host writes instead of KVM."""

from __future__ import annotations

import threading

import pytest

from vmm.abi.structs import PVCLOCK_VCPU_TIME_INFO as PAGE
from vmm.abi.structs import pvclock_nanoseconds
from vmm.machine.memory.layout import REGIONS
from vmm.payload.catalog import find
from vmm.payload.guest import Guest

DATA = REGIONS["data"].base
LONG_AGO = (1 << 64) - (1 << 62)  # 2^62 ticks before TSC 0: ticks x factor need every one of the 96 bits
ONE_TO_ONE = {"tsc_to_system_mul": 1 << 31, "tsc_shift": 1}  # a tick is a nanosecond

ONCE = """
; result: ns u64
; result: tsc u64
; result: version u32
; machine: timeout=5
%include "results.inc"
start:
    mov   edi, DATA_BASE
    call  pvclock_read
    RESULT ns
    mov   rax, r8
    RESULT tsc
    mov   eax, r9d
    RESULT version
    PASS
%include "pvclock.inc"
"""

# vCPU 1 rewrites the page as KVM does, vCPU 0 reads. Both states of the page mean ns = TSC; any mixture does not.
RACE = """
; result: wrong u64
; result: rewritten u64
; machine: cpus=2 start=all timeout=20
%include "results.inc"
DONE = DATA_BASE + 0x100
ROUNDS = DATA_BASE + 0x140
start:
    test  edi, edi
    jnz   writer
    xor   r12d, r12d
    xor   ebp, ebp
read:
    mov   edi, DATA_BASE
    call  pvclock_read
    cmp   rax, r8
    je    right
    inc   r12d
right:
    inc   ebp
    cmp   ebp, 2000
    jb    read
    cmp   qword ptr [ROUNDS], 200         ; the writer had its turn, however busy the host is
    jb    read
    mov   byte ptr [DONE], 1
    mov   rax, r12
    RESULT wrong
    mov   rax, qword ptr [ROUNDS]
    RESULT rewritten
    PASS
writer:
    inc   dword ptr [DATA_BASE + PVCLOCK_version]
    sfence
    xor   qword ptr [DATA_BASE + PVCLOCK_tsc_timestamp], 0x100000
    pause
    xor   qword ptr [DATA_BASE + PVCLOCK_system_time], 0x100000
    sfence
    inc   dword ptr [DATA_BASE + PVCLOCK_version]
    inc   qword ptr [ROUNDS]
    mov   ecx, 40
rest:
    dec   ecx
    jnz   rest
    cmp   byte ptr [DONE], 0
    je    writer
    hlt
%include "pvclock.inc"
"""


@pytest.fixture
def reader(tmp_path):
    def make(text: str) -> Guest:
        path = tmp_path / "reader.asm"
        path.write_text(text)
        return Guest(find(str(path)))

    return make


@pytest.mark.parametrize(
    "page",
    [
        {"tsc_timestamp": LONG_AGO, "system_time": 0, "tsc_to_system_mul": 3_308_717_899, "tsc_shift": -1},
        {"tsc_timestamp": LONG_AGO, "system_time": 7, "tsc_to_system_mul": 0xFFFF_FFFF, "tsc_shift": 0},
        {"tsc_timestamp": 1 << 20, "system_time": (1 << 63) + 5, "tsc_to_system_mul": 0x8000_0001, "tsc_shift": 3},
        {"tsc_timestamp": 1, "system_time": 0, "tsc_to_system_mul": 0xFFFF_FFFF, "tsc_shift": 20},
        {"tsc_timestamp": LONG_AGO, "system_time": 0, "tsc_to_system_mul": 0xFFFF_FFFF, "tsc_shift": -31},
        {"tsc_timestamp": LONG_AGO, "system_time": 0, "tsc_to_system_mul": 0xFFFF_FFFF, "tsc_shift": 31},
        {"tsc_timestamp": 0, "system_time": 9, "tsc_to_system_mul": 0, "tsc_shift": 0},
    ],
)
def test_the_product_has_96_bits_and_shifts_go_both_ways(reader, page):
    with reader(ONCE) as guest:
        guest.machine.memory.write(DATA, PAGE.pack(version=2, flags=0, **page))
        guest.run()
        assert guest["ns"] == pvclock_nanoseconds(page, guest["tsc"]) & (1 << 64) - 1
        assert guest["version"] == 2


def test_an_odd_version_is_waited_for(reader):
    with reader(ONCE) as guest:
        memory = guest.machine.memory
        memory.write(DATA, PAGE.pack(version=3, system_time=111))  # half of an update

        def complete() -> None:
            memory.write(DATA + 4, PAGE.pack(version=0, system_time=222)[4:])
            memory.write_u32(DATA, 4)

        timer = threading.Timer(0.03, complete)
        timer.start()
        guest.run()
        timer.join()
        assert (guest["ns"], guest["version"]) == (222, 4)


def test_no_reading_mixes_two_versions(reader):
    with reader(RACE) as guest:
        guest.machine.memory.write(DATA, PAGE.pack(version=2, **ONE_TO_ONE))
        guest.run()
        assert guest["wrong"] == 0
        assert guest["rewritten"] >= 200
