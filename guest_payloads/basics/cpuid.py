# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of cpuid: what the guest read, leaf by leaf, against what KVM_GET_CPUID2 says that it shows.

Some bits are not constant: KVM fills them in while the guest runs (OSXSAVE and OSPKE follow CR4, the XSAVE sizes of
leaf 0xd follow XCR0). KVM_GET_CPUID2 after the run has them as the guest saw them.
"""

from __future__ import annotations

import struct

from vmm.abi.cpuid import CpuidEntry
from vmm.payload.guest import Guest

END = 0xFFFFFFFF


def expected(guest: Guest) -> list[CpuidEntry]:
    return guest.machine.cpus[0].vcpu.get_cpuid2()


def setup(guest: Guest) -> None:
    entries = expected(guest)
    pairs = [number for entry in entries for number in (entry.function, entry.index)]
    guest.machine.memory.write(guest.constant("QUERIES"), struct.pack(f"<{len(pairs) + 1}I", *pairs, END))


def check(guest: Guest) -> None:
    entries = expected(guest)
    guest.equal("the number of leaves", guest["leaves"], len(entries))
    for number, entry in enumerate(entries):
        got = guest.machine.memory.unpack("IIII", guest.constant("ANSWERS") + 16 * number)
        want = (entry.eax, entry.ebx, entry.ecx, entry.edx)
        guest.expect(
            got == want,
            f"leaf {entry.function:#x} index {entry.index}: the guest read "
            f"{' '.join(f'{value:08x}' for value in got)}, the VMM set {' '.join(f'{value:08x}' for value in want)}",
        )
    guest.evidence["leaves compared"] = len(entries)
