# SPDX-License-Identifier: GPL-2.0-or-later
"""AML from Python: objects, names and resource descriptors as bytes. It knows the encoding, and no device.

Source: ACPI specification 6.5, 20.2 (grammar and encoding), 6.4.2 and 6.4.3 (resource descriptors), 6.1.5 (EISA ids).
"""

from __future__ import annotations

from vmm.abi import acpi

SEGMENT = 4


def name_string(path: str) -> bytes:
    r"""`_HID`, `\_SB`, `\_SB.COM1`: segments of up to four letters, filled up with underscores."""
    root, path = (acpi.ROOT_CHAR, path[1:]) if path.startswith("\\") else (b"", path)
    segments = [each.ljust(SEGMENT, "_").encode("ascii") for each in path.split(".")] if path else []
    if any(len(each) != SEGMENT for each in segments):
        raise ValueError(f"{path!r}: a segment of a name has at most {SEGMENT} letters")
    if len(segments) == 2:
        return root + acpi.DUAL_NAME_PREFIX + b"".join(segments)
    if len(segments) > 2:
        return root + acpi.MULTI_NAME_PREFIX + bytes((len(segments),)) + b"".join(segments)
    return root + (segments[0] if segments else b"\0")


def package_length(body: int) -> bytes:
    """PkgLength of what has `body` bytes behind it: it counts itself (20.2.4)."""
    if body + 1 < 1 << 6:
        return bytes((body + 1,))
    for more in (1, 2, 3):
        total = body + 1 + more
        if total < 1 << 4 + 8 * more:
            return bytes((more << 6 | total & 0xF,)) + (total >> 4).to_bytes(more, "little")
    raise ValueError(f"{body} bytes are too many for one object of AML")


def integer(value: int) -> bytes:
    """The shortest encoding of a number of up to 64 bits."""
    if value in (0, 1):
        return bytes((acpi.ONE_OP if value else acpi.ZERO_OP,))
    for prefix, size in ((acpi.BYTE_PREFIX, 1), (acpi.WORD_PREFIX, 2), (acpi.DWORD_PREFIX, 4), (acpi.QWORD_PREFIX, 8)):
        if value < 1 << 8 * size:
            return bytes((prefix,)) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} does not fit in 64 bits")


def string(text: str) -> bytes:
    """ASCII text."""
    return bytes((acpi.STRING_PREFIX,)) + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """`PNP0501` as the integer that stands for it: three letters of five bits and four hex digits, big-endian."""
    letters = sum((ord(each) - 0x40 & 0x1F) << shift for each, shift in zip(text[:3], (26, 21, 16), strict=True))
    return integer(int.from_bytes((letters | int(text[3:], 16)).to_bytes(4, "big"), "little"))


def name(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return bytes((acpi.NAME_OP,)) + name_string(path) + value


def package(*elements: bytes) -> bytes:
    """Package () { ... }."""
    body = bytes((len(elements),)) + b"".join(elements)
    return bytes((acpi.PACKAGE_OP,)) + package_length(len(body)) + body


def buffer(data: bytes) -> bytes:
    """Buffer () { ... }."""
    body = integer(len(data)) + data
    return bytes((acpi.BUFFER_OP,)) + package_length(len(body)) + body


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { ... }."""
    body = name_string(path) + b"".join(terms)
    return bytes((acpi.SCOPE_OP,)) + package_length(len(body)) + body


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { ... }."""
    body = name_string(path) + b"".join(terms)
    return acpi.DEVICE_OP + package_length(len(body)) + body


# -- resources


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate () { ... }, with its end tag, whose checksum of 0 means that there is none to check."""
    return buffer(b"".join(descriptors) + bytes((acpi.SMALL_END, 0)))


def io(port: int, count: int) -> bytes:
    """IO (Decode16, port, port, 1, count)."""
    head = bytes((acpi.SMALL_IO, acpi.IO_DECODE_16))
    return head + port.to_bytes(2, "little") * 2 + bytes((1, count))


def irq(number: int) -> bytes:
    """IRQNoFlags () { number }: an edge, active high, as ISA has it."""
    return bytes((acpi.SMALL_IRQ_NO_FLAGS,)) + (1 << number).to_bytes(2, "little")


def memory32(base: int, size: int) -> bytes:
    """Memory32Fixed (ReadWrite, base, size)."""
    return _large(
        acpi.LARGE_MEMORY32_FIXED,
        bytes((acpi.MEMORY_WRITABLE,)) + base.to_bytes(4, "little") + size.to_bytes(4, "little"),
    )


def interrupt(gsi: int) -> bytes:
    """Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi }."""
    flags = acpi.INTERRUPT_CONSUMER | acpi.INTERRUPT_EDGE
    return _large(acpi.LARGE_INTERRUPT, bytes((flags, 1)) + gsi.to_bytes(4, "little"))


def _large(tag: int, body: bytes) -> bytes:
    return bytes((tag,)) + len(body).to_bytes(2, "little") + body
