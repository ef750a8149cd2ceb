# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of the kernel's and the processor's interfaces, one row per fact. No I/O; it imports only the standard library.

Nothing is imported with the package: `from vmm.abi import exits` costs that table and no other. The two functions
below gather all tables, for the assembler and for the build of the C binding.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple, cache


class Constant(NamedTuple):
    """A name that a uapi header defines. `since` None: Linux 6.1's header has it; else the release that brought it."""

    name: str
    value: int
    header: str
    since: str | None = None


@cache
def cdef_constants() -> tuple[Constant, ...]:
    """Every constant of the tables that a uapi header holds, for cffi declarations and `#ifndef` guards."""
    from vmm.abi import caps, exits, flags, msrs, pv, quirks, x86

    found = [Constant(row.kernel_name, row.number, exits.HEADER, row.since) for row in exits.EXITS]
    found += [Constant(row.kernel_name, row.number, caps.HEADER, row.since) for row in caps.CAPS]
    for table in (exits.ENUMERATIONS, quirks.QUIRKS, *flags.TABLES, pv.RETURNS, pv.CONSTANTS):
        found += [Constant(row.name, row.value, row.header, row.since) for row in table if row.header]
    found += [Constant(row.kernel_name, row.bit, pv.HEADER) for row in pv.FEATURES]
    found += [Constant(row.kernel_name, row.nr, pv.HYPERCALL_HEADER) for row in pv.HYPERCALLS]
    found += [Constant(row.name, row.number, row.header) for row in msrs.KVM_MSRS if row.header]
    found += [Constant(name, value, "asm/kvm.h") for name, value in x86.vectors_in_header().items()]
    return tuple(found)


@cache
def asm_constants() -> dict[str, int]:
    """Every name a payload may use, with its value. Do not change the dict: it is shared.

    Kernel names where the kernel has one. `KVM_FEATURE_X` is the bit number, as in the header, and `KVM_FEATURE_X_MASK`
    (ours) is 1 << bit, for TEST and AND. `NAME_field` is the offset of a structure's field, `NAME_SIZE` its size.
    """
    from vmm.abi import apic, cpuid, irq, msrs, pc, ports, pv, structs, svm, virtio, virtio_net, vmx, x86

    constants = {row.name: row.value for row in (*pv.RETURNS, *pv.CONSTANTS)}
    for feature in pv.FEATURES:
        constants[feature.kernel_name] = feature.bit
        constants[f"{feature.kernel_name}_MASK"] = feature.mask
    constants |= {row.kernel_name: row.nr for row in pv.HYPERCALLS if not row.arch}
    for number, register in enumerate(("EBX", "ECX", "EDX")):
        constants[f"KVM_SIGNATURE_{register}"] = cpuid.SIGNATURE[number]
    tables = (msrs, structs, apic, irq, pc, x86, virtio, virtio_net, svm, vmx)
    for part in (*(table.asm_constants() for table in tables), ports.ASM):
        clash = constants.keys() & part.keys()
        if clash:  # a mistake in the tables: two facts under one name
            raise ValueError(f"defined twice for the assembler: {', '.join(sorted(clash))}")
        constants |= part
    return constants
