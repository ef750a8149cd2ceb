# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the fields of KVM's structures lie, for who reads them from bytes. It knows layouts; it calls no ioctl."""

from __future__ import annotations

from vmm.kvm._kvm import ffi


def place_of(kind: str, *fields: str | int) -> tuple[int, int]:
    """(offset, bytes) of a field: `place_of("struct kvm_sregs", "cs", "base")`; a number is an element of an array.

    Raises:
        KeyError: there is no such field.
    """
    offset, found = 0, ffi.typeof(kind)
    for each in fields:
        if isinstance(each, int):
            found = found.item
            offset += each * ffi.sizeof(found)
        else:
            field = dict(found.fields)[each]
            offset, found = offset + field.offset, field.type
    return offset, ffi.sizeof(found)
