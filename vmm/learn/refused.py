# SPDX-License-Identifier: GPL-2.0-or-later
"""What an instruction had in hand when the CPU refused it with #GP: the words that IRETQ was to take, the MSR of a
WRMSR. It knows the instruction by the statement at the fault, and no lesson.
"""

from __future__ import annotations

from vmm.abi.msrs import find, msr_name
from vmm.abi.x86 import KERNEL_CS, USER_CS, VECTOR_OF
from vmm.learn.seen import Seen

FRAME = ("RIP", "CS", "RFLAGS", "RSP", "SS")
"""What the CPU pushes for an exception, from the address in RSP up: Intel SDM volume 3A, 6.14.2."""
NARROW = ("iretd", "iret")
NARROW_SAID = "Without the Q it takes words of 4 bytes or less, and words of 8 lie there: IRETQ"
RING = 3


def refused(seen: Seen) -> str:
    """A sentence on the instruction at which the guest took #GP; "" for any other."""
    fault = seen.postmortem.fault
    if fault is None or fault.vector != VECTOR_OF["GP"]:
        return ""
    match seen.statement(seen.rip):
        case "iretq":
            return f"IRETQ was to take {frame(seen, seen.reg('rsp'))} from the stack{_code_segment(seen)}"
        case name if name in NARROW:
            return NARROW_SAID
        case ("wrmsr" | "rdmsr") as access:
            return _msr(seen, access)
        case _:
            return ""


def frame(seen: Seen, rsp: int) -> str:
    """The five words from this address up, by name."""
    return ", ".join(f"{name} {seen.u64(rsp + 8 * at):#x}" for at, name in enumerate(FRAME))


def _code_segment(seen: Seen) -> str:
    """Where CS is none of the two selectors there are, RSP is not where RIP lies, or somebody wrote to the words."""
    cs = seen.u64(seen.reg("rsp") + 8)
    if cs in (KERNEL_CS, USER_CS):
        return ""
    return (
        f", and {cs:#x} is no code segment: ring 0 has {KERNEL_CS:#x}, ring 3 {USER_CS:#x}. RSP has to be where RIP "
        "lies, and CS as it was pushed"
    )


def _msr(seen: Seen, name: str) -> str:
    number = seen.reg("rcx") & 0xFFFF_FFFF
    called = f"{number:#x}, {msr_name(number)}" if find(number) else f"{number:#x}"
    if name == "rdmsr":
        return f"RDMSR was to read the MSR in ECX, {called}: there is none, or it can only be written"
    value = (seen.reg("rdx") & 0xFFFF_FFFF) << 32 | seen.reg("rax") & 0xFFFF_FFFF
    return f"WRMSR was to write {value:#x} to the MSR in ECX, {called}: there is none, or it refuses this value"
