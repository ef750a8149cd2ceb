# SPDX-License-Identifier: GPL-2.0-or-later
"""The documented JSON: every command with --json has a schema, every schema is one, and each goes into the wheel."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vmm import cli
from vmm.cli import arguments
from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState
from vmm.payload.outcome import EXIT_CODES, Outcome

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = sorted((ROOT / "vmm/report/schemas").iterdir())


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_one(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    name = path.name.removesuffix(".schema.json")
    assert schema["title"] == f"pyvmm {name}" + " --json" * (name in arguments.COMMANDS)  # a trace is no command's
    assert "Keys may be added within schema 1" in schema["description"]


def test_every_command_with_json_has_a_schema() -> None:
    names = {path.name.removesuffix(".schema.json") for path in SCHEMAS}
    for command in arguments.COMMANDS:
        (commands,) = (each for each in arguments.parser(command)._actions if isinstance(each.choices, dict))
        options = {word for action in commands.choices[command]._actions for word in action.option_strings}
        assert ("--json" in options) == (command in names), command


def test_the_schemas_are_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    sdist = next(
        line.split()[2:]
        for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
        if line.startswith("recursive-include vmm ")
    )
    for path in SCHEMAS:
        assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
        assert any(fnmatch.fnmatch(path.name, pattern) for pattern in sdist)


def test_list(capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]) -> None:
    assert cli.main(["list", "--json"]) == 0
    doc = follows("list", capsys.readouterr().out)
    assert "hello" in {each["name"] for each in doc["payloads"]}


POSTMORTEM = PostMortem(
    "the guest crashed",
    "",
    FaultInfo(14, "#PF", 2, "write", 0xDEAD),
    (
        VcpuState(
            index=0,
            apic_id=0,
            rip=0x20000,
            where="start",
            mode="64-bit ring 0",
            mp_state=None,
            registers={"rax": 1},
            control={"cr0": 1},
            segments={"cs": "0x0008"},
            code=(CodeLine(0x20000, "f4", "hlt", True),),
            walks=(("a", "b"),),
            last_exits=("HLT",),
        ),
    ),
    ("a note",),
)


@pytest.mark.parametrize("outcome", EXIT_CODES)
@pytest.mark.parametrize("postmortem", [None, POSTMORTEM])
def test_run(follows: Callable[[str, Any], Any], outcome: str, postmortem: PostMortem | None) -> None:
    made = Outcome(
        "x",
        outcome,
        "why",
        b"\xff\x1b",
        {"a": 1, "b": None, "c": -1},
        ("f",),
        {"n": [1], "raw": b"\x00", "nan": float("nan")},
        {"io": 3},
        postmortem=postmortem,
    )
    assert follows("run", made.as_json())["exit_code"] == EXIT_CODES[outcome]
