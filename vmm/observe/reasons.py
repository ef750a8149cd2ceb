# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a run can end as it did: one or two sentences for the person who reads a post-mortem. Text, and when it applies.

Measured on hosts as docs/hosts.md describes them; a sentence says "can be", because one run rarely proves a cause.
"""

from __future__ import annotations

from vmm.abi.entry import entry_failure
from vmm.abi.exits import MP_STATES
from vmm.abi.rows import value_of
from vmm.abi.x86 import HYPERCALL_INSTRUCTIONS, RFLAGS
from vmm.kvm.exits import FailEntry, InternalError
from vmm.machine.ends import Stop, Why

HALTED, UNINITIALIZED = (value_of(MP_STATES, f"KVM_MP_STATE_{name}") for name in ("HALTED", "UNINITIALIZED"))


def hint(stop: Stop, instruction: bytes, *, mp_state: int | None, rflags: int) -> str:
    """A sentence on the cause, or nothing. `instruction` are the bytes at RIP, as many as could be read."""
    if isinstance(stop.exit, InternalError) and stop.exit.suberror == 1:
        return (
            "KVM met an instruction that its emulator does not know. Where ring 0 is emulated (a software-backed host: "
            "see `pyvmm doctor`), only some instructions work there; popcnt, xsave, most of SSE and int n do not. "
            "Run that part in ring 3, which is native. On other hosts: the address is not backed by RAM, or the "
            "bytes are no code."
        )
    if stop.why is Why.SHUTDOWN:
        return (
            "A fault came while the CPU was delivering a fault, twice. Usual causes: an IDT or GDT that is not where "
            "IDTR or GDTR says, a handler on a page that is not mapped, RSP or RSP0 at no memory."
        )
    if stop.why is Why.TIME_LIMIT:
        return _time_limit(instruction, mp_state, rflags)
    if isinstance(stop.exit, FailEntry):
        return _entry(entry_failure(stop.exit.reason).guest_state)
    if stop.why is Why.UNCLAIMED:
        return "Neither RAM nor a device is there, and --strict ends a run at that. RIP is behind the access by now."
    if stop.why is Why.OUTPUT_LIMIT:
        return "If so much output is meant, raise the limit (`--output-limit`)."
    return ""


def _entry(guest_state: bool) -> str:
    if guest_state:
        text = "The register state may be one that no CPU allows: look at the segments, CR0, CR4 and EFER below."
    else:
        text = (
            "This is the host's fault and not the guest's: the CPU does not take what KVM has set up around the guest. "
            "Where the CPU is a virtual one, the hypervisor below may lack what it offers; another version of it or of "
            "the kernel may do, or the module without that feature (enable_apicv=0 is the usual one)."
        )
    return f"{text} `dmesg` has what KVM says of it; all that it had set up, with dump_invalid_vmcs=1 or _vmcb=1."


def _time_limit(instruction: bytes, mp_state: int | None, rflags: int) -> str:
    if instruction[:3] in HYPERCALL_INSTRUCTIONS.values():
        return (
            "RIP is at a hypercall instruction. On this host it may never reach KVM: with KVM_X86_QUIRK_FIX_HYPERCALL_"
            "INSN on, KVM patches it and executes it again for ever. `pyvmm doctor` measures that; "
            "include hypercall.inc instead of the bare instruction."
        )
    if mp_state == UNINITIALIZED:
        return "This vCPU still waits for INIT and SIPI."
    # RIP is behind the HLT while the vCPU sleeps in it.
    if mp_state == HALTED and not rflags & RFLAGS.IF:
        return "The vCPU is in HLT with interrupts off (IF=0): only an NMI, INIT or a PV kick can wake it."
    if mp_state == HALTED:
        return "The vCPU is in HLT and no interrupt came."
    return ""
