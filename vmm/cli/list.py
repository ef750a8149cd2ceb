# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm list`: the shipped payloads with their summaries and needs."""

from __future__ import annotations

import argparse
from typing import Any, TextIO

from vmm.payload.catalog import Payload, find, shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the list as one JSON document (schema 1)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    payloads = [find(name) for name in shipped()]
    if args.json:
        import json

        print(json.dumps({"schema": 1, "payloads": [row(each) for each in payloads]}, indent=2), file=out)
        return 0
    width = max((len(each.name) for each in payloads), default=0)
    group = ""
    for payload in payloads:
        if payload.group != group:
            group = payload.group
            print(f"{group}/", file=out)
        print(f"  {payload.name.ljust(width)}  {payload.header.summary}", file=out)
    print("\npyvmm run NAME runs one, pyvmm disasm NAME shows its code", file=out)
    return 0


def row(payload: Payload) -> dict[str, Any]:
    """What its header says, as vmm/report/schemas/list.schema.json has it."""
    header = payload.header
    return {
        "name": payload.name,
        "group": payload.group,
        "summary": header.summary,
        "capabilities": list(header.capabilities),
        "features": list(header.features),
        "cpus": header.cpus,
        "irqchip": header.irqchip,
        "params": {each.name: {"default": each.default, "what": each.what} for each in header.params.values()},
        "results": {each.name: {"type": each.kind, "what": each.what} for each in header.results.values()},
    }
