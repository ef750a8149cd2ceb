# SPDX-License-Identifier: GPL-2.0-or-later
"""What kind of image bytes are, by their content alone, and the loader that reads them. It opens no file.

A kind is recognised by what its format demands of the first bytes, never by a file's name. Code without a header has no
mark: it is what nothing else is, and raw.py says of some that they are plainly no code.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from vmm.base.names import nearest
from vmm.errors import ImageError
from vmm.machine.images import bzimage, flat, multiboot1, multiboot2, pvh
from vmm.machine.images.elf import Elf, is_elf
from vmm.machine.images.image import MODES, Image, Mode
from vmm.machine.images.raw import refusal
from vmm.machine.images.remarks import missed_header, missed_mark, of_another_system, of_plain

PROTOCOLS = (*bzimage.PROTOCOLS, multiboot2.PROTOCOL, multiboot1.PROTOCOL, pvh.PROTOCOL, "elf", flat.PROTOCOL)
"""The ways to start an image. An ELF file may have several, and is started by the first of this order that it has a
header for; plain `elf` and `flat` have none.
"""
GZIP = b"\x1f\x8b\x08"
MAX_UNPACKED = 1 << 30


def read_image(
    data: bytes,
    name: str,
    *,
    base: int | None = None,
    entry: int | str | None = None,
    mode: Mode | None = None,
    protocol: str | None = None,
) -> Image:
    """The image that these bytes are. `base` and `mode` are for code without a header, `entry` for that and for ELF
    files, of which it may name a symbol. `protocol` is one of PROTOCOLS.

    Raises:
        ImageError: damaged, foreign, or not to be started so; one line says what and where.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise ImageError(f"protocol {protocol!r}: there are {', '.join(PROTOCOLS)}")
    if mode is not None and mode not in MODES:
        raise ImageError(f"mode {mode!r}: there are {', '.join(MODES)}")
    note: tuple[str, ...] = ()
    if data.startswith(GZIP) and protocol != flat.PROTOCOL:
        data, note = _unpacked(data, name), ("it was compressed by gzip",)
    image = _read(data, name, base, entry, mode, protocol)
    return replace(image, notes=(*note, *image.notes))


def _read(
    data: bytes, name: str, base: int | None, entry: int | str | None, mode: Mode | None, protocol: str | None
) -> Image:
    if protocol == flat.PROTOCOL:
        return flat.read_flat(data, name, mode or "long", base, entry)
    if bzimage.is_bzimage(data):
        _says_itself(name, bzimage.FORMAT, base, mode, entry)
        return bzimage.read_bzimage(data, name, _among(name, protocol, bzimage.PROTOCOLS, bzimage.FORMAT))
    if is_elf(data):
        _says_itself(name, "ELF", base, mode)
        elf = Elf(data, name)
        image = _of_elf(elf, data, protocol)
        return image if entry is None else replace(image, entry=_entry(elf, entry))
    at = multiboot2.find_header(data)
    if at is not None and protocol in (None, multiboot2.PROTOCOL):
        _says_itself(name, multiboot2.FORMAT, base, mode, entry)
        return multiboot2.read_multiboot2(data, name, at, None)
    at = multiboot1.find_header(data)
    if at is not None and protocol in (None, multiboot1.PROTOCOL):
        _says_itself(name, multiboot1.FORMAT, base, mode, entry)
        return multiboot1.read_multiboot1(data, name, at, None)
    if protocol is not None:
        raise ImageError(f"{name}: it has no header for protocol {protocol}")
    if mode is None and base is None and (why := refusal(data, name)):
        raise ImageError(*why)
    if mode is None and flat.is_boot_sector(data):
        image = flat.read_flat(data, name, "real", base, entry)
        return replace(image, notes=("a boot sector, by its mark: 16-bit code at 0x7c00 (--mode long: it is not)",))
    image = flat.read_flat(data, name, mode or "long", base, entry)
    missed = missed_header(data) or (missed_mark(data) if mode is None and base is None else "")
    return replace(image, notes=(missed,)) if missed else image


def _of_elf(elf: Elf, data: bytes, protocol: str | None) -> Image:
    """An ELF file by the first protocol that it has a header for."""
    name, found = elf.name, []
    second, first, entry = multiboot2.find_header(data), multiboot1.find_header(data), pvh.entry_of(elf)
    if second is not None:
        found.append(multiboot2.PROTOCOL)
    if first is not None:
        found.append(multiboot1.PROTOCOL)
    if entry is not None:
        found.append(pvh.PROTOCOL)
    has = (*found, "elf", *(("linux64",) if elf.bits == 64 else ()))
    chosen = _among(name, protocol, has, "ELF", missed_header(data) if not found else "")
    chosen = chosen or (found or ["elf"])[0]
    if chosen == multiboot2.PROTOCOL and second is not None:
        return multiboot2.read_multiboot2(data, name, second, elf)
    if chosen == multiboot1.PROTOCOL and first is not None:
        return multiboot1.read_multiboot1(data, name, first, elf)
    if chosen == pvh.PROTOCOL and entry is not None:
        return pvh.read_pvh(elf, entry)
    if chosen == "linux64":
        return bzimage.read_vmlinux(elf)
    return _plain(elf, anyway=protocol is not None)


def _plain(elf: Elf, *, anyway: bool) -> Image:
    """An ELF file that is only loaded and started: 64-bit code in long mode, 32-bit code in flat protected mode.
    `anyway`: its user knows better, and asked for just that.
    """
    if elf.dynamic and any(each.gpa < 0x1000 for each in elf.segments):
        raise elf.wrong(
            "position-independent (e_type is ET_DYN), linked for address 0, where nothing may lie",
            "`-no-pie -static`, and an address for the linker (`-Ttext=0x100000`); of rustc -C relocation-model=static",
        )
    segments, start = elf.segments, elf.start
    if not anyway and (other := of_another_system(elf)):
        raise elf.wrong(
            f"made for {other[0]}, and here is a bare machine",
            f"{other[1]}; or `--protocol elf`, to start it all the same",
        )
    mode: Mode = "long" if elf.code_bits == 64 else "protected"
    return Image(elf.name, f"ELF{elf.bits}", "elf", segments, start, mode, names=elf, notes=of_plain(elf))


def _entry(elf: Elf, entry: int | str) -> int:
    """The physical address of a symbol, or of a virtual or physical address."""
    if isinstance(entry, str):
        if entry not in elf.symbols:
            near = nearest(entry, elf.symbols)
            more = f"; did you mean {', '.join(near)}?" if near else "" if elf.symbols else ": it has none at all"
            raise ImageError(f"{elf.name}: no symbol {entry!r}{more}")
        entry = elf.symbols[entry]
    at = elf.physical(entry)
    if at is None and any(each.gpa <= entry < each.end for each in elf.segments):
        at = entry
    if at is None:
        raise elf.wrong(f"it would start at {entry:#x}, which lies in none of its segments")
    return at


def _says_itself(name: str, shown: str, base: int | None, mode: Mode | None, entry: int | str | None = None) -> None:
    for option, value in (("--base", base), ("--mode", mode), ("--entry", entry)):
        if value is not None:
            raise ImageError(
                f"{name}: {shown}: the image itself says where it lies and how it starts, not {option}",
                hint="--protocol flat, to take its bytes as plain code; `pyvmm docs images#options`",
            )


def _among(name: str, protocol: str | None, has: tuple[str, ...], shown: str, missed: str = "") -> str | None:
    if protocol is not None and protocol not in has:
        raise ImageError(
            f"{name}: {shown}: it cannot be started by protocol {protocol}; it has {', '.join(has)}",
            hint=missed or "without --protocol it is started by the first of them: `pyvmm docs images#formats`",
        )
    return protocol


def _unpacked(data: bytes, name: str) -> bytes:
    """The contents of a gzip file, up to MAX_UNPACKED."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        inner = unpacker.decompress(data, MAX_UNPACKED)
    except zlib.error as error:
        raise ImageError(f"{name}: compressed by gzip, and damaged: {error}") from error
    if unpacker.unconsumed_tail:
        raise ImageError(f"{name}: compressed by gzip, and more than {MAX_UNPACKED >> 20} MiB inside: no image")
    if not unpacker.eof:
        raise ImageError(f"{name}: compressed by gzip, and cut off after {len(data)} bytes")
    return inner
