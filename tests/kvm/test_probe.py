# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole of `probe`, `cpuid` and `run` on the device: in time, with the right exit status, every document valid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

import vmm.report
from vmm.abi import pv
from vmm.kvm.system import Kvm

SCHEMAS = Path(vmm.report.__file__).parent / "schemas"
BOUND = 60.0  # seconds for all proofs and refusals on a loaded machine; about five on an idle one


def pyvmm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)


def follows(name: str, text: str) -> Any:
    document = json.loads(text)
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    return document


def test_the_whole_table(tmp_path: Path) -> None:
    done = pyvmm("probe", "--json", "--junit", str(tmp_path / "out.xml"))
    doc = follows("probe", done.stdout)
    assert doc["errors"] == 0, [each["error"] for each in doc["features"] if each["error"]]
    assert doc["broken"] == 0, [(each["name"], each["reason"]) for each in doc["features"] if each["outcome"] == "fail"]
    assert (done.returncode, done.stderr) == (0, "")
    names = [each["name"] for each in doc["features"]]
    assert {row.name for row in pv.FEATURES} <= set(names)
    assert len(names) == len(set(names))
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()[0]
    assert [case.get("name") for case in suite.findall("testcase")] == names


def test_offered_is_what_kvm_offers() -> None:
    doc = follows("probe", pyvmm("probe", "--json", "--no-refusals").stdout)
    with Kvm.open() as kvm:
        leaf = next(entry for entry in kvm.get_supported_cpuid() if entry.function == 0x40000001)
    for each in doc["features"]:
        if each["bit"] is not None:
            value = leaf.edx if each["register"] == "edx" else leaf.eax
            assert each["offered"] == bool(value >> each["bit"] & 1), each["name"]
    assert not any(each["refusals"] for each in doc["features"])


@pytest.mark.parametrize("form", [(), ("--markdown",), ("--tap",), ("-v",)])
def test_every_form_of_one_feature(form: tuple[str, ...]) -> None:
    done = pyvmm("probe", "CLOCKSOURCE2", *form)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CLOCKSOURCE2" in done.stdout.replace("\\", "")


def test_hidden_and_enforced_nothing_gated_works() -> None:
    """Sabotage: what KVM gates must not be proven while it is hidden."""
    gated = [row.name for row in pv.FEATURES if row.gate]
    masks = [word for name in gated for word in ("--mask", name)]
    doc = follows("probe", pyvmm("probe", *gated, "--enforce", "--json", *masks).stdout)
    assert {each["name"] for each in doc["features"]} == set(gated)
    assert [each["name"] for each in doc["features"] if each["verdict"] in ("works", "serviced")] == []


def test_an_interruption_ends_it_soon(uncovered: dict[str, str]) -> None:
    command = [sys.executable, "-m", "vmm", "probe"]
    environment = uncovered | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # the host
        process.stdout.readline()  # the columns' names: proofs begin
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        out, err = process.communicate(timeout=BOUND)
    assert time.monotonic() - begin < BOUND / 4
    if process.returncode == 0:
        pytest.skip("the proofs were done before the signal came")
    assert (process.returncode, err) == (130, "pyvmm: interrupted\n")
    assert "not run" in out


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = [sys.executable, "-m", "vmm", "probe", "CLOCKSOURCE2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("source", [(), ("--guest",), ("--emulated",)])
def test_cpuid(source: tuple[str, ...]) -> None:
    doc = follows("cpuid", pyvmm("cpuid", "--json", *source).stdout)
    text, raw = pyvmm("cpuid", *source), pyvmm("cpuid", "--raw", *source)
    assert text.returncode == raw.returncode == 0
    assert len(raw.stdout.splitlines()) == len(doc["entries"]) + 1
    assert all(f"{each['leaf']:#010x}" in text.stdout for each in doc["entries"])
    missing = pyvmm("cpuid", "--leaf", "0x12345678", *source)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "there is no leaf 0x12345678" in missing.stderr


@pytest.mark.parametrize("name", ["hello", "triple", "cpuid"])
def test_the_outcome_of_a_run_follows_its_schema(name: str) -> None:
    follows("run", pyvmm("run", name, "--json").stdout)


def test_topics_are_a_second_table_and_one_can_be_named() -> None:
    doc = follows("probe", pyvmm("probe", "--api", "--json", "MSI", "irqchip_split", "PV_EOI").stdout)
    assert [each["name"] for each in doc["features"]] == ["PV_EOI"]
    assert [each["name"] for each in doc["topics"]] == [
        "irqchip_split",
        "ioapic_eoi_exit",
        "msi",
    ]
    assert [each["outcome"] for each in doc["topics"]] == ["pass"] * 3
    assert all(each["evidence"] and each["payload"] for each in doc["topics"])
    done = pyvmm("probe", "irqfd")
    assert done.returncode == 2
    assert "pyvmm probe --api irqfd" in done.stderr
