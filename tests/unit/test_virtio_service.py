# SPDX-License-Identifier: GPL-2.0-or-later
"""The thread behind a virtio device's kicks: each event reaches its work, and the thread ends when it is told to."""

from __future__ import annotations

import os
import threading

import pytest

from tests.left_behind import files_before, open_files
from vmm.errors import HostError
from vmm.machine.virtio.service import Service


def fail(error: BaseException) -> None:
    raise AssertionError from error


def test_each_event_reaches_its_work():
    done: list[int] = []
    came = threading.Semaphore(0)

    def work(number: int) -> None:
        done.append(number)
        came.release()

    service = Service("test", 3, work, fail)
    for number in (2, 0, 1, 0):
        os.eventfd_write(service.events[number], 1)
        assert came.acquire(timeout=10)
    service.close()
    assert done == [2, 0, 1, 0]


def test_signals_that_come_while_it_works_are_one():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        begun.set()
        assert go_on.wait(10)
        done.append(number)

    service = Service("test", 1, work, fail)
    os.eventfd_write(service.events[0], 1)
    assert begun.wait(10)
    for _ in range(5):
        os.eventfd_write(service.events[0], 1)
    begun.clear()
    go_on.set()
    assert begun.wait(10)
    service.close()
    assert done == [0, 0]


def test_what_work_raises_is_told():
    told: list[BaseException] = []
    heard = threading.Event()

    def work(number: int) -> None:
        raise ValueError("broken")

    def failed(error: BaseException) -> None:
        told.append(error)
        heard.set()

    service = Service("test", 1, work, failed)
    os.eventfd_write(service.events[0], 1)
    assert heard.wait(10)
    service.close()
    assert [str(error) for error in told] == ["broken"]


def test_nothing_is_left():
    descriptors, threads = files_before(), threading.active_count()
    service = Service("test", 4, print, fail)
    assert open_files() == descriptors + 5
    service.close()
    service.close()
    assert (open_files(), threading.active_count()) == (descriptors, threads)


def test_a_host_without_descriptors_is_named(monkeypatch):
    made: list[int] = []
    real = os.eventfd

    def eventfd(value: int, flags: int) -> int:
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(real(value, flags))
        return made[-1]

    monkeypatch.setattr(os, "eventfd", eventfd)
    with pytest.raises(HostError, match="Too many open files"):
        Service("test", 4, print, fail)
    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
