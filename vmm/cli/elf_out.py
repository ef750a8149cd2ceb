# SPDX-License-Identifier: GPL-2.0-or-later
"""`--elf-out`: the payload as an ELF file with symbols and source lines, for gdb and objdump. It runs nothing."""

from __future__ import annotations

from vmm.asm.elf_out import elf
from vmm.cli.files import OutputFile, check_outputs
from vmm.errors import UsageError, os_reason
from vmm.payload.catalog import Payload
from vmm.payload.guest import assemble

OPTION = "--elf-out"


def write(payload: Payload, name: str, params: dict[str, int] | None = None) -> None:
    """Write the file, whole or not at all; a payload in C is compiled for it.

    Raises:
        UsageError: the payload has no text, or the file cannot be written, or a source would be overwritten.
        PayloadError: the source is wrong.
    """
    if payload.image:
        raise UsageError(
            f"{OPTION}: {payload.file} is an image, which names itself to a debugger", hint=f"`gdb {payload.file}`"
        )
    if payload.text is None:
        raise UsageError(f"{OPTION}: {payload.file} is raw code, of which nothing names a line or a label")
    check_outputs({OPTION: name}, [payload.file])
    output = OutputFile(name)
    try:
        output.file.write(elf(assemble(payload, payload.header.given(params or {}, payload.name))))
        output.keep()
    except OSError as error:
        raise UsageError(f"writing {name!r}: {os_reason(error)}") from error
    finally:
        output.discard()
