# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces as files: every record survives the way to JSON and back, and what was harmed is found by its line."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.errors import UsageError
from vmm.kvm import exits
from vmm.machine.ends import Resume, Stop, Why
from vmm.observe.codec import decode, encode
from vmm.observe.trace import End, Exited, Made, Note, Record, Run, Stopped, Trace, TraceError, Writer, parse, read

TRACES = Path(__file__).resolve().parents[1] / "traces"
HELLO = TRACES / "hello.jsonl"
u64 = st.integers(0, (1 << 64) - 1)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "int": u64,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=64),
    "tuple[int, ...]": st.lists(u64, max_size=16).map(tuple),
}


def any_exit() -> st.SearchStrategy[exits.Exit]:
    kinds = get_args(exits.Exit)
    return st.one_of(
        *(st.builds(kind, **{each.name: FIELDS[str(each.type)] for each in dataclasses.fields(kind)}) for kind in kinds)
    )


resume = st.builds(Resume, reply=st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | FIELDS["bytes"])
whys = st.sampled_from(list(Why))
stop = st.builds(Stop, whys, st.text(), st.none(), st.none() | u64)
number = st.integers(0, 1 << 40)
exited = st.builds(
    Exited,
    seq=number,
    guest=number,
    t=number,
    cpu=number,
    exit=any_exit(),
    rip=u64,
    at=st.text(),
    insn=st.text(),
    step=resume | stop,
    console=st.binary(),
)
names = st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=3)
records = exited | st.one_of(
    st.builds(Note, number, number, st.text()),
    st.builds(Stopped, number, number, whys, st.text(), st.none() | u64, st.none(), names, number),
    st.builds(Made, params=st.just({"a": 1}), symbols=st.just({"start": 2}), ids=st.just((0, 3))),
    st.builds(Run, claims=st.just(())),
    st.builds(End, evidence=st.dictionaries(st.text(), st.integers() | st.text(), max_size=2), wall_ms=st.just(1.5)),
)


@given(records)
def test_a_record_survives_the_way_to_json_and_back(record: Record) -> None:
    line = json.dumps(encode(record), allow_nan=False)
    assert parse("x", 1, line.encode()) == record


def test_every_kind_of_exit_is_told_apart() -> None:
    """Decoding goes by the class's name, so equal fields are no reason to mix two kinds up."""
    assert decode(exits.Exit, encode(exits.Halt())) == exits.Halt()
    assert decode(exits.Exit, encode(exits.Shutdown())) == exits.Shutdown()
    assert decode(exits.Exit, encode(exits.Hyperv(1))) != exits.Xen(1)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"is": "PortOut", "port": 1, "size": 1}, "PortOut lacks 'data'"),
        ({"is": "PortOut", "port": 1, "size": 1, "data": "00", "more": 1}, "unknown field 'more'"),
        ({"is": "PortOut", "port": True, "size": 1, "data": "00"}, "port is no int"),
        ({"is": "PortOut", "port": 1.0, "size": 1, "data": "00"}, "port is no int"),
        ({"is": "PortOut", "port": 1, "size": 1, "data": "0g"}, "data is no hexadecimal text"),
        ({"is": "Resume"}, "of unknown kind 'Resume'"),
        ({"is": "Hypercall", "nr": 1, "args": [1, "2"], "long_mode": False}, "args is no int"),
        ({"is": "Hypercall", "nr": 1, "args": {}, "long_mode": False}, "args is no list"),
        ([], "cannot be"),
        (None, "cannot be"),
    ],
)
def test_what_is_no_exit_is_refused_by_its_field(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(exits.Exit, value, "exit")


# -- files


def seal(lines: list[dict[str, Any]]) -> bytes:
    """Lines as a writer seals them: what a forger does who knows how."""
    import hashlib

    running, out = hashlib.blake2b(digest_size=8), b""
    for line in lines:
        body = json.dumps({k: v for k, v in line.items() if k != "sum"}, separators=(",", ":")).encode()[:-1]
        running.update(body)
        out += body + f',"sum":"{running.hexdigest()}"}}\n'.encode()
    return out


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_helper_seals_as_the_writer_does() -> None:
    assert seal(load(HELLO)) == HELLO.read_bytes()


def test_a_recorded_trace_follows_its_schema(follows: Callable[[str, Any], Any]) -> None:
    for path in sorted(TRACES.glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in [*lines[:6], *lines[-4:]]:  # the first and last of each; checking is slow
            follows("trace", line)


def harmed(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "harmed.jsonl"
    path.write_bytes(data)
    return str(path)


def refused(path: str) -> TraceError:
    with pytest.raises(TraceError) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}:{caught.value.line}: ")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("number", [1, 2, 3, 10, -1])
def test_a_changed_line_is_found(tmp_path: Path, number: int) -> None:
    lines = HELLO.read_bytes().splitlines(keepends=True)
    at = number - 1 if number > 0 else len(lines) - 1
    lines[at] = lines[at].replace(b"hello", b"hallo").replace(b'"t":', b'"t":1')
    assert refused(harmed(tmp_path, b"".join(lines))).line == at + 1


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """Whatever it is: one byte of the file, another value. Each is refused, none is another error."""
    data = HELLO.read_bytes()
    for at in range(0, len(data), max(len(data) // 200, 1)):
        refused(harmed(tmp_path, data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :]))


@given(st.lists(exited, min_size=1, max_size=5))
def test_exits_are_numbered_by_the_lines_that_were_written(told: list[Exited]) -> None:
    """One that ^C kept from being told leaves no gap, whatever numbers the others bring."""
    file = io.BytesIO()
    writer = Writer(file, 1 << 20)
    for each in told:
        writer.write(each)
    bodies = [line.rpartition(b',"sum"')[0] + b"}" for line in file.getvalue().splitlines()]
    written = [parse("x", i, body) for i, body in enumerate(bodies, 1)]
    assert [each.seq for each in written] == list(range(1, len(told) + 1))
    assert [dataclasses.replace(each, seq=0) for each in written] == [dataclasses.replace(each, seq=0) for each in told]
    assert writer.recorded == len(told)


def test_only_a_regular_file_holds_an_interrupt_back(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb") as pipe, (tmp_path / "t").open("wb") as file:
        assert not Writer(pipe, 100)._regular
        assert Writer(file, 100)._regular


def test_a_line_taken_out_put_in_or_moved_is_found(tmp_path: Path) -> None:
    lines = HELLO.read_bytes().splitlines(keepends=True)
    assert refused(harmed(tmp_path, b"".join(lines[:9] + lines[10:]))).line == 10
    assert refused(harmed(tmp_path, b"".join(lines[:9] + lines[8:]))).line == 10
    assert refused(harmed(tmp_path, b"".join([*lines[:9], lines[10], lines[9], *lines[11:]]))).line == 10
    assert "follows the last line" in str(refused(harmed(tmp_path, b"".join([*lines, lines[-1]]))))


def test_a_cut_off_trace_is_found_wherever_it_is_cut(tmp_path: Path) -> None:
    data = HELLO.read_bytes()
    assert "its last line is missing" in str(refused(harmed(tmp_path, data[: data.rindex(b"\n", 0, -1) + 1])))
    error = refused(harmed(tmp_path, data[:-1]))
    assert "cut off" in str(error)
    assert error.line == data.count(b"\n")
    for length in range(0, len(data), max(len(data) // 100, 1)):
        refused(harmed(tmp_path, data[:length]))


def test_another_schema_is_refused_before_anything_else(tmp_path: Path) -> None:
    lines = load(HELLO)
    lines[0]["schema"] = 2
    lines[0]["novelty"] = True
    error = refused(harmed(tmp_path, seal(lines)))
    assert error.line == 1
    assert "schema 2; this pyvmm reads schema 1" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[1]\n",
        b"not json\n",
        b'{"is":"Trace"}\n',
        b"\xff\xfe\x00\n",
        b"[" * 100_000 + b"\n",
        b'{"is":"Trace","schema":' + b"9" * 10_000 + b"}\n",
        b'{"schema":1,"payload":"hello","outcome":"pass"}\n',
        b"\x00" * 100_000,
    ],
    ids=range(11),
)
def test_what_is_no_trace_is_one_clear_line(tmp_path: Path, data: bytes) -> None:
    assert refused(harmed(tmp_path, data)).line == 1


@pytest.mark.parametrize("name", ["missing.jsonl", "", ".", "a\0b"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        list(read(name))
    assert "\n" not in str(caught.value)


# -- the writer


HEADER = Trace(1, "0", "x", False, "", None, False)
EXIT = Exited(1, 0, 5, 0, exits.PortOut(0x80, 1, b"x"), 0x20000, "start", "out 0x80, al", Resume(), b"")
END = End(9, 1, 0, "pass", 0, "", {}, (), {}, {}, 0, 1.0)


def test_the_limit_holds_and_the_end_is_still_written(tmp_path: Path) -> None:
    file = io.BytesIO()
    writer = Writer(file, 2000)
    writer.write(HEADER)
    for _ in range(1000):
        writer.write(EXIT)
    writer.write(dataclasses.replace(END, dropped=writer.dropped))
    assert 980 < writer.dropped < 1000
    assert len(file.getvalue()) < 4000
    *_, (_, last) = read(harmed(tmp_path, file.getvalue()))
    assert isinstance(last, End)
    assert last.dropped == writer.dropped


def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    writer = Writer(Full(), 1 << 20)
    for record in (HEADER, *[EXIT] * 100, END):
        writer.write(record)
    assert writer.error is not None
    assert writer.error.errno == 28


def test_writing_and_reading_keep_nothing() -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        writer = Writer(file, 1 << 30)
        writer.write(HEADER)
        tracemalloc.start()
        for _ in range(3000):
            writer.write(EXIT)
        writer.write(END)
        file.flush()
        for _ in read(file.name):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 18  # 3 MiB and more if the records were kept
