# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of ext_dest_id: the doorbell that sends what the guest wrote, translated or not, and who was interrupted.

The ids are chosen so that a lost upper part shows: 300 is 44 in its low eight bits, and there is a vCPU 44.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.abi import pv
from vmm.abi.apic import translate_ext_dest_id
from vmm.abi.ports import DELAY
from vmm.errors import KvmCallError
from vmm.machine.machine import Machine
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict

BIT = next(row for row in pv.FEATURES if row.name == "MSI_EXT_DEST_ID").mask
NEAR, FAR = 44, 300
IDS = (0, NEAR, FAR)
NOBODY = 0x22C  # 44 in its low eight bits, too
_ROW = struct.Struct("<16Q")


@dataclass(frozen=True)
class Message:
    """What the guest is to send, and the ids that are to take it."""

    destination: int
    translated: bool
    targets: tuple[int, ...]


MESSAGES = (
    Message(FAR, True, (FAR,)),
    Message(NEAR, True, (NEAR,)),
    Message(0, True, (0,)),
    Message(NOBODY, True, ()),
    Message(FAR, True, (FAR,)),
)
UNTRANSLATED = Message(FAR, False, ())


@dataclass(frozen=True)
class Came:
    """What came of one message: the address that the guest wrote, KVM_SIGNAL_MSI's result, the ids that took it."""

    destination: int
    translated: bool
    address: int
    result: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """`ids`: the x2APIC id that each vCPU read itself. `untranslated` went to KVM as the guest wrote it."""

    features: int
    ids: tuple[int, ...]
    came: tuple[Came, ...]
    untranslated: Came


def prove(lab: Lab) -> Finding:
    if lab.masked(lab.proves[0]):
        return Finding(Verdict.ABSENT, "masked")
    with lab.guest(cpus=IDS, expose=lab.proves) as guest:
        *came, untranslated = send(guest, (*MESSAGES, UNTRANSLATED))
        ids = guest.machine.memory.unpack(f"{len(IDS)}Q", guest.constant("APIC_IDS"))
        return judge(Evidence(guest["features"], ids, tuple(came), untranslated))


def send(guest: Guest, messages: tuple[Message, ...]) -> tuple[Came, ...]:
    """Let the guest send the messages; who took what is the difference of the counters from row to row."""
    memory, vm, table = guest.machine.memory, guest.machine.vm, guest.constant("TABLE")
    for row, message in enumerate(messages):
        memory.write(table + row * _ROW.size, _ROW.pack(message.destination + 1, message.translated, *[0] * 14))

    def doorbell(row: int) -> None:
        place = table + row * _ROW.size
        _, translated, address, data = memory.unpack("4Q", place)
        if translated:
            address = translate_ext_dest_id(address)
        try:
            memory.write_u64(place + 32, vm.signal_msi(address, data))
        except KvmCallError:  # KVM's way to say that nobody has this id
            memory.write_u64(place + 32, 0)

    guest.machine.on_port_write(DELAY, doorbell)
    run_to_pass(guest)
    came, before = [], (0,) * len(IDS)
    for row, message in enumerate(messages):
        words = _ROW.unpack(memory.read(table + row * _ROW.size, _ROW.size))
        after = words[8 : 8 + len(IDS)]
        taken = zip(IDS, after, before, strict=True)
        targets = tuple(apic_id for apic_id, new, old in taken for _ in range(new - old))
        came.append(Came(message.destination, message.translated, words[2], words[4], targets))
        before = after
    return tuple(came)


def judge(evidence: Evidence) -> Finding:
    """Translated, every message arrived at its destination and nowhere else."""
    numbers = {
        f"message {n} to {each.destination}": f"address {each.address:#x}, result {each.result}, taken by"
        f" {list(each.targets)}"
        for n, each in enumerate(evidence.came, 1)
    }
    raw = evidence.untranslated
    numbers[f"untranslated to {raw.destination}"] = f"result {raw.result}, taken by {list(raw.targets)}"
    numbers["APIC ids as read"] = ", ".join(map(str, evidence.ids))
    if not evidence.features & BIT:
        return Finding(Verdict.BROKEN, f"the guest does not see the bit: features {evidence.features:#x}", numbers)
    if evidence.ids != IDS:
        return Finding(Verdict.BROKEN, f"the vCPUs read {evidence.ids} as their APIC ids, not {IDS}", numbers)
    if len(evidence.came) != len(MESSAGES):
        return Finding(Verdict.BROKEN, f"{len(evidence.came)} of {len(MESSAGES)} messages were sent", numbers)
    for message, came in zip(MESSAGES, evidence.came, strict=True):
        if came.targets != message.targets:
            text = (
                f"the MSI to {message.destination} (address {came.address:#x}) was taken by {list(came.targets)},"
                f" and should be by {list(message.targets)}"
            )
            return Finding(Verdict.BROKEN, text, numbers)
        if (came.result > 0) != bool(message.targets):
            text = f"KVM_SIGNAL_MSI for {message.destination} returned {came.result}"
            return Finding(Verdict.BROKEN, text, numbers)
    address = evidence.came[0].address
    lost = f"untranslated at {list(raw.targets) or 'nobody'}"
    summary = f"MSI {address:#x} arrived at id {FAR} and only there; {lost}"
    return Finding(Verdict.WORKS, "", numbers, summary)


def refusals(lab: Lab) -> list[Refusal]:
    """Without the translation, or without 32-bit ids in KVM, the upper bits of the id are lost."""

    def short_ids(machine: Machine) -> None:
        machine.vm.enable_cap("X2APIC_API", 0)

    with lab.guest(cpus=IDS, expose=lab.proves) as guest:
        raw = send(guest, (UNTRANSLATED,))[0]
    with lab.guest(cpus=IDS, expose=lab.proves, before_vcpus=short_ids) as guest:
        short = send(guest, (Message(FAR, True, ()),))[0]
    with lab.guest(cpus=IDS, enforce=True) as guest:
        hidden = send(guest, (Message(FAR, True, ()),))[0]
    return [
        Refusal("address", f"MSI to {FAR} as the guest wrote it", "not there", _where(raw)),
        Refusal("argument", f"MSI to {FAR} without KVM_X2APIC_API_USE_32BIT_IDS", "not there", _where(short)),
        Refusal("masked", f"MSI to {FAR}, bit hidden and enforced: KVM gates nothing", "there", _where(hidden)),
    ]


def _where(came: Came) -> str:
    return "there" if FAR in came.targets else "not there"
