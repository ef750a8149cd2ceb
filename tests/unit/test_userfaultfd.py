# SPDX-License-Identifier: GPL-2.0-or-later
"""Userfaultfd without a guest: pages of this process, touched by a thread that lets go of the GIL while it waits."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmm.abi.x86 import PAGE
from vmm.errors import EXIT_CANNOT_SHOW, HostError, KvmCallError, UsageError
from vmm.kvm import userfaultfd
from vmm.kvm.memory import Mapping
from vmm.kvm.userfaultfd import FaultHandler, NoUserfaultfd, PageFault, Userfaultfd

SOON = 5.0  # far longer than anything here takes
LETTERS = b"A" * PAGE


@pytest.fixture
def uffd() -> Iterator[Userfaultfd]:
    """One for faults of user mode, which needs no permission."""
    try:
        opened = Userfaultfd.open(user_mode_only=True)
    except NoUserfaultfd as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Mapping]:
    mapping = Mapping(4 * PAGE)
    yield mapping
    mapping.close()


class Toucher(threading.Thread):
    """Reads bytes at an address in user mode, without the GIL: ctypes gives it up for a foreign function."""

    def __init__(self, address: int, size: int = 1) -> None:
        super().__init__(daemon=True)
        self.address, self.size, self.seen = address, size, b""
        self.start()

    def run(self) -> None:
        into = ctypes.create_string_buffer(self.size)
        ctypes.CDLL(None).memcpy(into, ctypes.c_void_p(self.address), ctypes.c_size_t(self.size))
        self.seen = into.raw

    def result(self) -> bytes:
        self.join(SOON)
        assert not self.is_alive(), "it still waits for the page"
        return self.seen


def test_a_touched_page_is_a_fault_and_gets_the_bytes(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    toucher = Toucher(memory.hva + PAGE + 5, 3)
    assert uffd.poll(SOON) == PageFault(memory.hva + PAGE, False)
    assert toucher.is_alive()
    assert uffd.copy(memory.hva + PAGE, LETTERS)
    assert toucher.result() == b"AAA"


def test_no_fault_is_none_and_in_time(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    begin = time.monotonic()
    assert uffd.read() is None
    assert uffd.poll(0.01) is None
    assert 0.005 < time.monotonic() - begin < SOON


def test_zeropage(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    toucher = Toucher(memory.hva, 4)
    assert uffd.poll(SOON)
    assert uffd.zeropage(memory.hva, 2 * PAGE)
    assert toucher.result() == bytes(4)
    assert memory.bytes[PAGE] == 0  # the second page is there, or this would wait


def test_a_page_that_is_there_is_false(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    assert uffd.copy(memory.hva, LETTERS * 2)
    assert not uffd.copy(memory.hva, LETTERS)
    assert not uffd.zeropage(memory.hva)
    assert memory.bytes[: 2 * PAGE] == LETTERS * 2


def test_copy_without_wake(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    toucher = Toucher(memory.hva)
    assert uffd.poll(SOON)
    assert uffd.copy(memory.hva, LETTERS, wake=False)
    toucher.join(0.02)
    assert toucher.is_alive()
    uffd.wake(memory.hva)
    assert toucher.result() == b"A"


def test_unregister_and_close_end_every_wait(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, PAGE)
    uffd.register(memory.hva + PAGE, PAGE)
    first, second = Toucher(memory.hva), Toucher(memory.hva + PAGE)
    assert {fault.address for fault in (uffd.poll(SOON), uffd.poll(SOON)) if fault} == {memory.hva, memory.hva + PAGE}
    uffd.unregister(memory.hva, PAGE)
    assert first.result() == b"\0"
    assert second.is_alive()
    uffd.close()
    assert second.result() == b"\0"
    uffd.close()
    with pytest.raises(HostError, match="has been closed"):
        uffd.read()


def test_close_after_the_memory_went(uffd: Userfaultfd) -> None:
    mapping = Mapping(PAGE)
    uffd.register(mapping.hva, PAGE)
    mapping.close()
    uffd.close()


@pytest.mark.parametrize("data", [b"", b"short", bytes(PAGE + 1)])
def test_a_copy_is_whole_pages(uffd: Userfaultfd, data: bytes) -> None:
    with pytest.raises(UsageError, match="whole pages"):
        uffd.copy(0, data)


def test_memory_that_is_not_registered_is_an_error(uffd: Userfaultfd, memory: Mapping) -> None:
    with pytest.raises(KvmCallError, match="UFFDIO_COPY") as caught:
        uffd.copy(memory.hva, LETTERS)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(KvmCallError, match="UFFDIO_REGISTER"):
        uffd.register(memory.hva + 1, PAGE)


def test_a_part_counts_and_the_rest_is_there(uffd: Userfaultfd, memory: Mapping) -> None:
    """The kernel does the first page, says EAGAIN, and EEXIST for the second."""
    uffd.register(memory.hva, memory.size)
    assert uffd.copy(memory.hva + PAGE, LETTERS)
    assert not uffd.copy(memory.hva, b"B" * 3 * PAGE)
    assert memory.bytes[: 2 * PAGE] == b"B" * PAGE + LETTERS


def test_eagain_is_asked_again(memory: Mapping) -> None:
    """While somebody waits for the kernel's word of a change to be read, every UFFDIO_COPY is EAGAIN."""
    fd = by_user_mode()
    lib, ffi = userfaultfd.lib, userfaultfd.ffi
    api = ffi.new("struct uffdio_api *", {"api": lib.UFFD_API, "features": 1 << 3})  # UFFD_FEATURE_EVENT_REMOVE
    assert lib.vmm_ioctl(fd, lib.UFFDIO_API, api) == 0
    held = ffi.new("struct uffdio_register *", {"range": [memory.hva, PAGE], "mode": lib.UFFDIO_REGISTER_MODE_MISSING})
    assert lib.vmm_ioctl(fd, lib.UFFDIO_REGISTER, held) == 0
    libc = ctypes.CDLL(None, use_errno=True)  # whose calls give up the GIL, as madvise of the library does not
    gone = threading.Thread(
        target=libc.madvise, args=(ctypes.c_void_p(memory.hva), ctypes.c_size_t(PAGE), 4), daemon=True
    )
    done: list[int] = []
    page = ffi.from_buffer(LETTERS)
    copy = threading.Thread(target=lambda: done.append(lib.vmm_supply(fd, memory.hva, page, PAGE, 0)), daemon=True)
    try:
        gone.start()
        gone.join(0.1)
        assert gone.is_alive(), "nobody has read of it"
        copy.start()
        copy.join(0.1)
        assert (copy.is_alive(), done) == (True, [])
        assert len(os.read(fd, 32)) == 32
        gone.join(SOON)
        copy.join(SOON)
        assert done == [0]
        assert memory.bytes[:PAGE] == LETTERS
    finally:
        os.close(fd)


# The handler ------------------------------------------------------------------------------------------------------


def test_handler_serves_every_page(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    served = []

    def serve(fault: PageFault) -> None:
        served.append(fault.address)
        uffd.copy(fault.address, LETTERS)

    with FaultHandler(uffd, serve) as handler:
        touchers = [Toucher(memory.hva + number * PAGE) for number in range(4)]
        assert [toucher.result() for toucher in touchers] == [b"A"] * 4
    assert sorted(served) == [memory.hva + number * PAGE for number in range(4)]
    assert handler.error is None
    handler.close()


def test_handler_that_raises_leaves_nobody_waiting(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    with FaultHandler(uffd, lambda fault: 1 / 0) as handler:
        assert Toucher(memory.hva).result() == b"\0"
    assert isinstance(handler.error, ZeroDivisionError)


def test_handler_that_does_not_come_back_holds_up_nobody(uffd: Userfaultfd, memory: Mapping) -> None:
    uffd.register(memory.hva, memory.size)
    block = threading.Event()
    handler = FaultHandler(uffd, lambda fault: block.wait(), patience=0.05)
    toucher = Toucher(memory.hva)
    begin = time.monotonic()
    handler.close()
    assert time.monotonic() - begin < SOON
    uffd.close()
    assert toucher.result() == b"\0"
    block.set()
    handler._thread.join(SOON)


def test_nothing_is_left_open(memory: Mapping) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, threads = files(), threading.active_count()
    try:
        with Userfaultfd.open(user_mode_only=True) as uffd, FaultHandler(uffd, print):
            assert files() == before + 2
    except NoUserfaultfd as error:
        pytest.skip(str(error))
    assert (files(), threading.active_count()) == (before, threads)


# Permission -------------------------------------------------------------------------------------------------------


def refusing(number: int) -> Callable[..., int]:
    def way(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return way


def test_the_device_comes_first_then_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = by_user_mode(), by_user_mode()
    monkeypatch.setattr(userfaultfd, "by_device", lambda path: first)
    monkeypatch.setattr(userfaultfd, "by_call", refusing(errno.EPERM))
    with Userfaultfd.open() as uffd:
        assert uffd.fd == first
    monkeypatch.setattr(userfaultfd, "by_device", refusing(errno.ENOENT))
    monkeypatch.setattr(userfaultfd, "by_call", lambda flags=0: second)
    with Userfaultfd.open() as uffd:
        assert uffd.fd == second


def by_user_mode() -> int:
    try:
        return userfaultfd.by_call(userfaultfd.lib.UFFD_USER_MODE_ONLY)
    except OSError as error:
        pytest.skip(f"no userfaultfd at all: {error}")


def test_a_refusal_names_both_ways_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userfaultfd, "by_device", refusing(errno.EACCES))
    monkeypatch.setattr(userfaultfd, "by_call", refusing(errno.EPERM))
    with pytest.raises(NoUserfaultfd) as caught:
        Userfaultfd.open()
    text = str(caught.value)
    for part in ("/dev/userfaultfd: EACCES", "the system call: EPERM", "CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd"):
        assert part in text
    assert (caught.value.device, caught.value.call, caught.value.exit_code) == ("EACCES", "EPERM", EXIT_CANNOT_SHOW)


def test_an_ordinary_user_is_refused_by_name() -> None:
    """As root: a child that gives up its rights asks for itself."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    code = (
        "import os\nfrom vmm.kvm.userfaultfd import NoUserfaultfd, Userfaultfd\nos.setresuid(65534, 65534, 65534)\n"
        "try:\n    Userfaultfd.open().close()\n    print('allowed')\nexcept NoUserfaultfd as error:\n    print(error)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    text = done.stdout.strip()
    if text == "allowed":
        pytest.skip("this host allows it to everybody")
    assert "the system call: EPERM" in text


def test_importing_it_loads_no_ctypes() -> None:
    code = "import sys, vmm.kvm.userfaultfd, vmm.host.userfaultfd; sys.exit('ctypes' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
