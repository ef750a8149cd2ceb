# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person may ask of a run, over what the payload's header says. Values only, checked."""

from __future__ import annotations

from vmm.base.record import Record, field
from vmm.errors import UsageError
from vmm.machine.run.limits import MAX_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

Watch: TypeAlias = "Callable[[Any], object]"  # of a Guest, which is above this module
Runs: TypeAlias = "Callable[[Any, float | None], Any]"  # of a Guest and a timeout; a Result


class BootOptions(Record):
    """What a person says of an image: its command line, files beside it, and what its bytes do not tell. `modules` are
    `FILE` or `FILE,ARGS`; `base` and `entry` are text, a number or (`entry`) a symbol.
    """

    args: str = ""
    initrd: str | None = None
    modules: tuple[str, ...] = ()
    base: str | None = None
    entry: str | None = None
    mode: str | None = None
    protocol: str | None = None

    @property
    def named(self) -> str:
        """The options of the command that were given, for a message; empty if none was."""
        given = {"--kernel-args": self.args, "--initrd": self.initrd, "--module": self.modules, "--base": self.base,
                 "--entry": self.entry, "--mode": self.mode, "--protocol": self.protocol}  # fmt: skip
        return ", ".join(name for name, value in given.items() if value or (value == "" and name != "--kernel-args"))


class Options(Record):
    """None means: as the header says, else the default. `mask` and `expose` are CPUID feature names.

    `strict` lets nothing pass: an access that nobody claims ends a run, and a proof fails on a deviation. `watch` is
    called with every guest that is made, before it runs; `before`, with nothing, when its
    program is known and nothing of its machine is made. `apart`: an image is read in a child process first, with
    limits. `board` is a name of Machine(board=...). `nets` are words of vmm.machine.virtio.links.words: the first is
    the link of the header's `virtio_net`, if that names none; each other one is a card more. `disks` are `FILE` or
    `FILE,ro`, a virtio disk each; `rng` is a virtio source of random bytes, `virtio_console` a virtio console, which
    then has the standard input that COM1 would have. `snapshot` is a file of Machine.save_snapshot: the machine is what
    it has, and not made anew. `runs(guest, timeout)` is called in place of each Machine.run of it, seconds.
    """

    cpus: int | None = None
    memory: str | None = None
    timeout: float | None = None
    mask: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    params: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    output_limit: int | None = None
    exit_limit: int | None = None
    watch: Watch | None = None
    before: Callable[[], object] | None = None
    apart: bool = False
    board: str | None = None
    nets: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    rng: bool = False
    virtio_console: bool = False
    boot: BootOptions | None = None
    snapshot: str | None = None
    runs: Runs | None = None

    @property
    def devices(self) -> bool:
        """Whether a device is asked for that the header does not name."""
        return bool(self.nets or self.disks or self.rng or self.virtio_console)


def both(first: Watch | None, second: Watch) -> Watch:
    """One after the other, where there are two who watch."""
    if first is None:
        return second

    def watch(guest: Any) -> None:
        first(guest)
        second(guest)

    return watch


def check_timeout(seconds: float) -> float:
    """The value itself.

    Raises:
        UsageError: not above 0, or beyond a day.
    """
    if not 0 < seconds <= MAX_TIMEOUT:
        raise UsageError(f"a time limit of {seconds:g} s: give more than 0 and at most {MAX_TIMEOUT:g} seconds")
    return seconds


def parse_param(text: str) -> tuple[str, int]:
    """`count=0x10` -> ("count", 16).

    Raises:
        UsageError: it is not name=number, or the number needs more than 64 bits.
    """
    name, equals, value = text.partition("=")
    try:
        number = int(value, 0)
    except ValueError:
        number = None
    if not equals or not name or number is None:
        raise UsageError(f"--param {text}: write NAME=NUMBER, for example count=16 or count=0x10")
    if not fits_64_bits(number):
        raise UsageError(f"--param {text}: the number does not fit in 64 bits")
    return name, number


def fits_64_bits(number: int) -> bool:
    """Whether a register can hold it, signed or unsigned."""
    return -(1 << 63) <= number < 1 << 64
