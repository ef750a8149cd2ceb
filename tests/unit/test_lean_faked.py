# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core on a kvm_run that we have filled: exits that no guest of this host can cause (KVM_EXIT_HYPERCALL).

A child by fork has a seccomp filter that answers ioctl(KVM_RUN) with 0: the core finds in kvm_run what was put there.
"""

from __future__ import annotations

import ctypes
import os
import struct
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from vmm.abi.pv import KVM_ENOSYS
from vmm.base.bits import MASK64
from vmm.errors import UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.decode import decode
from vmm.kvm.exits import Exit, Hypercall
from vmm.kvm.lean import Core
from vmm.machine.bus.platform import Platform
from vmm.machine.devices.sink import Sink
from vmm.machine.run.lean import LeanLane

NR = 12  # KVM_HC_MAP_GPA_RANGE
ARGS = (0x1000, 2, 1 << 63 | 0x10, 4, 5, 6)
KVM_RUN = 0xAE80
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
SYS_IOCTL = 16
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO_0 = 0x7FFF0000, 0x00050000
PROGRAM = (  # struct sock_filter: code, jt, jf, k; the loads are of struct seccomp_data
    (LOAD, 0, 0, 0), (JUMP_IF, 0, 3, SYS_IOCTL), (LOAD, 0, 0, 24), (JUMP_IF, 0, 1, KVM_RUN),
    (RETURN, 0, 0, ERRNO_0), (RETURN, 0, 0, ALLOW),
)  # fmt: skip


def answer_kvm_run_with_0() -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in PROGRAM))
    whole = ctypes.create_string_buffer(struct.pack("<H6xQ", len(PROGRAM), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(SET_SECCOMP, FILTER, whole, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


class Faked:
    """A vCPU as far as the lean way asks for one, and who serves its exits."""

    def __init__(self) -> None:
        self._pages = ffi.new("char[]", 0x3000)
        self.run: Any = ffi.cast("struct kvm_run *", self._pages)
        self.run.exit_reason = lib.KVM_EXIT_HYPERCALL
        self.run.hypercall.nr, self.run.hypercall.args, self.run.hypercall.longmode = NR, ARGS, 1
        self.stored, self.pending = None, False
        self.platform = Platform()
        self.lane = LeanLane(self.platform, Sink(1 << 20))
        self.core = Core(self, self.lane.finish)  # type: ignore[arg-type]

    def new_core(self, finish: Any) -> Any:
        self._core = ffi.new("struct vmm_core *")
        lib.vmm_core_init(self._core, 0, self.run, finish)
        return self._core

    def want_attention(self) -> None:
        if hasattr(self, "core"):
            self._core.attention = 1

    def decode_now(self, error: int) -> Exit | None:
        return decode(self.run, ffi.buffer(self._pages), error)

    @property
    def ret(self) -> int:
        return int(self.run.hypercall.ret)

    def serve(self, answer: Callable[..., Any], times: int) -> list[tuple[int, ...]]:
        """Run until `answer` has been asked so often; what it was given."""
        given: list[tuple[int, ...]] = []

        def call(*args: int) -> Any:
            given.append(args)
            if len(given) >= times:
                self.core.stopped = True
            return answer(*args)

        self.platform.hypercalls[NR] = call
        self.core.stopped = False
        assert self.core.next(self.lane) is None
        return given


def answered(fake: Faked) -> None:
    for value in (0, -22, 5, (1 << 63) - 1, -(1 << 63)):
        assert fake.serve(lambda *_, value=value: value, 3) == [ARGS] * 3
        assert fake.ret == value & MASK64
    assert fake.core.counts()["Hypercall"] == 15
    assert fake.core.recent() == (Hypercall(NR, ARGS, True),) * 10


def judged(fake: Faked) -> None:
    """What is no plain int of 63 bits is judged where the plain way does it."""
    assert fake.serve(lambda *_: MASK64, 3) == [ARGS] * 3
    assert fake.ret == MASK64
    assert fake.serve(lambda *_: True, 3) == [ARGS] * 3
    assert fake.ret == 1
    for wrong in ("text", None, 1.0, 1 << 64, -(1 << 63) - 1):
        with pytest.raises(UsageError, match=r"hypercall 12: .*call answered"):
            fake.serve(lambda *_, wrong=wrong: wrong, 3)
        assert fake.ret == -KVM_ENOSYS & MASK64


def raised(fake: Faked) -> None:
    def fail(*_: int) -> int:
        raise ValueError("no")

    for _ in range(2):
        fake.run.hypercall.ret = 7
        with pytest.raises(ValueError, match="no"):
            fake.serve(fail, 5)
        assert fake.ret == -KVM_ENOSYS & MASK64


def changed(fake: Faked) -> None:
    """Who serves it may change in between; a method is called with its self."""
    seen: list[object] = []

    class Second:
        def call(self, *args: int) -> int:
            seen.append((self, args))
            fake.core.stopped = len(seen) > 2
            return 9

    second = Second()

    def first(*args: int) -> int:
        seen.append(args)
        fake.platform.hypercalls[NR] = second.call
        return 8

    fake.platform.hypercalls[NR] = first
    assert fake.core.next(fake.lane) is None
    assert seen == [ARGS, (second, ARGS), (second, ARGS)]
    assert fake.ret == 9


def nobodys(fake: Faked) -> None:
    assert fake.core.next(fake.lane) == Hypercall(NR, ARGS, True)
    fake.run.hypercall.nr = 1 << 40 | NR  # too large for a key, and not NR
    fake.platform.hypercalls[NR] = lambda *_: 0
    assert fake.core.next(fake.lane) == Hypercall(1 << 40 | NR, ARGS, True)


@pytest.mark.parametrize("story", [answered, judged, raised, changed, nobodys], ids=lambda story: story.__name__)
def test_a_hypercall_that_kvm_passes_on(story: Callable[[Faked], None]) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        text = "the child did not come to its end"
        try:
            answer_kvm_run_with_0()
            story(Faked())
            text = ""
        except BaseException:
            text = traceback.format_exc()
        finally:
            os.write(writable, text.encode()[-4000:])
            os._exit(bool(text))
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    assert (os.waitpid(child, 0)[1], text) == (0, "")
