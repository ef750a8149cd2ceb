# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm diff`: what changed between two documents of `pyvmm probe --json`. It needs no KVM."""

from __future__ import annotations

import argparse
from typing import TextIO

from vmm.cli.comparing import STATES, add_options, read_all, show
from vmm.cli.files import check_outputs
from vmm.cli.pages import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "a", metavar="A.json", help="the known good: output of `pyvmm probe --json`; - is standard input"
    )
    parser.add_argument("b", metavar="B.json", help="the one to judge")
    add_options(parser, "gate on these alone: each must be usable in B, and no worse than in A")
    parser.add_argument(
        "--strict", action="store_true", help="a deviation that A does not have is a regression, and not only told"
    )
    parser.epilog = (
        "exit status: 0 no regression, 1 a regression (or a required feature that is not usable),\n"
        "             2 usage, or a file that is none of `pyvmm probe --json`\n"
        f"states, best first: {STATES}.\n"
        "regression:  a step down from a usable state, or any step to broken; with --strict a new deviation too"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.report import compare, compare_text

    check_outputs({"--html": args.html}, [args.a, args.b])
    (a, first), (b, second) = read_all([args.a, args.b])
    doc = compare.diff(a, b, args.require, strict=args.strict)

    def page() -> str:
        from vmm.report.pages import compared

        return compared.diff_page(doc, [("A", first), ("B", second)], command())

    return show(args, doc, compare_text.diff_text, compare_text.diff_markdown, out, page)
