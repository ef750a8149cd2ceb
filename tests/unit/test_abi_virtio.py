# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of vmm/abi/virtio.py against the kernel's headers, by the word of the compiler. No device is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vmm import abi
from vmm.abi import tun, virtio, virtio_net

INSTALLED = Path("/usr/include/linux/virtio_mmio.h").exists()
TABLES = (virtio, virtio_net, tun)
HEADERS = ("stddef.h", "sys/ioctl.h", *sorted({header for table in TABLES for header in table.HEADERS.values()}))


def compile_errors(*checks: str) -> str:
    """What gcc says about these lines of C after the virtio headers; empty if nothing is wrong."""
    gcc = shutil.which("gcc")
    if gcc is None or not INSTALLED:
        pytest.skip("needs gcc and the kernel's headers")
    source = "\n".join([f"#include <{name}>" for name in HEADERS] + list(checks))
    command = [gcc, "-fsyntax-only", "-w", "-x", "c", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False).stderr


def is_equal(name: str, value: int) -> str:
    return f'_Static_assert(({name}) == {value}ULL, "{name}");'


@pytest.mark.parametrize(("table", "least"), [(virtio, 55), (virtio_net, 40), (tun, 12)])
def test_constants_agree(table, least):
    found = table.constants()
    assert len(found) >= least
    assert compile_errors(*(is_equal(name, value) for name, value in found.items())) == ""


@pytest.mark.parametrize("struct", [*virtio.STRUCTS, *virtio_net.STRUCTS], ids=lambda struct: struct.name)
def test_structures_agree(struct):
    checks = [
        f'_Static_assert(offsetof(struct {struct.name}, {field.name}) == {field.offset}, "{field.name}");'
        f'_Static_assert(sizeof(((struct {struct.name} *)0)->{field.name}) == {field.size}, "size of {field.name}");'
        for field in struct.fields
    ]
    if not struct.name.endswith("_config"):  # of those we fill the first part
        checks.append(f'_Static_assert(sizeof(struct {struct.name}) == {struct.size}, "size");')
    assert compile_errors(*checks) == ""


def test_the_rings_begin_where_the_kernel_has_them():
    for struct in ("vring_avail", "vring_used"):
        assert compile_errors(f'_Static_assert(offsetof(struct {struct}, ring) == {virtio.RING}, "ring");') == ""


@pytest.mark.parametrize("check", [is_equal("VIRTIO_MMIO_STATUS", 0x74), is_equal("VIRTIO_F_NO_SUCH", 1)])
def test_a_wrong_row_is_noticed(check):
    assert "error" in compile_errors(check)


def test_the_assembler_knows_them():
    names = abi.asm_constants()
    assert names["VIRTIO_MMIO_QUEUE_NOTIFY"] == 0x50
    assert names["VIRTIO_F_VERSION_1_MASK"] == 1 << 32
    assert "VRING_DESC_F_NEXT_MASK" not in names
    assert (names["VRING_DESC_next"], names["VRING_DESC_SIZE"]) == (14, 16)
    assert "VRING_DESC" not in names
    assert (names["VIRTIO_NET_F_MRG_RXBUF_MASK"], names["VIRTIO_NET_HDR_SIZE"]) == (1 << 15, 12)


def test_bits_to_a_word():
    assert virtio.feature(0, 32) == 0x1_0000_0001
