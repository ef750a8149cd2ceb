# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm explain`: whatever has a name or a number, from the facts and the lessons that prove them. It needs no KVM."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TextIO

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.report.explain import Topic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic",
        nargs="*",
        metavar="WORD",
        help="a feature (STEAL_TIME; QEMU's and libvirt's names do, too), an MSR by name or number, a hypercall, an "
        "exit (KVM_EXIT_IO), a capability, a CPUID bit, a port (port 0x60), a structure or its field, an address of "
        "the guest's memory (0x7000), a constant of assembly text, map; none lists features, MSRs and hypercalls",
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="KIND",
        help="list everything, or all of a kind: exit, port, structure, ...",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.colour import style_for
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain, explain_find, explain_text

    proven = proofs({})
    style = style_for(args, out)
    word = " ".join(args.topic)
    if args.list is not None:
        if word:
            raise UsageError("--list and a word: one of them", hint="`pyvmm explain --help`")
        every = listed(args.list)
        doc, text = explain.list_document(every), explain_text.listing(every, style, "{kinds}" if not every else "")
    elif not args.topic:
        every = explain.topics(proven)
        doc, text = explain.list_document(every), explain_text.listing(every, style)
    else:
        found = explain_find.candidates(word, proven)
        if len(found) > 1:
            doc, text = explain.list_document(found, word), explain_text.choice(word, found, style)
        else:
            doc = explain.document(found[0], proven)
            text = explain_text.text(doc, style)
    out.write(json.dumps(doc, indent=2) + "\n" if args.json else text)
    return 0


def listed(kind: str) -> list[Topic]:
    """Every topic, or those of a kind. UsageError: there is no such kind."""
    from vmm.base.names import unknown
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain_find
    from vmm.report.explain_facts import KINDS
    from vmm.report.explain_text import HEADINGS

    every = explain_find.every(proofs({}))
    if not kind:
        return every
    kinds = [*HEADINGS, *KINDS]
    wanted = explain_find.WORDS.get(kind.lower(), explain_find.WORDS.get(kind.lower().removesuffix("s"), kind.lower()))
    if wanted not in kinds:
        raise UsageError(unknown("kind", kind, kinds), hint=f"one of {', '.join(kinds)}")
    return [each for each in every if each.kind == wanted]
