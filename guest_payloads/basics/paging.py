# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of paging: error codes and addresses by the manual (Intel SDM vol. 3A, 4.7)."""

from __future__ import annotations

from vmm.abi.x86 import PF
from vmm.payload.guest import Guest


def check(guest: Guest) -> None:
    page = guest.constant("PAGE")
    guest.equal("error code of a write to an absent page", guest["absent_error"], int(PF.WRITE))
    guest.equal("CR2 of a write to an absent page", guest["absent_cr2"], page + 8)
    guest.equal("error code of a write to a read-only page", guest["readonly_error"], int(PF.PROT | PF.WRITE))
    guest.equal("CR2 of a write to a read-only page", guest["readonly_cr2"], page + 8)
    guest.equal("faults after a call into the executable page", guest["while_exec"], 2)
    guest.equal("error code of a fetch from a no-execute page", guest["noexec_error"], int(PF.PROT | PF.INSTR))
    guest.equal("CR2 of a fetch from a no-execute page", guest["noexec_cr2"], page + 0x10)
    guest.equal("the page before the remap", guest["before"], 0x1111)
    guest.equal("the page after the remap", guest["after"], 0x2222)
    guest.equal("page faults", guest["faults"], 3)
