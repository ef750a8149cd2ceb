# SPDX-License-Identifier: GPL-2.0-or-later
"""Entering a CPU mode by registers alone: real, protected of 16 and 32 bits, 32-bit paging, PAE, long mode.

It knows the end state of each mode (Intel SDM vol. 3A, 2.2 and 9.8.5); tables are the caller's. boot.long_mode is the
way for the guest map's own tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmm.abi.x86 import CR0, CR4, EFER, RFLAGS
from vmm.errors import UsageError
from vmm.kvm import state
from vmm.kvm.vcpu import Vcpu
from vmm.machine.x86 import boot

_NONE: Mapping[str, int] = {}
CODE, DATA = 0xB, 0x3  # descriptor types, accessed
LIMIT16, LIMIT32 = 0xFFFF, 0xFFFF_FFFF


@dataclass(frozen=True)
class Mode:
    """What makes a mode: its control bits, and how wide its code is."""

    bits: int
    cr0: int
    cr4: int = 0
    efer: int = 0

    @property
    def paging(self) -> bool:
        """Does the CPU translate addresses in it: CR0.PG (Intel SDM vol. 3A, 2.5)?"""
        return bool(self.cr0 & CR0.PG)


_PROTECTED = int(CR0.PE | CR0.ET)
_PAGED = int(CR0.PE | CR0.ET | CR0.PG)
KERNEL64 = Mode(64, int(boot.LONG_MODE_CR0), int(boot.LONG_MODE_CR4), int(boot.LONG_MODE_EFER))
"""Long mode with SSE, as a compiler's code wants it."""
MODES = {
    "real": Mode(16, int(CR0.ET)),
    "protected16": Mode(16, _PROTECTED),
    "protected32": Mode(32, _PROTECTED),
    "paging32": Mode(32, _PAGED, int(CR4.PSE)),
    "pae": Mode(32, _PAGED, int(CR4.PAE)),
    "long": Mode(64, _PAGED, int(CR4.PAE), int(EFER.LME | EFER.LMA)),
}


def enter(
    vcpu: Vcpu,
    mode: str | Mode,
    entry: int,
    *,
    code: int = 0,
    data: int = 0,
    base: int = 0,
    cr3: int = 0,
    gdt: state.Table | None = None,
    idt: state.Table | None = None,
    data_base: int = 0,
    task: tuple[int, int, int] | None = None,
    registers: Mapping[str, int] = _NONE,
) -> None:
    """Make the vCPU start at `entry` in one of MODES, interrupts off and every general register zero but `registers`.

    `code` and `data` are the selectors that CS and the others show; of 16-bit code `base` is where CS begins, and
    `entry` counts from there; `data_base` is where the others begin. In real mode a selector is its base / 16. `cr3` is
    the root of the caller's tables, `task` what TR holds: selector, base, limit.

    Raises:
        UsageError: no such mode, or a base that real mode cannot have.
    """
    if isinstance(mode, str) and mode not in MODES:
        raise UsageError(f"CPU mode {mode!r}: there are {', '.join(MODES)}")
    row = MODES[mode] if isinstance(mode, str) else mode
    real = row is MODES["real"]
    for each in (base, data_base) if real else ():
        if each % 16 or not 0 <= each <= 0xFFFF0:
            raise UsageError(f"real mode: a segment cannot begin at {each:#x}")
    vcpu.abandon()
    sregs = vcpu.get_sregs()
    code = base >> 4 if real else code
    sregs.cs = _segment(row, CODE, code, base if row.bits == 16 else 0)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = _segment(
        row, DATA, data_base >> 4 if real else data, data_base
    )
    selector, where, limit = task or (0, 0, LIMIT16)  # VM entry wants a busy TSS, used or not
    sregs.tr = state.Segment(base=where, limit=limit, selector=selector, type=CODE, present=1)
    sregs.ldt = state.Segment(unusable=1)
    sregs.gdt = gdt or state.Table()
    sregs.idt = idt or state.Table(0, 0x3FF if real else 0)
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = row.cr0, cr3, row.cr4, row.efer
    vcpu.set_sregs(sregs)
    vcpu.start_regs({"rip": entry, "rflags": RFLAGS.FIXED, **registers})


def _segment(mode: Mode, kind: int, selector: int, base: int) -> state.Segment:
    wide = mode.bits > 16
    long_code = mode.bits == 64 and kind == CODE
    return state.Segment(
        base=base, limit=LIMIT32 if wide else LIMIT16, selector=selector, type=kind, present=1, s=1,
        db=int(wide and not long_code), l=int(long_code), g=int(wide),
    )  # fmt: skip
