# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes: from how a run ended to a verdict, an exit status and the documented JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm import report
from vmm.errors import EXIT_CANNOT_SHOW, EXIT_FAIL, EXIT_HOST, EXIT_PASS, EXIT_TIMEOUT
from vmm.machine.ends import CRASHES, LIMITS, Result, Stop, Why
from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState
from vmm.payload.outcome import EXIT_CODES, Outcome, plain
from vmm.payload.run import judge

SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "run.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator


def result(why: Why, code: int | None = None) -> Result:
    return Result(Stop(why, "how it ended", code=code), 0, b"", 0.1, {}, {}, 0)


def strict_json(outcome: Outcome) -> dict[str, Any]:
    """Written and read again as a program would, without Python's NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    made: dict[str, Any] = json.loads(json.dumps(outcome.as_json(), allow_nan=False), parse_constant=refuse)
    jsonschema.validate(made, SCHEMA, cls=VALIDATOR)
    return made


def undocumented(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    """Keys that are written and that the schema does not describe, at any depth."""
    for branch in schema.get("oneOf", []):
        if branch.get("type") == "object" and isinstance(value, dict):
            yield from undocumented(value, branch)
    if isinstance(value, list):
        for each in value:
            yield from undocumented(each, schema.get("items", {}))
    if isinstance(value, dict) and "properties" in schema:
        for key, each in value.items():
            if key in schema["properties"]:
                yield from undocumented(each, schema["properties"][key])
            else:
                yield key


POSTMORTEM = PostMortem(
    "the guest took an exception",
    "",
    FaultInfo(14, "#PF", 2, "write to 0x0", 0),
    (
        VcpuState(
            0, 0, 0x20000, "start", "64-bit ring 0", None, {"rax": 2**64 - 1}, {"cr0": 1}, {"cs": "0x8"},
            (CodeLine(0x20000, "0f 0b", "ud2", True), CodeLine(0x20002, "", "", False)), (("a walk",), ()), ("Halt",),
        ),
    ),
    ("a note",),
)  # fmt: skip


# The verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "code", "kind"),
    [
        (Why.EXIT_PORT, 0, "pass"),
        (Why.EXIT_PORT, 1, "fail"),
        (Why.EXIT_PORT, 77, "skip"),
        (Why.EXIT_PORT, 0x42, "fail"),
        (Why.HALT, None, "pass"),
        (Why.STOPPED, None, "pass"),
        (Why.TIME_LIMIT, None, "timeout"),
        (Why.OUTPUT_LIMIT, None, "fail"),
        (Why.EXIT_LIMIT, None, "fail"),
        *((why, None, "fail") for why in sorted(CRASHES)),
    ],
)
def test_judge(why: Why, code: int | None, kind: str) -> None:
    assert judge(result(why, code))[0] == kind


def test_judge_knows_every_end() -> None:
    for why in Why:
        kind, reason = judge(result(why, 0))
        assert kind in EXIT_CODES
        assert reason or why in (Why.EXIT_PORT, Why.DEBUG_EXIT)
        assert kind != "pass" or why not in CRASHES | LIMITS


def test_an_unusual_exit_value_is_shown() -> None:
    assert judge(result(Why.EXIT_PORT, 0x42))[1] == "the guest reports 0x42"


@pytest.mark.parametrize("why", list(Why))
def test_an_end_that_was_not_meant_is_no_pass(why: Why) -> None:
    kind, reason = judge(result(why, 0), Why.SHUTDOWN)
    assert kind != "pass"
    if judge(result(why, 0))[0] == "pass":
        assert "it was meant to end by: shutdown" in reason


def test_an_end_that_was_meant_is_what_it_is() -> None:
    assert judge(result(Why.HALT), Why.HALT)[0] == "pass"
    assert judge(result(Why.SHUTDOWN), Why.SHUTDOWN)[0] == "fail"
    assert judge(result(Why.TIME_LIMIT), Why.TIME_LIMIT)[0] == "timeout"


def test_exit_codes_are_those_of_the_command() -> None:
    assert EXIT_CODES == {
        "pass": EXIT_PASS,
        "fail": EXIT_FAIL,
        "skip": EXIT_CANNOT_SHOW,
        "error": EXIT_HOST,
        "timeout": EXIT_TIMEOUT,
    }
    assert sorted(EXIT_CODES.values()) == [0, 1, 77, 99, 124]
    assert all(Outcome("x", kind).exit_code == code for kind, code in EXIT_CODES.items())


# The document ------------------------------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_document_of_each_outcome(kind: str) -> None:
    made = strict_json(Outcome("x", kind, "why", b"ok\xff", {"a": 2**64 - 1, "b": None}, postmortem=POSTMORTEM))
    assert made["console"] == "ok\ufffd"
    assert made["results"] == {"a": 2**64 - 1, "b": None}
    assert made["postmortem"]["vcpus"][0]["code"][0] == {
        "address": 0x20000, "bytes": "0f 0b", "text": "ud2", "here": True,
    }  # fmt: skip
    assert not list(undocumented(made, SCHEMA))
    assert list(undocumented(made | {"more": 1}, SCHEMA)) == ["more"]
    made["postmortem"]["vcpus"][0]["code"][0]["more"] = 1
    assert list(undocumented(made, SCHEMA)) == ["more"]


@pytest.mark.parametrize(
    "spoiled",
    [{"schema": 2}, {"outcome": "happy"}, {"exit_code": 2}, {"exit_code": 257}, {"results": {"a": "1"}},
     {"console": None}, {"postmortem": {}}, {"exits": {"Halt": "1"}}, {"wall_ms": -1}],
)  # fmt: skip
def test_the_schema_can_fail(spoiled: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(strict_json(Outcome("x", "pass")) | spoiled, SCHEMA, cls=VALIDATOR)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_no_key_may_be_missing(key: str) -> None:
    made = strict_json(Outcome("x", "pass"))
    del made[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, SCHEMA, cls=VALIDATOR)


class Device:
    def __repr__(self) -> str:
        return "a device"


def test_evidence_of_any_kind_becomes_json() -> None:
    kept = {
        1: (1, 2.5),
        "nan": float("nan"),
        "inf": float("inf"),
        "bytes": b"\x01\xff",
        "object": Device(),
        "why": Why.HALT,
        "set": {3},
        "deep": {"list": [{2: bytearray(b"a")}]},
    }
    made = strict_json(Outcome("x", "pass", evidence=kept))
    assert made["evidence"] == {
        "1": [1, 2.5], "nan": "nan", "inf": "inf", "bytes": "01 ff", "object": "a device", "why": "halt", "set": [3],
        "deep": {"list": [{"2": "61"}]},
    }  # fmt: skip


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(), inner) | st.tuples(inner),
    max_leaves=8,
))  # fmt: skip
def test_plain_is_always_json(value: Any) -> None:
    json.dumps(plain(value), allow_nan=False)
