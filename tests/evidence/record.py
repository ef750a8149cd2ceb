# SPDX-License-Identifier: GPL-2.0-or-later
"""Record what the host halves judge: `python tests/evidence/record.py FILE.json [PAYLOAD...]`, on the host it is of.

For each proof of a paravirtual feature: the arguments of its `judge` as Python text, and the verdict that came of them.
The files beside this one are what it wrote on hosts with VMX and SVM; tests/unit/test_evidence.py judges them again.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmm.host import measured as host
from vmm.kvm.system import Kvm
from vmm.payload.catalog import find
from vmm.payload.proof.prove import proofs, prove
from vmm.payload.proof.verdict import Finding
from vmm.report.probe import host as host_document


def noting(judge: Callable[..., Any], notes: list[dict[str, Any]]) -> Callable[..., Any]:
    """The same judge, which writes down what it was asked and what it said."""

    def asked(*arguments: Any) -> Any:
        found = judge(*arguments)
        each = {"": found} if isinstance(found, Finding) else found
        notes.append(
            {
                "judged": [repr(argument) for argument in arguments],
                "verdicts": {name: str(finding.verdict) for name, finding in each.items()},
            }
        )
        return found

    return asked


def main(file: str, *names: str) -> int:
    with Kvm.open() as kvm:
        facts = host_document(host.measure(kvm))
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names or sorted({payload.name for payload in proofs().values()}):
        payload = find(name)
        module: Any = importlib.import_module(f"guest_payloads.{payload.group}.{name}")
        notes: list[dict[str, Any]] = []
        module.judge = noting(module.judge, notes)
        rows = prove(payload, refusals=False)
        found[name] = notes
        sys.stdout.write(", ".join([name, *(f"{row.name} {row.verdict}" for row in rows)]) + "\n")
    kept = {key: facts[key] for key in ("kernel", "backend", "ring0", "hypercall", "clocksource", "cpus")}
    Path(file).write_text(json.dumps({"host": kept, "proofs": found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
