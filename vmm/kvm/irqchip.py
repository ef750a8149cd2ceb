# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of the in-kernel interrupt controllers and timer, and machine checks: ioctls that few callers need.

Functions over a `Vm` or `Vcpu`, so that those stay short. Documentation/virt/kvm/api.rst 4.26, 4.71, 4.104, 4.105.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmm.abi import irq
from vmm.kvm._kvm import ffi
from vmm.kvm.buffers import from_bytes, to_bytes
from vmm.kvm.handle import new
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm

CHIP_OFFSET = 8  # struct kvm_irqchip: chip_id, padding, then the chip's own structure
IOAPIC_REDIRTBL_OFFSET = 24  # struct kvm_ioapic_state: base_address, ioregsel, id, irr, pad, redirtbl


@dataclass(frozen=True, slots=True)
class Pic:
    """struct kvm_pic_state, the registers that matter: requests, mask, in service, base vector, level inputs."""

    irr: int
    imr: int
    isr: int
    irq_base: int
    elcr: int


def _chip(vm: Vm, chip: int) -> bytes:
    raw = new("struct kvm_irqchip *", [chip])
    vm.call("KVM_GET_IRQCHIP", raw, f"reading interrupt controller {chip}")
    return to_bytes(raw)[CHIP_OFFSET:]


def get_pic(vm: Vm, *, slave: bool = False) -> Pic:
    """KVM_GET_IRQCHIP of a PIC."""
    state = _chip(vm, irq.KVM_IRQCHIP_PIC_SLAVE if slave else irq.KVM_IRQCHIP_PIC_MASTER)
    # last_irr, irr, imr, isr, priority_add, irq_base, ..., init4, elcr
    return Pic(irr=state[1], imr=state[2], isr=state[3], irq_base=state[5], elcr=state[14])


def initialise_pic(vm: Vm, *, slave: bool = False, base: int, mask: int) -> None:
    """KVM_SET_IRQCHIP of a PIC: `base` is the vector of its first input, and inputs with their bit in `mask` are shut.
    It has had its four initialization words, the last for an 8086.
    """
    chip = irq.KVM_IRQCHIP_PIC_SLAVE if slave else irq.KVM_IRQCHIP_PIC_MASTER
    state = bytearray(_chip(vm, chip))
    state[2], state[5], state[13] = mask, base, 1  # imr, irq_base, init4, see get_pic
    raw = from_bytes("struct kvm_irqchip", bytes(CHIP_OFFSET) + bytes(state))
    raw.chip_id = chip
    vm.call("KVM_SET_IRQCHIP", raw, f"initialising interrupt controller {chip}")


def get_ioapic(vm: Vm) -> tuple[int, ...]:
    """KVM_GET_IRQCHIP of the IOAPIC: the 64-bit values of its 24 redirection entries, by pin."""
    state = _chip(vm, irq.KVM_IRQCHIP_IOAPIC)
    table = state[IOAPIC_REDIRTBL_OFFSET : IOAPIC_REDIRTBL_OFFSET + 8 * irq.IOAPIC_PINS]
    return tuple(int.from_bytes(table[at : at + 8], "little") for at in range(0, len(table), 8))


CHIPS = (irq.KVM_IRQCHIP_PIC_MASTER, irq.KVM_IRQCHIP_PIC_SLAVE, irq.KVM_IRQCHIP_IOAPIC)


def get_chips(vm: Vm) -> tuple[bytes, ...]:
    """KVM_GET_IRQCHIP of both PICs and the IOAPIC: the bytes of a struct kvm_irqchip each, for `set_chips`."""
    return tuple(bytes(CHIP_OFFSET) + _chip(vm, chip) for chip in CHIPS)


def set_chips(vm: Vm, chips: tuple[bytes, ...]) -> None:
    """KVM_SET_IRQCHIP of `chips`, what `get_chips` gave."""
    for chip, state in zip(CHIPS, chips, strict=True):
        raw = from_bytes("struct kvm_irqchip", state)
        raw.chip_id = chip
        vm.call("KVM_SET_IRQCHIP", raw, f"setting interrupt controller {chip}")


def get_pit(vm: Vm) -> bytes:
    """KVM_GET_PIT2: the bytes of a struct kvm_pit_state2."""
    raw = ffi.new("struct kvm_pit_state2 *")
    vm.call("KVM_GET_PIT2", raw, "reading the PIT")
    return to_bytes(raw)


def set_pit(vm: Vm, state: bytes) -> None:
    """KVM_SET_PIT2 of `state`, what `get_pit` gave; its channels count from their beginning."""
    vm.call("KVM_SET_PIT2", from_bytes("struct kvm_pit_state2", state), "setting the PIT")


def start_pit(vm: Vm, *, mode: int, count: int = 0x10000) -> None:
    """KVM_SET_PIT2: let channel 0 count down from `count`, in ticks of 1.193182 MHz; `mode` is the 8254's, 0 to 5."""
    raw = from_bytes("struct kvm_pit_state2", get_pit(vm))
    first = raw.channels[0]
    first.count, first.mode, first.rw_mode, first.bcd, first.gate = count, mode, irq.PIT_RW_BOTH, 0, 1
    vm.call("KVM_SET_PIT2", raw, "starting the PIT")


def get_pit_counts(vm: Vm) -> tuple[int, int, int]:
    """KVM_GET_PIT2: the values that the three channels were loaded with, in ticks of 1.193182 MHz."""
    raw = ffi.new("struct kvm_pit_state2 *")
    vm.call("KVM_GET_PIT2", raw, "reading the PIT")
    return raw.channels[0].count, raw.channels[1].count, raw.channels[2].count


def setup_mce(vcpu: Vcpu, capability: int) -> None:
    """KVM_X86_SETUP_MCE: `capability` is MCG_CAP of this vCPU, the number of banks and MCG_*_P bits; before it runs."""
    vcpu.call("KVM_X86_SETUP_MCE", new("__u64 *", capability), f"giving {vcpu.what} machine-check banks")


def set_mce(vcpu: Vcpu, bank: int, status: int, *, address: int = 0, misc: int = 0, mcg_status: int = 0) -> None:
    """KVM_X86_SET_MCE: report an error in a `bank`, with 64 bits each for its MCi_STATUS, MCi_ADDR and MCi_MISC and for
    `mcg_status`, MCG_STATUS; `misc` is MCi_MISC. MCI_STATUS_UC in `status` raises #MC; without it nothing is raised.

    An uncorrected one while MCG_STATUS_MCIP is set, or with CR4.MCE clear, is a triple fault (Intel SDM 3B, 16.3.1.2).
    """
    raw = new("struct kvm_x86_mce *", {"status": status, "addr": address, "misc": misc, "mcg_status": mcg_status})
    raw.bank = bank
    vcpu.call("KVM_X86_SET_MCE", raw, f"reporting a machine check in bank {bank} of {vcpu.what}")
