# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm probe` from its arguments to its output and exit status, with made-up proofs: bad input, files, ^C, pipes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vmm import cli
from vmm.cli.files import write_file
from vmm.cli.live import Live
from vmm.errors import HostError, UsageError
from vmm.host import measured as host
from vmm.host.measured import HostFacts
from vmm.kvm.system import Kvm
from vmm.payload.proof import probe
from vmm.payload.proof.probe import Target
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Deviation, Finding, Refusal, Verdict


def row(name: str, finding: Finding, **more: Any) -> Row:
    refusals = (Refusal("enforced", "WRMSR", "#GP", "#GP"),)
    return Row(name, 5, "eax", True, finding, refusals, name.lower(), 0.1, **more)


GOOD = [row("CLOCKSOURCE", Finding(Verdict.WORKS, summary="12 readings", evidence={"khz": 2596152}))]
GOOD += [row("PV_EOI", Finding(Verdict.INERT, "never shows\x1b[2J"))]
BROKEN = row("STEAL_TIME", Finding(Verdict.BROKEN, "it went back"))
ERROR = row("POLL_CONTROL", Finding(Verdict.UNPROVEN, "pyvmm error: KeyError: 'x'"), error="Traceback ...")


class Rows:
    """Stands in for Probe: yields what it was given; an exception among the rows is raised."""

    def __init__(self, rows: Sequence[Row | BaseException], calls: list[Any]) -> None:
        self.rows, self.calls = rows, calls

    def __call__(self, chosen: Sequence[Target], options: Any, **keywords: Any) -> Rows:
        self.calls.append((options, keywords))
        self.chosen = tuple(Target(row.name, group=row.group) for row in self.rows if isinstance(row, Row))
        self.done = {row.name: row for row in self.rows if isinstance(row, Row)}
        self.options, self.keywords, self.on_start = options, keywords, None
        return self

    def __iter__(self) -> Any:
        for each in self.rows:
            if isinstance(each, BaseException):
                raise each
            yield each

    def table(self, facts: HostFacts, *, interrupted: bool = False) -> probe.Table:
        names = tuple(target.name for target in self.chosen)
        rows, strict = tuple(self.done.values()), self.keywords["strict"]
        return probe.Table(facts, names, rows, 0.5, self.options, interrupted=interrupted, strict=strict)


@pytest.fixture
def pyvmm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host_facts: HostFacts
) -> Callable[..., tuple[int, str, str]]:
    """`pyvmm(rows, "--json")` -> (exit status, standard output, standard error)."""
    monkeypatch.setattr(Kvm, "open", classmethod(lambda cls: contextlib.nullcontext()))
    monkeypatch.setattr(host, "measure", lambda kvm: host_facts)

    def run(rows: Sequence[Row | BaseException], *arguments: str, calls: list[Any] | None = None) -> Any:
        monkeypatch.setattr(probe, "Probe", Rows(rows, [] if calls is None else calls))
        try:
            status = cli.main(["probe", *arguments])
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_plain_lines(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = pyvmm(GOOD)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[1].split() == ["feature", "bit", "offered", "verdict", "evidence"]
    assert lines[2].split()[:4] == ["CLOCKSOURCE", "5", "yes", "works"]
    assert lines[3].endswith("never shows\\x1b[2J")
    assert "nothing is broken; 2 of 2 refusals" in lines[-1]


def test_verbose_lines_hold_the_evidence(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = pyvmm(GOOD, "-v", "--no-color")
    assert "khz  2596152 (0x279d38)" in out
    assert "refusal  enforced: WRMSR: #GP" in out


@pytest.mark.parametrize(("rows", "status"), [(GOOD, 0), ([BROKEN], 1), ([ERROR, *GOOD], 99), ([ERROR, BROKEN], 99)])
def test_exit_status_and_every_form(
    pyvmm: Callable[..., tuple[int, str, str]], follows: Callable[[str, Any], Any], rows: list[Row], status: int
) -> None:
    for form in ((), ("--json",), ("--markdown",), ("--tap",), ("-v",)):
        got, out, err = pyvmm(rows, *form)
        assert (got, err) == (status, ""), form
        assert all(each.name in out.replace("\\_", "_") for each in rows), form
        if form == ("--json",):
            follows("probe", out)
        if form == ("--tap",):
            assert out.startswith(f"TAP version 14\n1..{len(rows)}\n")


@pytest.mark.parametrize("strict", [False, True])
def test_a_deviation_is_told_and_with_strict_it_fails(pyvmm: Callable[..., tuple[int, str, str]], strict: bool) -> None:
    found = Finding(Verdict.WORKS, summary="seen", deviations=(Deviation("enforced: WRMSR", "#GP", "accepted"),))
    rows = [*GOOD, row("STEAL_TIME", found, strict=strict)]
    for form in ((), ("--json",), ("--markdown",), ("--tap",), ("-v",)):
        status, out, _ = pyvmm(rows, *form, *["--strict"] * strict)
        assert status == strict, form
        assert ("enforced: WRMSR" in out, "1 deviation" in out or form == ("--json",)) == (True, True), form
    _, _, err = pyvmm(rows, "--ci", *["--strict"] * strict)
    level = "error" if strict else "warning"
    assert f"::{level} title=KVM deviates at STEAL_TIME::enforced: WRMSR: accepted, and the ABI says #GP\n" in err


TOPICS = [replace(each, name=each.name.lower(), bit=None, group="api") for each in (GOOD[0], BROKEN)]


def test_topics_are_a_second_table(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = pyvmm([*GOOD, *TOPICS], "--api")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    second = lines.index("") + 1
    assert lines[second].split() == ["topic", "verdict", "evidence"]
    assert lines[second + 1].split()[:2] == ["clocksource", "works"]
    assert lines[second].index("verdict") == lines[second + 1].index("works") == lines[1].index("verdict")
    assert "2 features: 1 works, 1 inert; 2 topics: 1 works, 1 broken" in lines[-1]
    _, out, _ = pyvmm(TOPICS, "--api")
    assert out.splitlines()[1].split() == ["topic", "verdict", "evidence"]
    assert "features:" not in out


def test_topics_in_every_form(
    pyvmm: Callable[..., tuple[int, str, str]], follows: Callable[[str, Any], Any], tmp_path: Path
) -> None:
    _, out, _ = pyvmm([*GOOD, *TOPICS], "--api", "--json", "--junit", str(tmp_path / "out.xml"))
    document = follows("probe", out)
    assert [each["name"] for each in document["features"]] == [each.name for each in GOOD]
    assert [(each["name"], each["verdict"]) for each in document["topics"]] == [
        ("clocksource", "works"),
        ("steal_time", "broken"),
    ]
    assert "bit" not in document["topics"][0]
    assert (document["counts"], document["topic_counts"]) == ({"works": 1, "inert": 1}, {"works": 1, "broken": 1})
    assert document["broken"] == 1
    names = [case.get("name") for case in ElementTree.parse(tmp_path / "out.xml").getroot()[0].findall("testcase")]
    assert names == ["CLOCKSOURCE", "PV_EOI", "clocksource", "steal_time"]
    _, out, _ = pyvmm([*GOOD, *TOPICS], "--api", "--markdown")
    assert "| topic | verdict | evidence |" in out
    assert "| steal\\_time | **broken** | it went back |" in out
    _, out, _ = pyvmm([*GOOD, *TOPICS], "--api", "--tap")
    assert "not ok 4 - steal_time" in out


def test_topics_on_a_terminal_have_their_own_head() -> None:
    heads = []
    for rows, topics in (([*GOOD, *TOPICS], False), (TOPICS, True)):
        out = io.StringIO()
        with Live(out, "host", [each.name for each in rows], topics=topics) as live:
            for each in rows:
                live.row(each)
        lines = out.getvalue().splitlines()
        heads.append([line.split()[0] for line in lines if line.startswith(("feature", "topic"))])
        assert all(any(each.name in line for line in lines) for each in rows)
    assert heads == [["feature", "topic"], ["topic"]]


def test_options_reach_the_proofs(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    calls: list[Any] = []
    pyvmm(GOOD, "--mask", "kvm_feature_steal_time", "--mask", "pv-eoi", "--enforce", "--no-refusals", calls=calls)
    ((options, keywords),) = calls
    assert options.mask == ("STEAL_TIME", "PV_EOI")
    assert keywords == {"enforce": True, "refusals": False, "strict": False}
    pyvmm(GOOD, "--strict", calls=calls)
    assert calls[1][1] == {"enforce": False, "refusals": True, "strict": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["STEALTIME"], "did you mean STEAL_TIME"),
        (["--mask", "STEALTIME"], "--mask: no paravirtual feature is called 'STEALTIME'; did you mean STEAL_TIME"),
        (["--mask", "avx2"], "no paravirtual feature is called"),
        (["hello"], "proves no feature"),
        (["--json", "--tap"], "not allowed with"),
        (["--junit"], "expected one argument"),
        (["\x1b[2J"], "is called"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    pyvmm: Callable[..., tuple[int, str, str]], arguments: list[str], message: str
) -> None:
    status, out, err = pyvmm(GOOD, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_no_kvm_is_status_99(pyvmm: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cls: Any) -> Any:
        raise HostError("opening /dev/kvm: no such file")

    monkeypatch.setattr(Kvm, "open", classmethod(refuse))
    assert pyvmm(GOOD, "--json") == (99, "", "pyvmm: opening /dev/kvm: no such file\n")


@pytest.mark.parametrize("form", [(), ("--json",), ("--markdown",), ("--tap",)])
def test_an_interruption_shows_what_came(
    pyvmm: Callable[..., tuple[int, str, str]], tmp_path: Path, form: tuple[str, ...]
) -> None:
    file = tmp_path / "out.xml"
    status, out, err = pyvmm([GOOD[0], KeyboardInterrupt(), BROKEN], "--junit", str(file), *form)
    assert (status, err) == (130, "pyvmm: interrupted\n")
    assert "CLOCKSOURCE" in out
    assert "STEAL" in out, "a row that is ready though its turn has not come"
    if form == ("--json",):
        assert json.loads(out)["interrupted"] is True
    if form == ("--tap",):
        assert out.endswith("Bail out! interrupted\n")
    assert ElementTree.parse(file).getroot().get("tests") == "2"


def test_an_interruption_before_the_first_row(
    pyvmm: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("vmm.report.table.head", interrupt)
    file = tmp_path / "out.xml"
    status, out, err = pyvmm([*GOOD], "--junit", str(file))
    assert (status, err) == (130, "pyvmm: interrupted\n")
    assert "features: " in out
    assert file.exists()


# Files ------------------------------------------------------------------------------------------------------------


def test_junit_file_beside_the_table(pyvmm: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "out.xml"
    file.write_text("old")
    file.chmod(0o640)
    status, out, _ = pyvmm([*GOOD, BROKEN], "--junit", str(file))
    assert status == 1
    assert "STEAL_TIME" in out
    assert ElementTree.parse(file).getroot().get("failures") == "1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.xml"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("missing/out.xml", "No such file or directory"),
        (".", "Is a directory"),
        ("file/out.xml", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("nul\0byte", "null"),
        ("", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_said_before_anything_is_probed(
    pyvmm: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    status, out, err = pyvmm([*GOOD, BROKEN], "--junit", file)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("pyvmm: writing ")
    assert reason in err
    assert pyvmm([*GOOD, BROKEN], "--save", file)[:2] == (2, "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_file(str(tmp_path / "link"), "new\u20ac")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == "new\u20ac"
    read, write = os.pipe()
    try:
        write_file(f"/proc/self/fd/{write}", "through")
        assert os.read(read, 100) == b"through"
    finally:
        os.close(read)
        os.close(write)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="writing"):
        write_file(str(tmp_path / "loop"), "x")


def test_what_fails_halfway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(UsageError, match="surrogates not allowed"):
        write_file(str(tmp_path / "out"), "\ud800")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(str(tmp_path / "new"), "x")
    finally:
        assert os.umask(before) == 0o027
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


# A terminal -------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live(monkeypatch: pytest.MonkeyPatch, host_facts: HostFacts, rows: Sequence[Any], *arguments: str) -> str:
    import argparse

    from vmm.cli import probe as command

    monkeypatch.setattr(Kvm, "open", classmethod(lambda cls: contextlib.nullcontext()))
    monkeypatch.setattr(host, "measure", lambda kvm: host_facts)
    monkeypatch.setattr(probe, "Probe", Rows(rows, []))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = Terminal()
    with contextlib.suppress(KeyboardInterrupt):
        command.run(parser.parse_args(arguments), out)
    return out.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


@pytest.mark.parametrize("rows", [[*GOOD, BROKEN, ERROR], [GOOD[0], KeyboardInterrupt(), GOOD[1]]])
def test_a_terminal_gets_a_live_table(terminal: pytest.MonkeyPatch, host_facts: HostFacts, rows: Sequence[Any]) -> None:
    shown = live(terminal, host_facts, rows)
    assert "\x1b[32mworks" in shown
    assert "never shows\\x1b[2J" in shown, "a row's own escape sequences are shown, not obeyed"
    assert "\x1b[2J" not in shown
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") > 0, "the cursor comes back"
    assert "features: " in shown


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [("NO_COLOR", "1", ()), ("TERM", "dumb", ()), ("COLUMNS", "100", ("--no-color",)), ("NO_COLOR", "1", ("-v",))],
)
def test_a_terminal_that_wants_none_gets_plain_lines(
    terminal: pytest.MonkeyPatch, host_facts: HostFacts, variable: str, value: str, arguments: tuple[str, ...]
) -> None:
    terminal.setenv(variable, value)
    assert "\x1b" not in live(terminal, host_facts, GOOD, *arguments)


def test_start_up_imports_no_rich() -> None:
    code = "import sys; from vmm.cli import main; main(['probe', '--help'])"
    code = f"import contextlib\nwith contextlib.suppress(SystemExit):\n    {code}\nprint('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_an_interruption_inside_exec_has_the_same_status(tmp_path: Path) -> None:
    """CPython marks it as unhandled there, and `python -m` then ends by the signal, whoever caught it."""
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from vmm import cli\n"
        "from vmm.cli import explain\n"
        "explain.run = lambda args, out: exec('raise KeyboardInterrupt')\n"
        "sys.exit(cli.main(['explain']))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[2]}"}
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (130, "pyvmm: interrupted\n")


def test_a_closed_pipe_is_no_traceback() -> None:
    script = textwrap.dedent(
        """
        import sys
        from vmm.cli import main
        sys.exit(main(["explain"]))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_probe_overwrites_no_source_and_says_what_has_no_effect(
    pyvmm: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.asm"
    mine.write_text("; mine")
    for option in ("--save", "--junit"):
        status, out, err = pyvmm([*GOOD], option, str(mine))
        assert (status, out) == (2, "")
        assert "a source of that name exists, and would be overwritten" in err
    assert mine.read_text() == "; mine"
    both = str(tmp_path / "out")
    assert pyvmm([*GOOD], "--save", both, "--junit", both)[0] == 2
    assert "-v has no effect" in pyvmm([*GOOD], "--json", "-v")[2]
