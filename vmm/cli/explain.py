# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm explain`: a feature, an MSR or a hypercall, from the facts and the lesson that proves it. It needs no KVM."""

from __future__ import annotations

import argparse
import json
from typing import TextIO


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic",
        nargs="?",
        metavar="FEATURE",
        help="a feature (STEAL_TIME; QEMU's name does, too), an MSR (MSR_KVM_STEAL_TIME, 0x4b564d03), a hypercall "
        "(KVM_HC_SEND_IPI), a constant of assembly text (EXIT_PORT), or map, the guest's memory; "
        "all are listed if none is named",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.colour import style_for
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain, explain_text

    proven = proofs({})
    style = style_for(args, out)
    if args.topic is None:
        every = explain.topics(proven)
        doc, text = explain.list_document(every), explain_text.listing(every, style)
    else:
        doc = explain.document(explain.find(args.topic, proven), proven)
        text = explain_text.text(doc, style)
    out.write(json.dumps(doc, indent=2) + "\n" if args.json else text)
    return 0
