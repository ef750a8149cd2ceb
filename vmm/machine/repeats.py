# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a machine by which it goes back, and begins again: snapshots, forks, rounds, functions that are called
often. What each does is in a module of its own, which only who asks for it loads.
"""

from __future__ import annotations

from vmm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any, TypeVar

    from vmm.machine.run.function import Function, Repeatable
    from vmm.machine.run.rounds import Rounds
    from vmm.machine.snapshot import Snapshot

    M = TypeVar("M", bound=Repeatable)


class Repeats:
    """Part of a machine."""

    def snapshot(self: Repeatable) -> Snapshot:
        """The state as it is now, to go back to in microseconds by `reset`. From then on KVM logs which pages are
        written. The memory that was touched is copied. Limits: vmm.machine.snapshot.Snapshot.

        Raises:
            UsageError: the machine is running, or inside of an instruction that would end the run; its dirty log is
                read otherwise.
            HostError: the machine is closed; KVM refuses a call, or there is no memory for the copy.
        """
        self.between_runs("taking a snapshot")
        from vmm.machine import snapshot  # only who takes one pays for it

        return snapshot.take(self, self.started)

    def reset(self: Repeatable, to: Snapshot) -> int:
        """Go back to a snapshot of this machine, as often as one likes: the number of pages (4 KiB) that were put back.
        Everything that the guest can change is as it was; what the host alone has (the console's text, callbacks, a
        disk's file) stays.

        Raises:
            UsageError: it is of another machine (`fork` is for that), or of other memslots or devices; it is closed.
            HostError: the machine is closed; KVM refuses a call.
        """
        _check_own(self, to)
        pages = to.put_back()
        self.take_over(self.program, to.started)
        return pages

    def rounds(self: Repeatable, snapshot: Snapshot, timeout: float | None = None) -> Rounds:
        """Short runs that each begin at a snapshot of this machine, tens of thousands of them a second:

            with m.rounds(m.snapshot()) as rounds:
                for value in values:
                    stop = rounds.run(rdi=value)
                    print(stop.why, rounds.regs.rax)

        What happens is what `reset` and then `run` do, for one vCPU that nobody watches. Inside of the block the
        machine runs in rounds alone. `timeout` in seconds is that of a round (default: `self.timeout`).

        Raises:
            UsageError: the snapshot is of another machine, or the limit is none; others as Rounds.__enter__.
            HostError: the machine is closed.
        """
        self.between_runs("rounds from a snapshot")
        _check_own(self, snapshot)
        if not self.unwatched:
            raise UsageError("rounds of a machine that is watched or debugged", hint="reset() and run() do it there")
        from vmm.machine.run.rounds import Rounds

        return Rounds(self, snapshot, self.limit(timeout))

    def fork(self: M, snapshot: Snapshot, prepare: Callable[[M], object] | None = None) -> M:
        """A new machine of the same shape that stands where the snapshot was taken. Its memory is that of the snapshot,
        mapped privately: a page is copied when it is written. `prepare(machine)` adds devices and callbacks that this
        machine has, before their state is put there; this one may run meanwhile.

        Raises:
            UsageError: the shape differs: devices that `prepare` did not add.
            HostError: KVM or the host refuses something.
        """
        make: Callable[..., M] = type(self)
        twin = make(**self.shape)
        try:
            if prepare is not None:
                prepare(twin)
            snapshot.put_into(twin)
            twin.take_over(self.program, snapshot.started)
        except BaseException:
            twin.close()
            raise
        return twin

    def save_snapshot(
        self: Repeatable, snapshot: Snapshot, path: str | Path, about: dict[str, Any] | None = None
    ) -> int:
        """Write a snapshot of this machine to a file, from which `load_snapshot` starts another, also in another
        process. The number of bytes; pages of zeros are none. `about` is for whoever reads it: numbers, text, lists and
        dicts, which vmm.machine.snapshot_file.about gives again.

        Raises:
            UsageError: it is of another machine, or closed; a device has a state that no file can hold; there is
                read-only memory.
            HostError: the file cannot be written.
        """
        _check_own(self, snapshot)
        from vmm.machine import snapshot_file

        return snapshot_file.save(snapshot, self.shape, path, about)

    @classmethod
    def load_snapshot(
        cls: type[M], path: str | Path, prepare: Callable[[M], object] | None = None, **options: Any
    ) -> M:
        """A machine that stands where a snapshot was taken that `save_snapshot` wrote to a file, in this process or in
        another. `prepare(machine)` adds devices and callbacks that it had; `options` are those of Machine that no file
        holds: live, console_limit, cpuid, before_vcpus, kvm, fast.

        Raises:
            UsageError: the file is damaged, no snapshot, or of another version; the state is of another host (CPUID,
                capabilities, MSRs that KVM lists) or shape. One line says which.
            HostError: the file cannot be read; KVM or the host refuses something.
        """
        from vmm.machine import snapshot_file

        make: Callable[..., M] = cls
        return snapshot_file.load(make, path, prepare, options)

    def function(self: Repeatable, name: str | int, timeout: float | None = None) -> Function:
        """A function of the loaded program, by name or address, to be called very often, each time in the machine as it
        is now:

            with m.function("add") as add:
                assert add(40, 2) == 42

        `timeout` in seconds is that of a call (default: `self.timeout`). Errors as `call`, at the beginning of the
        block, and as `rounds`.
        """
        from vmm.machine.run.function import Function

        return Function(self, name, timeout)


def _check_own(machine: Repeatable, snapshot: Snapshot) -> None:
    if snapshot.machine is not machine:
        raise UsageError("this snapshot is of another machine", hint="Machine.fork makes a new one of it")
