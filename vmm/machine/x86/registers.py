# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of one vCPU by name: `regs.rax`, `regs.cr3 = x`. It knows names and widths; it knows no exit.

Names are the processor's: rax to r15 and their parts (eax, ax, al, ah, r8d, r8w, r8b), rip, rflags, cr0, cr2, cr3, cr4,
cr8, efer, apic_base, the selectors cs to ldt, and fs_base, gs_base.
"""

from __future__ import annotations

from vmm.base.integer import integer
from vmm.base.light import NamedTuple, Protocol, cache
from vmm.base.names import unknown
from vmm.errors import KvmCallError, UsageError
from vmm.kvm import kick
from vmm.kvm.state import CONTROLS, SEGMENTS, Regs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.kvm.vcpu import Vcpu


class Driven(Protocol):
    """A vCPU, and the thread that is in a run with it, if one is."""

    vcpu: Vcpu
    thread_id: int | None


class Part(NamedTuple):
    """Bits `shift` to `shift + width - 1` of a register; writing 32 bits clears the upper half, as the CPU does."""

    name: str
    shift: int
    width: int


@cache
def parts() -> dict[str, Part]:
    """Every name of a general register or of a part of one."""
    found: dict[str, Part] = {name: Part(name, 0, 64) for name in Regs.__match_args__}
    for name in Regs.__match_args__:
        if name[1:].isdigit():
            names = (f"{name}d", f"{name}w", f"{name}b")
        elif name in ("rip", "rflags"):
            names = (f"e{name[1:]}", name[1:], "")
        else:
            stem = name[1:]
            names = (f"e{stem}", stem, f"{stem[0]}l" if stem.endswith("x") else f"{stem}l")
        found |= {each: Part(name, 0, width) for each, width in zip(names, (32, 16, 8), strict=True) if each}
        if name[2:] == "x":
            found[f"{name[1]}h"] = Part(name, 8, 8)
    return found


class Registers:
    """Reads and writes are ioctls of their own. Between two runs they finish the exit that the guest is inside of
    first, so that what is read is true and what is written stays.

    Inside a callback they are the registers at the exit. They can be set there too, but where the callback's value is
    what the guest waits for: that would be overwritten.

    Raises:
        UsageError: no such register, a value that does not fit, or the vCPU is running.
    """

    __slots__ = ("_cpu",)
    _cpu: Driven

    def __init__(self, cpu: Driven) -> None:
        object.__setattr__(self, "_cpu", cpu)

    def __dir__(self) -> list[str]:
        return names()

    def __getattr__(self, name: str) -> int:
        _known(name)
        self._still("read")
        vcpu = self._cpu.vcpu
        if not self._in_hook:
            vcpu.complete()
        if part := parts().get(name):
            return int(getattr(vcpu.get_regs(), part.name)) >> part.shift & (1 << part.width) - 1
        sregs = vcpu.get_sregs()
        if name in CONTROLS:
            return int(getattr(sregs, name))
        segment = getattr(sregs, name.removesuffix("_base"))
        return int(segment.base if name.endswith("_base") else segment.selector)

    def __setattr__(self, name: str, value: int) -> None:
        _known(name)
        self._still("set")
        number = integer(value)
        if number is None:
            raise UsageError(f"{name} = {value!r}: give an integer")
        value = number
        vcpu = self._cpu.vcpu
        if self._in_hook and vcpu.awaits_reply:
            raise UsageError(f"setting {name}: the guest waits for this callback's value; set registers after the run")
        vcpu.complete()
        if part := parts().get(name):
            if not -(1 << part.width - 1) <= value < 1 << part.width:
                raise UsageError(f"{name} = {value:#x}: it has {part.width} bits")
            regs = vcpu.get_regs()
            mask = (1 << part.width) - 1 << part.shift
            kept = 0 if part.width >= 32 else getattr(regs, part.name) & ~mask
            setattr(regs, part.name, kept | value << part.shift & mask)
            vcpu.set_regs(regs)
            return
        sregs = vcpu.get_sregs()
        if name in CONTROLS:
            setattr(sregs, name, value)
        else:
            field = "base" if name.endswith("_base") else "selector"
            setattr(getattr(sregs, name.removesuffix("_base")), field, value)
        try:
            vcpu.set_sregs(sregs)
        except KvmCallError as error:
            raise KvmCallError(error.call, error.errno, f"setting {name} of {vcpu.what} to {value:#x}") from error

    @property
    def _in_hook(self) -> bool:
        return self._cpu.thread_id is not None

    def _still(self, doing: str) -> None:
        thread = self._cpu.thread_id
        if thread is not None and thread != kick.thread_id():
            raise UsageError(f"{self._cpu.vcpu.what} is running; its registers can be {doing} by its own callbacks")


@cache
def names() -> list[str]:
    """Every name, sorted."""
    return sorted([*parts(), *CONTROLS, *SEGMENTS, "fs_base", "gs_base"])


def _known(name: str) -> None:
    if name not in names():
        error = unknown("register", name, names())
        # hasattr() and copy ask for dunder names, and know what to do with this error only
        raise AttributeError(error) if name.startswith("_") else UsageError(error)
