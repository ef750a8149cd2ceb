# SPDX-License-Identifier: GPL-2.0-or-later
"""What a probe found as the document of `pyvmm probe --json` (schemas/probe.schema.json). Values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmm.payload.outcome import plain

if TYPE_CHECKING:  # they need the C binding, and reading documents must do without
    from vmm.host.measured import HostFacts
    from vmm.payload.proof.probe import Table

SCHEMA = 1


def document(table: Table) -> dict[str, Any]:
    """Every row, what surrounds them, and how they were made. Fit for JSON whatever a host half put into evidence."""
    found: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "host": host(table.host),
            "options": {
                "mask": table.options.mask,
                "enforce": table.enforce,
                "refusals": table.refusals,
                "strict": table.strict,
            },
            "features": [row.as_json() for row in table.features],
            "topics": [row.as_json() for row in table.topics],
            "counts": table.counts,
            "topic_counts": table.topic_counts,
            "broken": len(table.broken),
            "deviations": len(table.deviations),
            "errors": len(table.errors),
            "interrupted": table.interrupted,
            "not_run": table.missing,
            "elapsed_s": round(table.elapsed, 3),
        }
    )
    return found


def host(facts: HostFacts) -> dict[str, Any]:
    """What tells two hosts apart, one value each; `pyvmm doctor --json` has the whole."""
    from vmm.report.doctor import verdict  # it needs the binding, and who reads documents does without

    setting = facts.setting
    return {
        "text": verdict(facts),
        "kernel": setting.release,
        "machine": setting.machine,
        "api_version": facts.api_version,
        "backend": setting.backend.kind,
        "modules": list(setting.backend.modules),
        "ring0": facts.ring0.kind,
        "hypercall": facts.hypercall.transport,
        "nested": setting.nested.guest,
        "cpus": setting.cpus,
        "clocksource": setting.clocksource,
        "userfaultfd": setting.userfault.kernel_faults,
        "parameters": dict(setting.parameters),
        "pv_features": {"eax": facts.pv.eax, "edx": facts.pv.edx},
    }
