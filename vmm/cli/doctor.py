# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm doctor`: can KVM be used here, and what does it do? It decides the exit status; what is said is the report's.

It must work where nothing else does: without /dev/kvm, without permission, without the extension built. The JSON
document is described in vmm/report/doctor.py.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TextIO

from vmm.errors import EXIT_HOST, EXIT_PASS, VmmError
from vmm.host.unusable import NotBuilt, why_unusable

if TYPE_CHECKING:
    from vmm.host.measured import HostFacts

NAME = "doctor"
HELP = "is KVM usable here, why not, and what does it do: measured by running guests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.add_argument("--all", action="store_true", help="all that was found, every capability and feature (text)")
    parser.add_argument(
        "--ci",
        action="store_true",
        help="where KVM is not usable: an annotation and status 77, or 99 if it is required",
    )
    parser.add_argument("--device", metavar="PATH", default="/dev/kvm", help="device node (default: %(default)s)")
    parser.epilog = (
        "exit status: 0 usable, 99 not usable; with --ci 77 (skipped, as automake has it), unless PYVMM_REQUIRE_KVM=1"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Write what was found to `out`. The exit status: 0 if KVM is usable, else 99 (with --ci see vmm.cli.ci)."""
    from vmm.report import doctor as report

    unusable = None
    try:
        facts = _measure(args.device)
        doc = report.document(facts)
    except VmmError as error:
        unusable = why_unusable(error, args.device)
        doc = report.unusable_document(unusable)
    if args.json:
        import json

        out.write(json.dumps(doc, indent=2) + "\n")
    else:
        out.write(report.text(doc, everything=args.all))
    if unusable is None:
        return EXIT_PASS
    if args.ci:
        from vmm.cli.ci import cannot_use

        out.flush()
        return cannot_use(unusable)
    return EXIT_HOST


def _measure(device: str) -> HostFacts:
    try:
        from vmm.host.measured import measure
        from vmm.kvm.system import Kvm
    except ImportError as error:
        if error.name != "vmm.kvm._kvm":
            raise
        raise NotBuilt(
            "pyvmm's C binding (vmm.kvm._kvm) has not been built", hint="`make`, or `python cffi_build.py`"
        ) from error
    with Kvm.open(device) as kvm:
        return measure(kvm)
