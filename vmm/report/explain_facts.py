# SPDX-License-Identifier: GPL-2.0-or-later
"""Every named row of vmm.abi as one kind of value: what `pyvmm explain` finds beside features and hypercalls.

Meanings and sources are the tables' own: a row's text, the comment at a plain number, the sentence of a module's
docstring that says where its numbers come from. Nothing is explained here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from vmm.abi import apic, caps, cpuid, cpuid_leaves, exits, flags, msrs, port_map, pv, quirks, svm, terms, vmx, x86
from vmm.abi.cpuid_bits import ALIASES
from vmm.abi.rows import Named
from vmm.abi.structs import Struct
from vmm.machine.memory import layout
from vmm.payload.guest import constants

KINDS = {
    "exit": "Exits: why KVM_RUN came back",
    "capability": "Capabilities of KVM",
    "port": "I/O ports",
    "region": "Regions of the guest's memory",
    "structure": "Structures",
    "field": "Fields of structures",
    "cpuid": "CPUID bits",
    "leaf": "CPUID leaves",
    "exception": "Exceptions",
    "flag": "Flags and enumerations of KVM",
    "quirk": "Quirks of KVM",
    "vmexit": "Exit reasons of VMX and SVM",
    "register": "Registers and bits of devices and of the CPU",
    "virtio": "Virtio",
    "constant": "Other constants of assembly text",
    "term": "Words of the field",
}
"""Kind -> heading, the order in which a name is looked for; features, MSRs and hypercalls come before them."""

MODULES = {
    "register": ("apic", "serial_reg", "irq", "pc", "x86", "testdev"),
    "virtio": ("virtio", "virtio_net"),
    "constant": (
        "pv",
        "vmx",
        "svm",
        "cpuid_entry",
        "ports",
        "structs",
        "bootparam",
        "multiboot",
        "pvh",
        "acpi",
        "bios",
    ),
}
"""Modules of vmm.abi whose plain numbers are of a kind."""
STRUCTURES = ("structs", "bootparam", "multiboot", "pvh", "bios", "virtio", "virtio_net", "svm")
SHORT = (
    "KVM_EXIT_",
    "KVM_CAP_",
    "MSR_IA32_",
    "MSR_",
    "KVM_X86_QUIRK_",
    "X86_CR0_",
    "X86_CR4_",
    "KVM_",
    "APIC_",
    "VIRTIO_",
)
_SOURCE = re.compile(r"\b(Sources?: |Numbers: |Names and values)(.*)", re.S)
_NUMBER = re.compile(r"^([A-Z][A-Z0-9_]*) = .*?(?:  # (.*))?$")


class Fact(NamedTuple):
    """One named row. `value` is its number (None for what has none), `last` the end of a range of them, `where` who
    says so, `struct` its layout, `inside` the name of what it is a part of, `also` other spellings.
    """

    kind: str
    name: str
    meaning: str
    value: int | None = None
    last: int | None = None
    where: str = ""
    struct: Struct | None = None
    inside: str = ""
    also: tuple[str, ...] = ()


def source(module: str) -> str:
    """What the docstring of a module of vmm.abi says of where its numbers come from."""
    doc = inspect.cleandoc(import_module(f"vmm.abi.{module}").__doc__ or "")
    match = _SOURCE.search(doc)
    said = f"{match[1]}{match[2]}" if match else f"pyvmm's own, vmm/abi/{module}.py"
    return re.sub(r"\s+", " ", said.partition("\n\n")[0]).removeprefix("Sources: ").removeprefix("Source: ").strip()


@cache
def facts() -> tuple[Fact, ...]:
    """All of them, each (kind, name) once, by kind."""
    found: dict[tuple[str, str], Fact] = {}
    for fact in (*_kvm(), *_machine(), *_cpu(), *_structures(), *_numbers()):
        found.setdefault((fact.kind, fact.name), fact)
    known = {name for fact in (*found.values(), *registers()) for name in (fact.name, *fact.also)}
    known |= {row.name for row in msrs.KVM_MSRS} | {row.kernel_name for row in pv.HYPERCALLS}
    for fact in _rest(known):
        found[fact.kind, fact.name] = fact
    order = list(KINDS)
    return tuple(sorted(found.values(), key=lambda fact: order.index(fact.kind)))


def _since(since: str | None) -> str:
    return f", since Linux {since}" if since else ""


def _kvm() -> Iterator[Fact]:
    for row in exits.EXITS:
        arch = f" (of {row.arch})" if row.arch else ""
        where = f'<{exits.HEADER}>{_since(row.since)}; Documentation/virt/kvm/api.rst, "The kvm_run structure"'
        yield Fact("exit", row.kernel_name, f"{row.meaning.rstrip('.')}{arch}", row.number, where=where)
    for cap in caps.CAPS:
        enable = f"; KVM_ENABLE_CAP of the {'VM' if cap.enable == 'vm' else 'vCPU'} takes it" if cap.enable else ""
        where = f"<{caps.HEADER}>{_since(cap.since)}; Documentation/virt/kvm/api.rst"
        yield Fact("capability", cap.kernel_name, f"{cap.what}{enable}", cap.number, where=where)
    tables: tuple[tuple[Named, ...], ...] = (exits.ENUMERATIONS, *flags.TABLES, pv.RETURNS, pv.CONSTANTS)
    for table in tables:
        for named in table:
            where = f"<{named.header}>{_since(named.since)}" if named.header else source("pv")
            yield Fact("flag", named.name, named.meaning, named.value, where=where)
    for quirk in quirks.QUIRKS:
        yield Fact("quirk", quirk.name, quirk.meaning, quirk.value, where=f"<{quirks.HEADER}>{_since(quirk.since)}")
    for vendor, rows in (("VMX", [*vmx.EXITS, *vmx.ERRORS]), ("SVM", [*svm.EXITS])):
        where = source(vendor.lower())
        for named in rows:
            yield Fact(
                "vmexit", named.name, f"{vendor}: {named.meaning}", named.value, where=where, also=_manual(named.name)
            )
    for term in terms.TERMS:
        yield Fact("term", term.name, term.meaning, where=source("terms"), also=term.also)


def _manual(name: str) -> tuple[str, ...]:
    """What the maker's manual calls an exit reason: VMEXIT_NPF; of VMX, the words `EPT violation`."""
    if name.startswith("SVM_EXIT_"):
        return (name.replace("SVM_EXIT_", "VMEXIT_"),)
    said = name.removeprefix("EXIT_REASON_")
    return (said,) if said != name and "_" in said else ()


def _machine() -> Iterator[Fact]:
    for port in port_map.PORTS:
        boards = "every board" if port.boards == port_map.ALL else f"board {' and '.join(port.boards)}"
        meaning = f"{port.what}; {boards}"
        also = (port.asm,) if port.asm else ()
        yield Fact("port", port.name, meaning, port.first, port.last, where=source("pc"), also=also)
    where = "vmm/machine/memory/layout.py; `pyvmm map` draws it"
    for region in layout.MAP:
        asm = (f"{region.name.upper()}_BASE",)
        yield Fact("region", region.name, region.what, region.base, region.end - 1, where=where, also=asm)
    for part in layout.CPU_BLOCK:
        meaning = f"{part.what}; at this offset in the block of each vCPU"
        asm = (f"CPU_{part.name.upper().removeprefix('CPU_')}_OFFSET",)
        yield Fact("region", part.name, meaning, part.base, part.end - 1, where=where, inside="cpus", also=asm)


def _cpu() -> Iterator[Fact]:
    spelled: dict[str, list[str]] = {}
    for other, name in ALIASES.items():
        spelled.setdefault(name, []).append(other)
    where = source("cpuid_bits")
    for bit in cpuid.features().values():
        if bit.is_kvm:
            continue  # a feature of KVM's has more to it
        about = f" ({cpuid_leaves.LEAVES[bit.leaf]})" if bit.leaf in cpuid_leaves.LEAVES else ""
        index = f", sub-leaf {bit.index}" if bit.index else ""
        meaning = f"bit {bit.bit} of {bit.register.upper()} in CPUID leaf {bit.leaf:#x}{index}{about}"
        yield Fact("cpuid", bit.name, meaning, None, where=where, also=tuple(spelled.get(bit.name, ())))
    for leaf, what in cpuid_leaves.LEAVES.items():
        yield Fact("leaf", f"CPUID {leaf:#x}", what, leaf, where=source("cpuid_leaves"))
    for row in x86.EXCEPTIONS:
        code = "with an error code" if row.error_code else "without an error code"
        yield Fact("exception", f"#{row.mnemonic}", f"{row.name}, vector {row.vector}, {code}", row.vector,
                   where=source("x86"), also=(row.mnemonic, f"{row.mnemonic}_VECTOR"))  # fmt: skip
    for register in apic.REGISTERS:
        msr = f"; in x2APIC mode MSR {register.msr:#x}" if register.msr is not None else "; none in x2APIC mode"
        meaning = f"local APIC: {register.what}, at {apic.DEFAULT_BASE:#x}+{register.offset:#x}{msr}"
        yield Fact("register", f"APIC_{register.name}", meaning, register.offset, where=source("apic"), inside="lapic")
    for flags_of in (x86.CR0, x86.CR4, x86.EFER, x86.RFLAGS, x86.PTE, x86.PF):
        prefix = {"EFER": "EFER_", "PTE": "_PAGE_", "PF": "X86_PF_", "RFLAGS": "X86_EFLAGS_"}
        for mask, name in x86.flag_rows(flags_of):
            title = prefix.get(flags_of.__name__, f"X86_{flags_of.__name__}_")
            meaning = f"bit {mask.bit_length() - 1} of {_words(flags_of)}" if mask & mask - 1 == 0 else _words(flags_of)
            yield Fact("register", f"{title}{name}", meaning, mask, where=source("x86"), inside=flags_of.__name__)


def _words(flags_of: type) -> str:
    first = inspect.cleandoc(flags_of.__doc__ or "").partition("\n")[0].rstrip(".")
    return f"{flags_of.__name__}: {first}" if first else flags_of.__name__


def _structures() -> Iterator[Fact]:
    for module in STRUCTURES:
        where = source(module)
        for struct in _structs_of(import_module(f"vmm.abi.{module}")):
            meaning = f"{struct.size} bytes, {len(struct.fields)} fields"
            yield Fact(
                "structure", struct.name, meaning, None, where=where, struct=struct, also=(f"struct {struct.name}",)
            )
            for field in struct.fields:
                what = f"{field.what}; " if field.what else ""
                yield Fact(
                    "field", f"{struct.name}.{field.name}",
                    f"{what}{field.size} {'byte' if field.size == 1 else 'bytes'} at offset {field.offset:#x}",
                    field.offset, where=where, inside=struct.name, also=(f"{struct.asm}_{field.name}",),
                )  # fmt: skip
    for row in vmx.FIELDS:
        yield Fact("field", f"VMCS.{row.name}", row.what or "a field of the VMCS, by its encoding", row.value,
                   where=source("vmx"), inside="VMCS", also=(row.name,))  # fmt: skip


def _structs_of(module: ModuleType) -> Iterable[Struct]:
    found = []
    for value in vars(module).values():
        each = value if isinstance(value, tuple) and not isinstance(value, Struct) else (value,)
        found += [one for one in each if isinstance(one, Struct)]
    return dict.fromkeys(found)


def _numbers() -> Iterator[Fact]:
    """Plain numbers of a module, with the comments that say what they are."""
    for kind, modules in MODULES.items():
        for name in modules:
            module = import_module(f"vmm.abi.{name}")
            title = inspect.cleandoc(module.__doc__ or "").partition("\n")[0].rstrip(".")
            for constant, said in comments(module):
                value = getattr(module, constant, None)
                asm = constant if constant in constants() else f"{name.upper()}_{constant}"
                if asm not in constants():
                    if kind == "constant":
                        continue  # a name for pyvmm's own text
                    asm = constant
                if isinstance(value, int) and not isinstance(value, bool):
                    yield Fact(kind, asm, said or title, value, where=source(name))


def comments(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(name, what is said) of each number that a line of the module defines: the comment behind it, or that above."""
    try:
        lines = inspect.getsource(module).splitlines()
    except OSError:
        return  # installed without sources: the names are there all the same
    above = ""
    for line in lines:
        if line.startswith("# "):
            above = f"{above} {line[2:]}".strip()
        elif not line:
            above = ""
        elif match := _NUMBER.match(line):
            yield match[1], (match[2] or above).rstrip(".")


def _rest(known: set[str]) -> Iterator[Fact]:
    """Constants of assembly text that no other row stands for by that very name."""
    for name, value in constants().items():
        if name not in known:
            yield Fact("constant", name, _derived(name) or "a name of the tables", value, where="vmm/abi")


def _derived(name: str) -> str:
    """What a name is by its end, where that says it."""
    feature, _, end = name.rpartition("_")
    if end == "MASK" and feature in constants():
        return f"1 << {feature}"
    if end == "SIZE" and feature.lower() in layout.REGIONS:
        return f"bytes of region {feature.lower()}"
    if name.startswith("X2APIC_"):
        return f"APIC_{name.removeprefix('X2APIC_')} as an MSR, in x2APIC mode"
    if row := pv.find(name) if name.startswith("KVM_") else None:
        return f"{row.kernel_name}: {row.meaning}"
    return f"bytes of a structure {feature}" if end == "SIZE" else ""


def short(name: str) -> str:
    """The name as somebody says it: without the prefix of its kind, small letters, `_` between."""
    for prefix in SHORT:
        if name.startswith(prefix) and len(name) > len(prefix):
            name = name[len(prefix) :]
            break
    return fold(name)


def fold(word: str) -> str:
    """Small letters, and one sign between words."""
    return re.sub(r"[\s_\-]+", "_", word.strip().lower()).strip("_")


def registers() -> Iterator[Fact]:
    """The MSRs that are not KVM's own: those are topics of vmm.report.explain."""
    other: dict[str, list[str]] = {}
    for alias, name in msrs.ALIASES.items():
        other.setdefault(name, []).append(alias)
    for row in msrs.MSRS:
        if row not in msrs.KVM_MSRS:
            yield Fact("msr", row.name, row.what, row.number, where=source("msrs"), also=tuple(other.get(row.name, ())))
