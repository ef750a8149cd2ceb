# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm baseline`: what several documents of `pyvmm probe --json` have in common. It needs no KVM."""

from __future__ import annotations

import argparse
from typing import TextIO

from vmm.cli.comparing import STATES, add_options, read_all, show
from vmm.cli.files import check_outputs
from vmm.cli.pages import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE.json",
        help="output of `pyvmm probe --json`, one of each host; - is standard input",
    )
    add_options(parser, "exit 1 unless every host has these")
    parser.epilog = (
        "exit status: 0, or 1 if a required feature is not in the baseline,\n"
        "             2 usage, or a file that is none of `pyvmm probe --json`\n"
        f"states, best first: {STATES}.\n"
        "in the baseline: usable on every host, its bit offered by KVM on every host, or added by the VMM"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.report import baseline, compare_text

    check_outputs({"--html": args.html}, args.files)
    every = read_all(args.files)
    doc = baseline.baseline([snapshot for snapshot, _ in every], args.require)

    def page() -> str:
        from vmm.report.pages import compared

        named = [(f"{number} {snapshot.file}", each) for number, (snapshot, each) in enumerate(every, 1)]
        return compared.baseline_page(doc, named, command())

    return show(args, doc, compare_text.baseline_text, compare_text.baseline_markdown, out, page)
