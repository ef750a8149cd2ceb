# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics on this host, as a topic and behind `pyvmm run --stats`."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from guest_payloads.api import statistics
from vmm.cli import main
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

PAYLOAD = find("statistics")


def test_works() -> None:
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.WORKS, row.finding


def test_figures_that_stand_still_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had risen: what is read before is what is read after."""
    monkeypatch.setattr(statistics, "snapshot", lambda stats: {})
    (row,) = prove(PAYLOAD)
    assert row.verdict is Verdict.BROKEN


def test_run_stats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--stats", "--no-color"]) == 0
    shown = capsys.readouterr().out
    assert "statistics of VM" in shown
    assert "statistics of vCPU 0" in shown
    assert "exits" in shown.split("statistics of vCPU 0")[1]
    assert main(["run", "hello", "--no-color"]) == 0
    assert "statistics" not in capsys.readouterr().out


def test_run_stats_json(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((resources.files("vmm.report") / "schemas" / "run.schema.json").read_text())
    for name in ("smp", "poll_control"):
        assert main(["run", name, "--stats", "--json"]) in (0, 77)
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema)
        assert {row["of"] for row in document["stats"]} >= {"VM", "vCPU 0"}
    assert main(["run", "hello", "--json"]) == 0
    assert "stats" not in json.loads(capsys.readouterr().out)


def test_run_stats_beside_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--stats", "--trace", "--no-color"]) == 0
    shown = capsys.readouterr().out
    assert "statistics of vCPU 0" in shown
    assert "0xe9" in shown
