# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm cpuid`: the leaves of KVM or of a guest, raw or decoded, and the meaning of a value from a log."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TextIO

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.abi.cpuid import CpuidEntry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--guest", action="store_true", help="what a guest of pyvmm gets (KVM_GET_CPUID2) instead of what KVM offers"
    )
    what.add_argument("--emulated", action="store_true", help="what KVM emulates on this CPU (KVM_GET_EMULATED_CPUID)")
    what.add_argument(
        "--decode", metavar="VALUE", help="explain a value of KVM's feature leaf, such as 0x01007afb; needs no KVM"
    )
    parser.add_argument(
        "--register", choices=("eax", "edx"), type=str.lower, help="the register that --decode is about (default eax)"
    )
    parser.add_argument("--leaf", metavar="LEAF", help="only this leaf, for example 0x40000001")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="hexadecimal rows, as `cpuid -r` prints them")
    form.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.colour import style_for
    from vmm.report import cpuid

    if args.decode is not None:
        if args.raw or args.leaf is not None:
            raise UsageError("--decode explains one value of KVM's feature leaf; --raw and --leaf say nothing to it")
        doc = cpuid.decode(cpuid.parse_value(args.decode), args.register or "eax")
        _show(args, doc, cpuid.decoded_text(doc, style_for(args, out)), out)
        return 0
    if args.register is not None:
        raise UsageError("--register goes with --decode")
    from vmm.machine.x86.cpuid import CpuidModel

    source = "guest" if args.guest else "emulated" if args.emulated else "supported"
    leaf = None if args.leaf is None else cpuid.parse_value(args.leaf)
    model = CpuidModel(_entries(source))
    found = [entry for entry in model if leaf in (None, entry.function)]
    if leaf is not None and not found:
        there = cpuid.ranges(entry.function for entry in model) or "none, this list is empty"
        raise UsageError(f"there is no leaf {leaf:#x} in this list\n  there are: {there}")
    if args.raw:
        out.write(cpuid.raw(found))
        return 0
    doc = cpuid.document(source, model, leaf)
    _show(args, doc, cpuid.text(doc, style_for(args, out)), out)
    return 0


def _show(args: argparse.Namespace, doc: dict[str, object], text: str, out: TextIO) -> None:
    if args.json:
        import json

        print(json.dumps(doc, indent=2), file=out)
    else:
        out.write(text)


def _entries(source: str) -> list[CpuidEntry]:
    from vmm.kvm.system import Kvm

    if source == "guest":
        from vmm.machine.machine import Machine

        with Machine(irqchip="split") as machine:
            return machine.cpus[0].vcpu.get_cpuid2()
    with Kvm.open() as kvm:
        return kvm.get_supported_cpuid() if source == "supported" else kvm.get_emulated_cpuid()
