# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of the field that name no bit and no number: what they mean, in a sentence, for `pyvmm explain`.

Sources: Linux, Documentation/virt/kvm/api.rst and x86/mmu.rst; Intel SDM volume 3, chapters 10 and 24.
"""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """`name` as it is written, `meaning` without a full stop, `also` what it is short for, or another spelling."""

    name: str
    meaning: str
    also: tuple[str, ...] = ()


TERMS = (
    Term("memslot", "a piece of the VMM's memory that KVM shows to the guest at a guest-physical address; an access "
         "outside of every memslot leaves the guest with KVM_EXIT_MMIO", ("memory slot",)),
    Term("GPA", "guest-physical address: what the guest's page tables lead to, and where memslots and devices lie",
         ("guest physical address",)),
    Term("GVA", "guest-virtual address: what the guest's instructions use, before its page tables",
         ("guest virtual address", "linear address")),
    Term("HVA", "host-virtual address: where the bytes of a memslot lie in the VMM's process",
         ("host virtual address",)),
    Term("vCPU", "a virtual CPU: a file descriptor of KVM whose KVM_RUN executes the guest in the thread that calls it",
         ("virtual cpu",)),
    Term("VMM", "virtual machine monitor: the program that makes the VM, plays its devices and answers its exits; here "
         "pyvmm", ("virtual machine monitor",)),
    Term("vmexit", "the CPU leaves the guest, for KVM to look; what KVM cannot finish alone becomes an exit of KVM_RUN",
         ("VM exit", "exit to userspace")),
    Term("GSI", "global system interrupt: the number of an interrupt line, which routing leads to a pin or an MSI",
         ("global system interrupt",)),
    Term("MSI", "message-signalled interrupt: a write to an address 0xfeeXXXXX, which a LAPIC takes for one",
         ("message signalled interrupt",)),
    Term("IPI", "inter-processor interrupt: one CPU interrupts another by its LAPIC's interrupt command register",
         ("inter processor interrupt",)),
    Term("EPT", "extended page tables, of VMX: the CPU's second step, from guest-physical to host-physical; on SVM NPT",
         ("NPT", "nested paging", "extended page tables")),
    Term("userfaultfd", "a file descriptor by which Linux tells a program of faults in its memory, so that it brings "
         "the page"),
    Term("PLE", "pause-loop exiting: the CPU leaves the guest when it spins with PAUSE for long",
         ("pause loop exiting",)),
)  # fmt: skip
