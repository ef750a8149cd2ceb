# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 9: KVM's leaves were found by their signature, at either of two places."""

from __future__ import annotations

from collections.abc import Mapping

from vmm.abi.cpuid_entry import CpuidEntry
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.proof.lab import supported

FIRST, STEP = 0x40000000, 0x100
SECOND, LAST = FIRST + STEP, FIRST + 3 * STEP
OTHER = b"Microsoft Hv"  # whose leaves a VMM may offer first, so that Windows finds them


# A register of each is another's than KVM's: who compares one or two takes a wrong one for it.
ALIKE = (b"KVMKVMKVX\0\0\0", b"KVMKXMKVM\0\0\0", b"XVMKVMKVM\0\0\0")


def options(run: Mapping[str, int]) -> Mapping[str, object]:
    """The leaves moved to where the run wants them."""

    def move(model: CpuidModel) -> None:
        leaf = model.kvm_features_leaf()
        features = model.get(leaf) if leaf is not None else None
        if run["base"] == FIRST or features is None:
            return
        model.remove_kvm_leaves()
        for number, name in enumerate(ALIKE if run["base"] == LAST else (OTHER,)):
            ebx, ecx, edx = (int.from_bytes(name[at : at + 4], "little") for at in (0, 4, 8))
            model.put(CpuidEntry(FIRST + number * STEP, eax=FIRST + number * STEP, ebx=ebx, ecx=ecx, edx=edx))
        model.set_kvm_signature(run["base"])
        model.put(CpuidEntry(run["base"] + 1, eax=features.eax, edx=features.edx))

    return {"cpuid": move}


def check(seen: Seen) -> str:
    base, wanted, got = seen.guest["base"], seen.params["base"], seen.guest["features"]
    if base != wanted:
        shown = f" (this time: {OTHER.decode()!r} at {FIRST:#x} first)" if wanted == SECOND else ""
        alike = ": not all three registers are KVM's there" if wanted == LAST and base < LAST else ""
        raise Wrong(
            f"your guest took leaf {base:#x} for KVM's, and the VMM has put KVM's leaves at {wanted:#x}{shown}. "
            f"Leaf {base:#x} says {_signature(seen, base)!r}{alike}"
        )
    features = seen.guest.machine.cpuid.register(wanted + 1, 0, "eax")
    if got != features:
        raise Wrong(f"your guest stored features = {got:#x}, and leaf {wanted + 1:#x} has {features:#x} in EAX")
    return f"KVM's signature at {base:#x}, its features {got:#x}; with other leaves in front it was found as well"


def _signature(seen: Seen, leaf: int) -> str:
    entry = seen.guest.machine.cpuid.get(leaf)
    if entry is None:
        return ""
    words = (entry.ebx, entry.ecx, entry.edx)
    return b"".join(word.to_bytes(4, "little") for word in words).decode("ascii", "backslashreplace")


def why(seen: Seen) -> str:
    if seen.stop.why is Why.TIME_LIMIT:
        leaf = seen.reg("rsi")
        again = f"ESI is {leaf:#x}: it asks for the same leaf again and again"
        return again if FIRST <= leaf <= LAST else f"ESI is {leaf:#x}, and no leaf of a hypervisor is there"
    if seen.stop.why is not Why.EXIT_PORT:
        return ""
    entry = seen.guest.machine.cpuid.get(seen.params["base"])
    if entry is None:
        return ""
    return (
        f"It has looked at all leaves, and taken none. Leaf {seen.params['base']:#x} has EBX "
        f"{entry.ebx:#x}, "
        f"ECX {entry.ecx:#x}, EDX {entry.edx:#x}"
    )


def cannot() -> str:
    return "" if supported().kvm_features_leaf() is not None else "this KVM offers no CPUID leaves of its own"


CHECKS = Checks(check, why, runs=({"base": FIRST}, {"base": SECOND}, {"base": LAST}), options=options, cannot=cannot)
