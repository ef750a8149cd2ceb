# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of msr: the values, here and through KVM_GET_MSRS."""

from __future__ import annotations

from vmm.abi import msrs
from vmm.abi.x86 import EFER
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest


def number(name: str) -> int:
    return msrs.msr(name).number


def check(guest: Guest) -> None:
    data, lstar = REGIONS["data"].base, guest.constant("LSTAR_VALUE")
    guest.equal("LSTAR", guest["lstar"], lstar)
    guest.equal("GS_BASE", guest["gs_base"], data)
    guest.equal("a load through GS", guest["through_gs"], 0x5A5AA5A5)
    wanted = int(EFER.LME | EFER.LMA | EFER.SCE | EFER.NX)
    guest.equal("EFER", guest["efer"], wanted)
    guest.expect(guest["tsc_moves"] > 0, "the time-stamp counter did not grow between two RDMSRs")
    guest.equal("#GP for an MSR that does not exist", guest["gp_taken"], 1)
    guest.equal("its error code", guest["gp_error"], 0)
    seen = guest.machine.cpus[0].vcpu.get_msrs([number("MSR_LSTAR"), number("MSR_EFER")])
    guest.equal("LSTAR through KVM_GET_MSRS", seen.get(number("MSR_LSTAR")), lstar)
    guest.equal("EFER through KVM_GET_MSRS", seen.get(number("MSR_EFER")), wanted)
