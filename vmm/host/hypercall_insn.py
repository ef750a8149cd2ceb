# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hypercall instruction reaches KVM from ring 0? Measured: a guest executes vmcall, then vmmcall, with a limit.

KVM_X86_QUIRK_FIX_HYPERCALL_INSN is switched off first: with it KVM rewrites the other vendor's instruction in guest
memory, which hides the answer, and on a software-backed host makes KVM_RUN go on for ever. A hypercall counts as
delivered when RAX became 0, the answer of KVM_HC_VAPIC_POLL_IRQ, and KVM's statistic `hypercalls` rose.
Source: Documentation/virt/kvm/x86/hypercalls.rst; api.rst 7.31 (KVM_CAP_DISABLE_QUIRKS2).
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import ports, pv, quirks
from vmm.abi.x86 import HYPERCALL_INSTRUCTIONS
from vmm.errors import HostError
from vmm.kvm.system import Kvm
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot
from vmm.machine.x86.descriptors import FAULT_FRAME_SIZE, FaultFrame

STATISTIC = "hypercalls"
TIME_LIMIT = 0.5  # of one run, in seconds, where the same guest without its hypercall ran in less than 1 / SLOWER of it
SLOWER = 20  # a guest that takes so many times as long hangs
PATIENCE = 20.0  # seconds for the guest without a hypercall
NOPS = b"\x90" * 3  # as many bytes as either instruction
QUIRK = "FIX_HYPERCALL_INSN"
CALL = "VAPIC_POLL_IRQ"  # does nothing, and is answered with 0 by every KVM
UD = 6
FAULTS = {UD: "#UD", 13: "#GP"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run showed. `counted` is the rise of the statistic (None without it), `vector` that of a fault,
    `limit` the seconds it was given.
    """

    why: Why
    text: str
    rax: int
    vector: int | None
    counted: int | None
    rewritten: bool
    limit: float = TIME_LIMIT


@dataclass(frozen=True, slots=True)
class Attempt:
    """One instruction. `outcome`: delivered, rewritten, #UD (another fault likewise), elsewhere, hangs, failed.

    rewritten: KVM put the other instruction in its place, and that one was delivered. elsewhere: somebody answered, but
    not this KVM: a hypervisor below it, for one.
    """

    outcome: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Hypercall:
    """`transport`: vmcall, vmmcall, or none. `quirk_off`: whether KVM could be kept from rewriting instructions."""

    transport: str
    quirk_off: bool
    attempts: dict[str, Attempt]


def measure(kvm: Kvm) -> Hypercall:
    """Try both instructions, each in a VM of its own; takes TIME_LIMIT, or longer on a slow host, for each that hangs.

    Raises:
        HostError: no VM can be made.
    """
    quirk = quirks.quirk(QUIRK)
    quirk_off = bool(kvm.check_extension("DISABLE_QUIRKS2") & quirk.value)
    attempts = {
        name: classify(_try(kvm, code, quirk.value * quirk_off)) for name, code in HYPERCALL_INSTRUCTIONS.items()
    }
    return Hypercall(transport(attempts), quirk_off, attempts)


def transport(attempts: dict[str, Attempt]) -> str:
    """The instruction that reaches KVM as it stands, or `none`."""
    return next((name for name, attempt in attempts.items() if attempt.outcome == "delivered"), "none")


def classify(seen: Seen) -> Attempt:
    """The outcome, from what was seen alone."""
    counted = "no statistic to confirm it" if seen.counted is None else f"{STATISTIC} rose by {seen.counted}"
    rewritten = "; KVM rewrote the instruction" if seen.rewritten else ""
    answer = f"RAX {pv.return_words(seen.rax)}, {counted}{rewritten}"
    if seen.why is Why.EXIT_PORT:
        if seen.rax or seen.counted == 0:
            return Attempt("elsewhere", f"something other than this KVM answered: {answer}")
        return Attempt("rewritten" if seen.rewritten else "delivered", answer)
    if seen.why is Why.GUEST_FAULT and seen.vector is not None:
        fault = FAULTS.get(seen.vector, f"vector {seen.vector}")
        return Attempt(fault, f"the guest took {fault}, {counted}{rewritten}")
    if seen.why is Why.TIME_LIMIT:
        return Attempt("hangs", f"KVM_RUN did not come back within {seen.limit:.1f} s{rewritten}")
    return Attempt("failed", f"{seen.text}{rewritten}")


def _try(kvm: Kvm, instruction: bytes, quirks_off: int) -> Seen:
    call = pv.hypercall(CALL)
    code = layout.REGIONS["code"].base
    load = b"\xb8" + call.nr.to_bytes(4, "little")  # mov eax, nr: RAX is not 0 unless somebody answers

    def prepare(machine: Machine) -> None:
        if quirks_off:
            machine.vm.enable_cap("DISABLE_QUIRKS2", quirks_off)

    with Machine(kvm=kvm, before_vcpus=prepare) as machine:
        vcpu = machine.cpus[0].vcpu
        boot.write_tables(machine.memory, 1)
        leave = bytes((0xE6, ports.EXIT))  # out EXIT, al
        machine.memory.write(code, load + NOPS + leave)
        machine.start(0, code)
        limit = max(TIME_LIMIT, SLOWER * machine.run(PATIENCE).wall)
        vcpu.complete()
        machine.memory.write(code, load + instruction + leave)
        machine.start(0, code)
        before = _counted(machine)
        try:
            stop = machine.run(limit).stop
        except HostError as error:  # KVM_RUN itself was refused: an outcome of the instruction, not of doctor
            return Seen(Why.INTERNAL_ERROR, str(error), 0, None, None, False)
        after = _counted(machine)
        vcpu.complete()
        regs = vcpu.get_regs()
        vector = None
        if stop.why is Why.GUEST_FAULT:
            vector = FaultFrame.parse(machine.memory.read(regs.rsp, FAULT_FRAME_SIZE)).vector
        return Seen(
            stop.why,
            stop.text,
            regs.rax,
            vector,
            None if before is None or after is None else after - before,
            machine.memory.read(code + len(load), len(instruction)) != instruction,
            limit,
        )


def _counted(machine: Machine) -> int | None:
    if not machine.kvm.check_extension("BINARY_STATS_FD"):
        return None
    with machine.cpus[0].vcpu.get_stats() as stats:
        return stats.get(STATISTIC)
