# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm help X`: a command's help, a payload's header as a person reads it, a topic, or what was meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vmm import cli
from vmm.cli.arguments import COMMANDS
from vmm.payload.catalog import find, shipped


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["help", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_of_a_command_it_is_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(command, capsys=capsys)
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert text.startswith(capsys.readouterr().out)


def test_alone_it_is_the_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys=capsys)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert text == capsys.readouterr().out


@pytest.mark.parametrize("columns", ["1", "40", "300"])
def test_of_every_payload_it_has_the_header(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for name in shipped() if columns == "300" else ("steal_time", "hello"):
        if name in COMMANDS:
            continue
        text, header = said(name, capsys=capsys), find(name).header
        assert text.startswith(f"{name} ({find(name).group}): {header.summary}")
        for each in (*header.params, *header.results, *header.proves, *header.features):
            assert each in text
        assert f"pyvmm run {name}" in text


def test_of_anything_else_it_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("KVM_EXIT_IO", capsys=capsys).startswith("KVM_EXIT_IO: exit 2")
    assert said("port", "0x60", capsys=capsys).startswith("8042 data: port 0x60")


def test_each_kind_as_a_document(capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]) -> None:
    """Its schema, and one key for its kind: nothing said, a command, a payload, a topic, several topics."""

    def document(*words: str) -> Any:
        doc = follows("help", said("--json", *words, capsys=capsys))
        assert set(doc) == {"schema", "kind", doc["kind"]}
        return doc[doc["kind"]]

    assert {each["name"]: each["help"] for each in document()} == COMMANDS
    for command in ("run", "disasm", "kut"):
        about = document(command)
        assert about["name"] == command
        names = {name for each in about["arguments"] for name in each["names"]}
        assert {"-h", "--help"} <= names
        assert not [each["help"] for each in about["arguments"] if "%(" in each["help"]]
    (path,) = (each for each in document("disasm")["arguments"] if each["takes"] == "PAYLOAD")
    assert path["names"] == []
    (bits,) = (each for each in document("disasm")["arguments"] if "--bits" in each["names"])
    assert bits["choices"] == ["16", "32", "64"]
    assert document("hello")["name"] == "hello"
    assert document("steal_time")["proves"] == ["STEAL_TIME"]
    assert "preempted" in document("steal_time")["shown"]
    assert follows("explain", document("KVM_EXIT_IO"))["value"] == 2
    assert len(follows("explain", {"schema": 1, "topics": document("0x60")})["topics"]) > 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["rnu"], "did you mean run"),
        (["helo"], "did you mean hello"),
        (["nope"], "`pyvmm help` lists the commands, `pyvmm list` the payloads, `pyvmm explain --list` the topics"),
        (["KVM_EXIT_MIMO"], "did you mean KVM_EXIT_MMIO"),
        (["\x1b[2J"], "no command, payload or topic is called"),
        (["x" * 9999], "9999 characters"),
        (["é"], "no command, payload or topic is called 'é'"),
    ],
)
def test_a_mistake_has_what_may_be_meant(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert meant in err
    assert "\x1b" not in err
