# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TAB gives: `pyvmm completion` in the real bash, zsh and fish, each asked as itself asks the completion."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm.cli import completion, main
from vmm.cli.arguments import COMMANDS, whole
from vmm.errors import HostError
from vmm.payload.catalog import shipped

# Each script gets the file, and then command lines whose last word is being typed; a line ANSWER follows each answer.
# bash: COMPREPLY, of the function that `complete` names.
BASH = r"""
source "$1"; shift
function=$(complete -p pyvmm); function=${function##*-F }; function=${function%% *}
for line; do
  read -ra COMP_WORDS <<<"$line"
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
  "$function" pyvmm "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
  printf '%s\n' "${COMPREPLY[@]}" ANSWER
done
"""
FISH = r"""
source $argv[1]
for line in $argv[2..]
  complete -C $line | string replace -r '\t.*' ''
  echo ANSWER
end
"""
# zsh completes only for somebody at a terminal: a pseudo-terminal, a TAB, and the line and the list that it draws.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
say() { zpty -w shell "$1" }
wait_for() {
  local all= part
  repeat 600 { zpty -rt shell part && all+=$part; [[ $all == *${~1}* ]] && break; sleep 0.02 }
  print -r -- "$all"
}
say "stty cols 200 rows 900; autoload -Uz compinit; fpath=(${(q)1:h} /usr/share/zsh/functions/Completion/*(/N)"\
" \$fpath); compinit -D -u; LISTMAX=1000; PS1=READ''Y"
wait_for READY >/dev/null # the line editor draws it, and reads keys from then on
shift
for line; do
  zpty -n -w shell "$line"$'\t\t'
  zpty -n -w shell $'\x05 END\x15'"print ANSW''ER"$'\n'
  wait_for 'ANSWER*READY'
done
zpty -d shell
"""

Tab = Callable[..., list[list[str]]]


@pytest.fixture(scope="module", params=completion.SHELLS)
def tab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tab:
    """`tab(folder, "pyvmm run hel", ...)`: what the shell offers for the last word of each line, in this folder."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: tools/install-test-tools")
    text = tmp_path_factory.mktemp("completion") / "_pyvmm"  # under this name zsh finds it by itself
    text.write_text(completion.script(shell), encoding="utf-8")
    start = {
        "bash": ["bash", "--norc", "-c", BASH, "bash"],
        "fish": ["fish", "--no-config", "-c", FISH],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
    }[shell]

    def ask(folder: Path, *lines: str) -> list[list[str]]:
        environment = os.environ | {"HOME": str(folder), "TERM": "dumb", "ZDOTDIR": str(folder)}
        done = subprocess.run(
            [*start, str(text), *lines],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert not done.stderr
        answers = [each.replace("READY", " ").split() for each in done.stdout.split("ANSWER\n")]
        assert len(answers) == len(lines) + 1, done.stdout
        return answers[:-1]

    return ask


def test_a_tab(tab: Tab, tmp_path: Path) -> None:
    """What begins as typed, and nothing that the place does not take."""
    for name in ("mine.asm", "notes.json", "notes.txt"):
        (tmp_path / name).touch()
    asked = {
        "pyvmm pro": ("probe", "doctor"),
        "pyvmm run hel": ("hello", "ring3"),
        "pyvmm run mi": ("mine.asm", "notes.json"),
        "pyvmm run --timeo": ("--timeout", "--trace"),
        "pyvmm run --board test": ("testdev", "pc"),
        "pyvmm diff not": ("notes.json", "notes.txt"),
        "pyvmm probe STEAL": ("STEAL_TIME", "PV_EOI"),
        "pyvmm completion fi": ("fish", "zsh"),
        "pyvmm docs begi": ("begin", "bench"),
        "pyvmm new x --kind ri": ("ring3", "plain"),
    }
    for (line, (good, bad)), answer in zip(asked.items(), tab(tmp_path, *asked), strict=True):
        assert good in answer, (line, answer)
        assert bad not in answer, (line, answer)


def test_bash_offers_each_payload(tmp_path: Path) -> None:
    """In full, where the answer is a list and no picture: every name, in a folder that has nothing else."""
    text = tmp_path / "completion"
    text.write_text(completion.script("bash"), encoding="utf-8")
    (tmp_path / "a b.asm").touch()
    words = """COMP_WORDS=(pyvmm disasm ''); COMP_CWORD=2"""
    ask = f"""source "$1"; {words}; _shtab_pyvmm; printf '%s\\n' "${{COMPREPLY[@]}}" """
    command = ["bash", "--norc", "-c", ask, "bash", str(text)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {*shipped(), "a b.asm"}


def test_what_completes_each_argument_is_known() -> None:
    """A new argument whose metavar nobody knows stands here: it belongs into a table of vmm/cli/completion.py."""
    found = {
        f"pyvmm {command} {action.option_strings or ''} {action.metavar}"
        for command, action in completion.arguments(whole())
        if not completion.kind(action)
    }
    assert found == set()


def test_an_unknown_metavar_is_seen() -> None:
    top = argparse.ArgumentParser()
    below = top.add_subparsers().add_parser("some").add_argument("--odd", metavar="NEVER_HEARD")
    assert [(command, completion.kind(each)) for command, each in completion.arguments(top)] == [("some", "")]
    assert below.metavar == "NEVER_HEARD"


@pytest.mark.parametrize(
    ("metavar", "kind"),
    [("FILE[,ro]", "files"), ("[NAME=]FILE.json", ".json"), ("DIR", "directories"), ("PAYLOAD", "payload"),
     ("N", "free"), ("FEATURE", "words")],
)  # fmt: skip
def test_kinds(metavar: str, kind: str) -> None:
    assert completion.kind(argparse.ArgumentParser().add_argument("--x", metavar=metavar)) == kind


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_prints_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out == completion.script(shell)
    for name in COMMANDS:
        assert name in out


def test_without_shtab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(HostError, match="shtab") as raised:
        completion.script("bash")
    assert "pip install shtab" in str(raised.value)


def test_a_run_knows_nothing_of_it(tmp_path: Path) -> None:
    """Starting is a feature: neither the module nor the library is loaded by another command."""
    loaded = "print('LOADED', *(name for name in sys.modules if name in ('shtab', 'vmm.cli.completion')))"
    code = f"import sys; from vmm.cli import main; main(['list']); {loaded}"
    environment: dict[str, Any] = {**os.environ}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
