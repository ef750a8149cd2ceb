# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --snapshot-out` and `--from-snapshot`: where it goes on, what comes with it, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from vmm import report
from vmm.cli import main
from vmm.machine import frozen

pytestmark = pytest.mark.kvm
SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "run.schema.json").read_text(encoding="utf-8"))

GUEST = """; summary: three steps, each of which it says
; machine: irqchip=split timeout=20
; devices: virtio_rng
; param:   last = 3
; result:  n  u64  steps

%include "results.inc"
start:  xor   r12d, r12d
        mov   al, 'a'
        out   DEBUG_CONSOLE, al
second: inc   r12
        mov   al, 'b'
        out   DEBUG_CONSOLE, al
third:  add   r12, PARAM_last
        mov   al, 'c'
        out   DEBUG_CONSOLE, al
        mov   rax, r12
        RESULT n
        PASS
nowhere: hlt
"""
SPINS = "; machine: timeout=30\nstart: mov al, 'x'\n out DEBUG_CONSOLE, al\nagain: jmp again\n"
Pyvmm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pyvmm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pyvmm:
    monkeypatch.chdir(tmp_path)
    Path("guest.asm").write_text(GUEST)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["run", *words])
        return status, *capsys.readouterr()

    return run


@pytest.mark.every_host
@pytest.mark.parametrize(("when", "rest"), [("start", "abc"), ("second", "bc"), ("third", "c")])
def test_it_goes_on_from_there_with_all_that_it_had(pyvmm: Pyvmm, when: str, rest: str) -> None:
    words = ["guest.asm", "--param", "last=40", "--mask", "STEAL_TIME"]
    status, out, err = pyvmm(*words, "--snapshot-out", "s", "--snapshot-at", when, "--json")
    first = json.loads(out)
    assert (status, first["console"], first["results"]) == (0, "abc", {"n": 41}), err
    size = Path("s").stat().st_size
    assert err.endswith(f"pyvmm: snapshot s: {size} bytes, at {when}\n")
    assert first["snapshot"] == {"file": "s", "at": when, "bytes": size, "reason": ""}
    assert "from_snapshot" not in first
    jsonschema.validate(first, SCHEMA, cls=jsonschema.Draft202012Validator)
    for _ in range(2):  # and it is only read
        status, out, err = pyvmm("--from-snapshot", "s", "--json")
        again = json.loads(out)
        assert (status, again["console"], again["results"]) == (0, rest, {"n": 41}), err
        assert (again["from_snapshot"], again.get("snapshot")) == ("s", None)
        jsonschema.validate(again, SCHEMA, cls=jsonschema.Draft202012Validator)
        assert again["exits"]["PortOut"] == len(rest) + 1


def test_one_that_ran_into_its_limit_goes_on(pyvmm: Pyvmm) -> None:
    Path("spins.asm").write_text(SPINS)
    status, out, _ = pyvmm("spins.asm", "--timeout", "0.1", "--snapshot-out", "s")
    assert (status, out[:1]) == (124, "x")
    status, out, _ = pyvmm("--from-snapshot", "s", "--timeout", "0.1", "--json")
    assert (status, json.loads(out)["console"]) == (124, "")
    status, out, err = pyvmm("spins.asm", "--timeout", "0.2", "--snapshot-out", "t", "--snapshot-at", "0.05s", "--json")
    assert status == 124
    assert 190 < json.loads(out)["wall_ms"]  # both parts of it are one run
    assert "bytes, at 0.05s" in err
    status, _, err = pyvmm("spins.asm", "--timeout", "0.1", "--snapshot-out", "u", "--snapshot-at", "5s")
    assert status == 124
    assert "no snapshot: the run ended before it came to 5s: the guest did not end" in err
    status, out, _ = pyvmm("--from-snapshot", "t", "--exit-limit", "1", "--timeout", "0.1", "--json")
    assert json.loads(out)["console"] == ""


def test_where_it_never_comes_no_file_is_written(pyvmm: Pyvmm) -> None:
    status, out, err = pyvmm("guest.asm", "--snapshot-out", "s", "--snapshot-at", "nowhere", "--json")
    assert status == 1
    told = json.loads(out)
    assert told["snapshot"]["bytes"] is None
    assert told["snapshot"]["reason"].startswith("the run ended before it came to nowhere: ")
    assert (told["outcome"], told["exit_code"]) == ("pass", status), "its exit status is the command's"
    jsonschema.validate(told, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert "no snapshot: the run ended before it came to nowhere" in err
    assert not Path("s").exists()


@pytest.fixture
def saved(pyvmm: Pyvmm) -> Pyvmm:
    assert pyvmm("guest.asm", "--snapshot-out", "s", "--snapshot-at", "second")[0] == 0
    return pyvmm


def test_what_is_damaged_or_of_elsewhere_is_refused_in_a_line(saved: Pyvmm, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Path("s").read_bytes()

    def refused(data: bytes) -> str:
        Path("t").write_bytes(data)
        status, out, err = saved("--from-snapshot", "t")
        assert (status, out) == (2, "")
        return err

    assert "t is damaged" in refused(good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
    assert "t is damaged" in refused(good[:-100])
    assert "snapshot of version 9" in refused(good[:8] + b"\x09" + good[9:])
    assert "no snapshot of pyvmm's" in refused(b"MZ" + good)
    Path("guest.asm").write_text(GUEST.replace("inc   r12", "inc   r13"))
    assert "not of guest as it is now" in refused(good)
    Path("guest.asm").unlink()
    assert "guest.asm" in refused(good)
    Path("guest.asm").write_text(GUEST)
    real = frozen.host_of
    monkeypatch.setattr(frozen, "host_of", lambda kvm: real(kvm) | {"msrs": [0x10]})
    assert "of another host: KVM lists the MSR" in refused(good)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from-snapshot", "s", "--cpus", "2"], "--cpus and --from-snapshot"),
        (["--from-snapshot", "s", "--param", "last=1"], "--param and --from-snapshot"),
        (["--from-snapshot", "none"], "reading the snapshot none: No such file"),
        (["guest.asm", "--snapshot-at", "start"], "into which file?"),
        (["guest.asm", "--snapshot-out", "guest.asm"], "guest.asm"),
        (["guest.asm", "--snapshot-out", "no/s"], "writing 'no/s'"),
        (["guest.asm", "--snapshot-out", "t", "--gdb"], "--snapshot-out and --gdb"),
        (["guest.asm", "--snapshot-out", "t", "--snapshot-at", "missing"], "no symbol 'missing'"),
        (["guest.asm", "--snapshot-out", "t", "--snapshot-at", "5q"], "give start, end, a symbol"),
        (["irqfd", "--snapshot-out", "t"], "makes its machines itself"),
        (["guest.asm", "--sandbox", "--snapshot-out", "t"], "--sandbox and --snapshot-out"),
    ],
)
def test_words_that_do_not_go_together(saved: Pyvmm, words: list[str], says: str) -> None:
    status, _, err = saved(*words)
    assert status in (2, 99)
    assert says in err
    assert "Traceback" not in err


def test_one_that_says_nothing_of_a_payload_is_for_the_library(pyvmm: Pyvmm) -> None:
    from vmm import Machine

    with Machine() as machine:
        machine.load("hlt")
        with machine.snapshot() as snapshot:
            machine.save_snapshot(snapshot, "s")
            machine.save_snapshot(snapshot, "t", {"payload": "guest.asm"})
    assert "does not say what it is" in pyvmm("--from-snapshot", "s")[2]
    assert "does not say what it is" in pyvmm("--from-snapshot", "t")[2]
    assert "does not say what it is" in pyvmm("guest.asm", "--from-snapshot", "s")[2]
