# SPDX-License-Identifier: GPL-2.0-or-later
"""The callbacks by which a script answers its guest: ports, MMIO, MSRs, hypercalls. It knows buses; it knows no VM."""

from __future__ import annotations

from vmm.base.integer import integer
from vmm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.kvm.lean import HypercallHook, MsrRead, MsrWrite
    from vmm.kvm.vm import Vm
    from vmm.kvm.words import Word
    from vmm.machine.bus.platform import Platform
    from vmm.machine.run.lean import LeanLane


class Hooks:
    """Part of a machine. A callback runs on the thread of the vCPU that caused it; what it raises ends the run.

    A port or address has one owner: a second claim is a UsageError. A second callback for an MSR or a hypercall takes
    the place of the first; so does a word for an MSR, and a callback that of a word.
    """

    def __init__(self, platform: Platform, lane: LeanLane, told: Vm | None) -> None:
        """`told` is the VM whose KVM has to hand MSRs and hypercalls over; None in a replay, which has none."""
        self.hook(platform, lane, told)

    def hook(self, platform: Platform, lane: LeanLane, told: Vm | None) -> None:
        """Serve the guest of these from now on, as `__init__`."""
        self.platform, self.lane, self._told = platform, lane, told

    def on_port_write(self, port: int, f: Callable[[int], object], size: int = 1) -> None:
        """Call f(value) when the guest writes one of `size` ports from `port`.

        Raises:
            UsageError: it could never be called: what is taken, what KVM answers itself, a size that no register has
                (1, 2, 4, 8 and further powers of two for a span), what is no number or no callable.
        """
        _check_size(size)
        self.platform.ports.on_write(port, f, size)

    def on_port_read(self, port: int, f: Callable[[], int], size: int = 1) -> None:
        """Answer port reads with f(), a number of the access' size. Errors as `on_port_write`."""
        _check_size(size)
        self.platform.ports.on_read(port, f, size)

    def on_mmio_write(self, address: int, f: Callable[[int], object], size: int = 8) -> None:
        """Call f(value) when the guest writes at one of `size` guest-physical addresses that no memslot holds.

        Raises:
            UsageError: as `on_port_write`; where memory lies, and where the boot page tables do not reach.
        """
        _check_size(size)
        self.platform.mmio.on_write(address, f, size)

    def on_mmio_read(self, address: int, f: Callable[[], int], size: int = 8) -> None:
        """Answer MMIO reads with f(), a number of the access' size. Errors as `on_mmio_write`."""
        _check_size(size)
        self.platform.mmio.on_read(address, f, size)

    def on_msr_read(self, index: int, f: MsrRead) -> None:
        """Answer RDMSR of this MSR with f(); None refuses it, and the guest takes #GP. KVM's own MSR is hidden by it.

        Raises:
            MissingCapability: this KVM cannot hand MSRs over.
            UsageError: it is an x2APIC register, which KVM never hands over, or there are too many scattered ones.
        """
        _check_msr(index, f)
        self._pass_msr(index, read=True)
        self.platform.msr_reads[index] = f

    def on_msr_write(self, index: int, f: MsrWrite) -> None:
        """Call f(value) at WRMSR of this MSR; False refuses it (#GP). KVM does not see the write. Errors as
        `on_msr_read`.
        """
        _check_msr(index, f)
        self._pass_msr(index, read=False)
        self.platform.msr_writes[index] = f

    def on_hypercall(self, nr: int, f: HypercallHook) -> None:
        """Answer hypercall `nr` with f(a0, a1, ...), what RAX shall hold.

        KVM passes on only the calls that KVM_CAP_EXIT_HYPERCALL lists (MAP_GPA_RANGE, 12), and answers the rest itself.

        Raises:
            MissingCapability: this KVM does not pass this call on.
            UsageError: `nr` is no number, or f cannot be called.
        """
        if integer(nr) is None or not callable(f):
            raise UsageError(f"answering hypercall {nr!r} with {f!r}: give a number and something that can be called")
        self._pass_hypercall(nr)
        self.platform.hypercalls[nr] = f

    def port_word(self, port: int, *, timed: bool = False) -> Word:
        """Make a port a plain word: reads give it, writes set it, both are counted, and Python is not asked. `timed`:
        it also keeps when it was written last (`written_at`), by a clock that is read right at the exit. Errors as
        `on_port_write`.
        """
        return self.lane.port_word(port, timed=timed)

    def mmio_word(self, address: int) -> Word:
        """Make the 8 bytes at an MMIO address a plain word; otherwise as `port_word`. Errors as
        `on_mmio_write`.
        """
        return self.lane.mmio_word(address)

    def msr_word(self, index: int) -> Word:
        """Make an MSR a plain word of 64 bits; otherwise as `port_word`. Errors as `on_msr_read`."""

        _check_msr(index, callable)

        def hand_over() -> None:
            self._pass_msr(index, read=True)
            self._pass_msr(index, read=False)

        return self.lane.msr_word(index, hand_over)

    def _pass_msr(self, index: int, *, read: bool) -> None:
        """Have KVM hand accesses of this MSR over."""
        if self._told is not None:
            from vmm.machine.run.handed_over import pass_msr  # loaded by the first who asks for something

            pass_msr(self._told, index, read=read)

    def _pass_hypercall(self, nr: int) -> None:
        """Have KVM hand this hypercall over."""
        if self._told is not None:
            from vmm.machine.run.handed_over import pass_hypercall

            pass_hypercall(self._told, nr)


def _check_size(size: int) -> None:
    number = integer(size)
    if number is None or number < 1 or number & (number - 1):
        raise UsageError(
            f"size={size!r}: a callback is for a register of 1, 2, 4 or 8 bytes, or a span of a power of two",
            hint="platform.ports.claim or platform.mmio.claim with a device, which is told offset and size",
        )


def _check_msr(index: int, f: object) -> None:
    number = integer(index)
    if number is None or not 0 <= number < 1 << 32:
        raise UsageError(f"MSR {index!r}: an MSR has a number of 32 bits")
    if not callable(f):
        raise UsageError(f"a callback for MSR {number:#x}: {f!r} cannot be called")
