# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of pyvmm and of what it stands on, as text and as a JSON document (schemas/version.schema.json)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vmm.host.versions import Versions
from vmm.report.columns import aligned

SCHEMA = 1


def document(versions: Versions) -> dict[str, Any]:
    """All of them, as one JSON document."""
    return {"schema": SCHEMA, **asdict(versions)}


def text(versions: Versions) -> str:
    """A first line as other programs' --version has it, then a line each."""
    built = versions.kernel_header
    rows = (
        ("kernel header", f"{built}, which the binding was built with" if built else "none: no binding was built"),
        ("kernel", f"{versions.kernel}, which runs here"),
        ("cffi", versions.cffi or "not installed"),
        ("keystone", versions.keystone or "not installed"),
        ("capstone", versions.capstone or "not installed"),
        ("Python", f"{versions.python}, {versions.libc}" if versions.libc else versions.python),
    )
    return f"pyvmm {versions.pyvmm}\n" + "".join(f"{line}\n" for line in aligned(rows))
