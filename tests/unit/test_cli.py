# SPDX-License-Identifier: GPL-2.0-or-later
"""The command without a device: words in, one clear line or the answer out, and the exit status."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from vmm import report
from vmm.base.version import _installed
from vmm.cli import arguments, main
from vmm.cli import run as run_module
from vmm.cli.arguments import COMMANDS
from vmm.cli.run import Console, options_of, plain
from vmm.errors import HostError, UsageError
from vmm.payload.catalog import shipped
from vmm.payload.options import Options

ROOT = Path(__file__).resolve().parents[2]
LIST_SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "list.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """`main(words)`: (status, standard output, standard error)."""

    def called(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return called


# The frame ---------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^ +{name}(?: |$)", out, re.M)
    for status in ("0 pass", "1 the guest", "2 usage", "77 ", "99 ", "124 ", "130 "):
        assert status in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(importlib.import_module(f"vmm.cli.{name}").run)
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: pyvmm {name} ")


@pytest.mark.parametrize(
    ("setting", "terminal", "width"),
    [
        ("100", None, 100),
        ("7", None, 40),
        ("wide", None, 80),
        ("", None, 80),
        ("", 132, 132),
        ("", 0, 40),
        ("90", 99, 90),
    ],
)
def test_help_is_as_wide_as_the_terminal(
    setting: str, terminal: int | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(*_: int) -> os.terminal_size:
        if terminal is None:
            raise OSError(errno.ENOTTY, "not a terminal")
        return os.terminal_size((terminal, 24))

    monkeypatch.setenv("COLUMNS", setting)
    monkeypatch.setattr(os, "get_terminal_size", size)
    assert arguments.columns() == width
    usage = arguments.parser("run").format_help().partition("\n\n")[0]
    assert max(map(len, usage.splitlines())) <= width


def test_no_command_is_help_and_usage(call: Any) -> None:
    status, out, err = call()
    assert (status, out.startswith("usage: pyvmm"), err) == (2, True, "")


def test_twice_in_one_process(call: Any) -> None:
    assert call("list") == call("list")


def test_version(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = call("--version")
    assert (status, err) == (0, "")
    assert re.match(r"pyvmm (\d+\.\d+.*|\(not installed\))\n", out)
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    _installed.cache_clear()
    assert call("--version")[1].startswith("pyvmm (not installed)\n")
    assert re.search(r"^  keystone +not installed$", call("--version")[1], re.M)


def test_version_names_what_pyvmm_stands_on(call: Any, follows: Any) -> None:
    """By whoever else knows it: pip's metadata, the kernel, the header of the machine that built."""
    from importlib import metadata

    told = follows("version", call("--version", "--json")[1])
    text = call("--version")[1]
    for name, package in (("cffi", "cffi"), ("keystone", "keystone-engine"), ("capstone", "capstone")):
        assert told[name] == metadata.version(package)
    assert told["kernel"] == os.uname().release
    assert told["python"].split()[-1] == sys.version.split()[0]
    header = Path("/usr/include/linux/version.h")
    code = re.search(r"LINUX_VERSION_CODE (\d+)", header.read_text(encoding="utf-8")) if header.exists() else None
    if code:
        assert told["kernel_header"] == ".".join(map(str, int(code[1]).to_bytes(3, "big")))
    for name, value in told.items():
        assert name == "schema" or f"{value}" in text, name


def test_json_without_a_command_is_refused(call: Any) -> None:
    """`pyvmm --json list` would print text: the option belongs to the command."""
    status, out, err = call("--json", "list")
    assert (status, out) == (2, "")
    assert "pyvmm COMMAND --json" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "hello"], "no command is called 'rnu'; did you mean run?\n  try: `pyvmm --help`"),
        (["doctor", "--nonsense"], "unrecognized arguments: --nonsense\n  try: `pyvmm doctor --help`"),
        (["--nonsense"], "unrecognized arguments: --nonsense\n  try: `pyvmm --help`"),
        (["run"], "the following arguments are required: PAYLOAD\n  try: `pyvmm run --help`"),
        (["run", "hello", "--cpus", "abc"], "--cpus 'abc': give a whole number\n  try: `pyvmm run --help`"),
        (["run", "hello", "--cpus", "0"], "--cpus 0: give at least 1"),
        (["run", "hello", "--cpus", "-1"], "--cpus -1: give at least 1"),
        (["run", "hello", "--exit-limit", "0"], "--exit-limit 0: give at least 1"),
        (["run", "hello", "--output-limit", "much"], "'much' is not a size"),
        (["run", "hello", "--timeout", "0"], "a time limit of 0 s"),
        (["run", "hello", "--timeout", "-1"], "a time limit of -1 s"),
        (["run", "hello", "--timeout", "nan"], "a time limit of nan s"),
        (["run", "hello", "--timeout", "inf"], "a time limit of inf s"),
        (["run", "hello", "--timeout", "soon"], "--timeout 'soon': give a number"),
        (["run", "hello", "--param", "x"], "--param x: write NAME=NUMBER"),
        (["run", "hello", "world"], "unrecognized arguments: world"),
        (["run", "/"], "/ is a directory"),
        (["run", "helo"], "no payload is called 'helo'; did you mean hello?"),
        (["disasm", "helo"], "no payload is called 'helo'; did you mean hello?"),
        (["disasm", "hello", "--bits", "8"], "argument --bits: invalid choice: 8"),
        (["list", "more"], "unrecognized arguments: more"),
    ],
)
def test_bad_usage_is_one_message_and_status_2(words: list[str], said: str, call: Any) -> None:
    status, out, err = call(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"pyvmm: {said}")
    assert len(err.splitlines()) <= 2


def test_arguments_become_options() -> None:
    words = ["run", "x", "--cpus", "3", "--memory", "4M", "--timeout", "2", "--exit-limit", "9", "--output-limit", "1K",
             "--mask", "a", "--mask", "b", "--expose", "c", "--param", "n=0x10", "--param", "m=1",
             "--strict"]  # fmt: skip
    assert options_of(arguments.parser("run").parse_args(words)) == Options(
        cpus=3, memory="4M", timeout=2.0, mask=("a", "b"), expose=("c",), params={"n": 16, "m": 1}, strict=True,
        output_limit=1024, exit_limit=9,
    )  # fmt: skip
    assert options_of(arguments.parser("run").parse_args(["run", "x"])) == Options()


def test_without_options_there_is_no_parser_and_no_difference() -> None:
    parsed = vars(arguments.parser("run").parse_args(["run", "hello"]))
    for name in ("command", "version", "version_json"):  # of the parser above it
        del parsed[name]
    assert vars(plain("hello")) == parsed


# What can go wrong below -------------------------------------------------------------------------------------------


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: Any, out: Any) -> int:
        print("so far", file=out)
        raise error

    monkeypatch.setattr(run_module, "run", run)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (HostError("no KVM", "a host"), 99, "no KVM\n  try: a host\n"),
        (UsageError("odd \x1b[2J\u202e"), 2, "odd \\x1b[2J\\x202e\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError(), 99, "the host is out of memory\n  try: a smaller --memory\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            99,
            "writing the output: No space left on device (ENOSPC)\n",
        ),
        (OSError(errno.EACCES, "Permission denied", "/x"), 99, "/x: Permission denied (EACCES)\n"),
        (OSError(errno.EAGAIN, "Try again"), 99, "Try again (EAGAIN)\n"),
        (OSError("odd"), 99, "odd\n"),
        (ImportError("no", name="vmm.kvm._kvm"), 99, "pyvmm's C binding has not been built\n  try: `make`"),
    ],
)
def test_an_error_is_one_message_after_the_output(
    error: BaseException, status: int, said: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    got, out, err = call("run", "hello")
    assert (got, out) == (status, "so far\n")
    assert err.startswith(f"pyvmm: {said}")


@pytest.mark.parametrize("error", [ImportError("no", name="elsewhere"), RuntimeError("a mistake of ours")])
def test_a_mistake_of_ours_is_not_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(error, monkeypatch)
    with pytest.raises(type(error)):
        main(["run", "hello"])


class Gone(io.StringIO):
    """A pipe without a reader, over a descriptor that may be replaced."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("sandboxed", [False, True])
def test_a_reader_that_went_away(
    sandboxed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a process that has given up opening files."""
    opened = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if sandboxed and path == os.devnull:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", Gone(write))
    try:
        assert main(["list"]) == 141
        assert os.write(write, b"to nowhere") == 10, "nothing is left to fail when the interpreter ends"
        failing(HostError("and an error"), monkeypatch)
        assert main(["helo"]) == 2
    finally:
        os.close(write)
    assert capsys.readouterr().err.startswith("pyvmm: no command is called 'helo'")


def test_closed_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list"]) == 99
    assert capsys.readouterr().err.startswith("pyvmm: standard output is closed\n  try: ")
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["list"]) == 99


def test_what_the_cache_says_is_said_once(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmm.asm import cache

    monkeypatch.setattr(cache, "notice", "the cache cannot be written")
    assert call("list")[2] == "pyvmm: the cache cannot be written\n"
    assert call("list")[2] == ""


@pytest.mark.parametrize("words", ["['list']", "['run', 'hello']", "['disasm', 'hello']"])
def test_without_the_binding(words: str) -> None:
    program = f"import sys; sys.modules['vmm.kvm._kvm'] = None; from vmm.cli import main; sys.exit(main({words}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (99, "")
    assert done.stderr == "pyvmm: pyvmm's C binding has not been built\n  try: `make`, or `python cffi_build.py`\n"


def test_python_m_vmm() -> None:
    ended = subprocess.run([sys.executable, "-m", "vmm", "list"], capture_output=True, text=True, check=True)
    assert "hello" in ended.stdout


# list and disasm ---------------------------------------------------------------------------------------------------


def test_list_shows_every_payload(call: Any) -> None:
    status, out, err = call("list")
    assert (status, err) == (0, "")
    assert re.findall(r"^  (\S+)  ", out, re.M) == list(shipped())
    assert re.findall(r"^(\w+)/$", out, re.M) == list(dict.fromkeys(path.parent.name for path in shipped().values()))


def test_list_as_json(call: Any) -> None:
    status, out, err = call("list", "--json")
    assert (status, err) == (0, "")
    made = json.loads(out)
    jsonschema.validate(made, LIST_SCHEMA, cls=jsonschema.Draft202012Validator)
    row = LIST_SCHEMA["properties"]["payloads"]["items"]
    assert all(set(each) == set(row["properties"]) == set(row["required"]) for each in made["payloads"])
    by_name = {each["name"]: each for each in made["payloads"]}
    assert list(by_name) == list(shipped())
    assert by_name["smp"]["params"]["rounds"]["default"] == 1000
    assert by_name["hlt"]["results"] == {
        "reached": {"type": "u64", "what": "1: the instruction before HLT was executed"}
    }
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "payloads": [{}]}, LIST_SCHEMA, cls=jsonschema.Draft202012Validator)


def test_disasm_of_a_payload_is_its_listing(call: Any) -> None:
    status, out, err = call("disasm", "hello")
    assert (status, err) == (0, "")
    assert "start:" in out
    assert "48 8d 35" in out
    assert not out.endswith("\n\n")


@pytest.mark.parametrize(("bits", "text"), [("64", "rax"), ("32", "eax"), ("16", "ax")])
def test_disasm_of_raw_code(bits: str, text: str, call: Any, tmp_path: Path) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(b"\x48\x89\xd8\xf4")
    status, out, err = call("disasm", str(path), "--bits", bits)
    assert (status, err) == (0, "")
    assert " 0x20000  " in out
    assert text in out
    assert "hlt" in out


def test_disasm_as_a_document(call: Any, tmp_path: Path, follows: Any) -> None:
    """Every byte of the code once, at its address, with what it was made of; the text has the same rows."""
    code = tmp_path / "code.bin"
    code.write_bytes(b"\x48\x89\xd8\xf4")
    own = tmp_path / "own.asm"
    own.write_text('start:\n    hlt\nwords: .asciz "\u202e"\n', encoding="utf-8")
    for words, source in (
        (["hello"], "assembly"),
        (["ring3"], "assembly"),
        ([str(own)], "assembly"),
        ([str(code)], "none"),
        ([str(code), "--bits", "16"], "none"),
    ):
        status, out, err = call("disasm", *words, "--json")
        assert (status, err) == (0, "")
        doc = follows("disasm", out)
        assert doc["source"] == source
        at = doc["base"]
        for row in doc["rows"]:
            assert row["address"] == at
            at += len(bytes.fromhex(row["bytes"]))
        assert at == doc["base"] + doc["size"]
        text = call("disasm", *words)[1]
        assert all(f"{row['address']:x}" in text and row["bytes"][:5] in text for row in doc["rows"])
    assert [row["text"] for row in doc["rows"]] == ["dec ax", "mov ax, bx", "hlt"]
    doc = follows("disasm", call("disasm", str(own), "--json")[1])
    assert (doc["name"], doc["entry"], doc["symbols"]) == ("own", 0x20000, {"start": 0x20000, "words": 0x20001})
    assert [(each["file"], each["line"], each["bytes"]) for each in doc["rows"]] == [
        (str(own), 2, "f4"), (str(own), 3, "e2 80 ae 00")
    ]  # fmt: skip
    doc = follows("disasm", call("disasm", "hello", "--json")[1])
    assert any(each["source"].startswith("PASS") for each in doc["rows"])


def test_disasm_shows_no_control_characters(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "evil.asm"
    path.write_text('start: hlt\n .asciz "\u202e"\n', encoding="utf-8")
    status, out, _ = call("disasm", str(path))
    assert status == 0
    assert "\u202e" not in out


# The console -------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_console_passes_bytes_on_as_text_and_ends_its_line() -> None:
    out = io.StringIO()
    console = Console(out)
    for piece in (b"", b"a\n", b"\xc3", b"\xa9\xff\x1b"):
        console.write(piece)
    console.end()
    assert out.getvalue() == "a\né\ufffd\x1b\n"


def test_console_that_ended_its_line_gets_no_other() -> None:
    out = io.StringIO()
    console = Console(out)
    console.end()
    console.write(b"line\n")
    console.end()
    assert out.getvalue() == "line\n"


def test_console_on_a_terminal_shows_controls() -> None:
    out = Terminal()
    console = Console(out)
    console.write(b"\x1b[2J\ttext\r\n")
    console.end()
    assert out.getvalue() == "\\x1b[2J\ttext\\x0d\n"


def test_colour_needs_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    args = SimpleNamespace(no_color=False)
    assert run_module.style_for(args, Terminal()).colour
    assert not run_module.style_for(args, io.StringIO()).colour
    assert not run_module.style_for(SimpleNamespace(no_color=True), Terminal()).colour
    monkeypatch.setenv("NO_COLOR", "")
    assert not run_module.style_for(args, Terminal()).colour
