# SPDX-License-Identifier: GPL-2.0-or-later
"""Prepared interrupts, and words that say when they were written: effects, refusals and times."""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from vmm.abi import apic
from vmm.abi.ports import DELAY
from vmm.errors import HostError, KvmCallError, UsageError
from vmm.kvm import signals

SPLIT = "SPLIT_IRQCHIP"
now = time.monotonic_ns


@pytest.fixture
def event():
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_an_eventfd_is_written(event):
    signal = signals.event(event)
    for _ in range(3):
        signal()
    assert os.eventfd_read(event) == 3


def test_it_says_when(event):
    signal = signals.event(event, timed=True)
    before = now()
    when = signal()
    assert before <= when <= now()
    assert os.eventfd_read(event) == 1


def test_what_the_kernel_refuses_is_raised(event):
    os.eventfd_write(event, (1 << 64) - 2)
    with pytest.raises(BlockingIOError):
        signals.event(event)()
    gone = os.eventfd(0, os.EFD_CLOEXEC)
    os.close(gone)
    with pytest.raises(OSError, match="Bad file descriptor"):
        signals.event(gone)()


@pytest.mark.parametrize("fd", [-1, 1 << 31, None, 1.0, "1"])
def test_no_descriptor(fd):
    with pytest.raises(UsageError, match="give that of an eventfd"):
        signals.event(fd)


def test_threads_signal_at_once(event):
    """It keeps the GIL, and must give it back whole."""
    signal = signals.event(event)
    threads = [threading.Thread(target=lambda: [signal() for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.eventfd_read(event) == 8000


def test_a_message_is_requested_at_its_destination(vm):
    vm.enable_cap(SPLIT, 24)
    vcpu = vm.create_vcpu(0)
    vcpu.set_mp_state(0)
    state = bytearray(vcpu.get_lapic())
    state[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")  # SPIV: enabled
    vcpu.set_lapic(bytes(state))
    before = now()
    assert signals.msi(vm, apic.msi_address(0), apic.msi_data(0x41))() > 0
    assert before <= signals.msi(vm, apic.msi_address(0), apic.msi_data(0x42), timed=True)() <= now()
    register = 0x200 + 0x41 // 32 * 16
    assert int.from_bytes(vcpu.get_lapic()[register : register + 4], "little") == 0b11 << 0x41 % 32


def test_a_message_without_a_lapic_is_an_error_and_after_close_too(vm):
    send = signals.msi(vm, apic.msi_address(0), 0x41)
    with pytest.raises(KvmCallError, match="KVM_SIGNAL_MSI") as refused:
        send()
    assert refused.value.errno == errno.EINVAL
    number = vm.number
    vm.close()
    assert number[0] == -1  # another VM may get the descriptor
    with pytest.raises(HostError, match="the VM has been closed"):
        send()
    with pytest.raises(HostError, match="the VM has been closed"):
        signals.msi(vm, apic.msi_address(0), 0x41)


@pytest.mark.parametrize(
    ("address", "data"), [(0, 1), (-1, 1), (1 << 64, 1), (1, -1), (1, 1 << 32), ("1", 1), (1, None)]
)
def test_no_message(vm, address, data):
    with pytest.raises(UsageError):
        signals.msi(vm, address, data)


@pytest.mark.parametrize("fast", [True, False])
def test_a_timed_word_says_when_it_was_written_last(booted, fast):
    machine = booted(bytes.fromhex("b005 e680 b007 e680 f4"), fast=fast)  # mov al, 5; out; mov al, 7; out; hlt
    word, other = machine.port_word(DELAY, timed=True), machine.port_word(DELAY + 1)
    assert word.written_at == 0
    before = now()
    machine.run()
    assert before < word.written_at < now()
    assert (word.value, word.writes, other.written_at) == (7, 2, 0)
