# SPDX-License-Identifier: GPL-2.0-or-later
"""action.yml as a runner of GitHub's reads it: its steps in order, their conditions and environment, their files.

Of the language of `${{ }}` it knows what the action uses: names of contexts, strings, == != && || and parentheses, with
GitHub's rules (an empty string is false; && and || give an operand). How a step is started is the caller's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ("OUTPUT", "PATH", "STEP_SUMMARY")  # GITHUB_...: what a step appends to
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
TOKEN = re.compile(r"\s*(?:'(?P<text>[^']*)'|(?P<name>[A-Za-z_][\w.-]*)|(?P<sign>==|!=|&&|\|\||[()]))")


class Ended(Protocol):
    """A process that ended."""

    @property
    def returncode(self) -> int: ...


T = TypeVar("T", bound=Ended)


def load(path: Path = ROOT / "action.yml") -> dict[str, Any]:
    """The whole action; its steps are ["runs"]["steps"]."""
    action: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return action


def command(script: str, folder: Path) -> list[str]:
    """How `shell: bash` starts a step, from a file in the folder."""
    file = folder / "step.sh"
    file.write_text(script, encoding="utf-8")
    return ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(file)]


def files(folder: Path) -> dict[str, str]:
    """The environment that names the files, in a folder."""
    return {f"GITHUB_{name}": str(folder / name.lower()) for name in FILES}


def value(expression: str, names: Mapping[str, str]) -> str:
    """What an expression gives. `names` has the contexts: `inputs.json`, `steps.doctor.outputs.usable`.

    Raises:
        KeyError: a name that is in no context.
        ValueError: something that this reader does not know.
    """
    tokens: list[tuple[str, str]] = []
    at, expression = 0, expression.rstrip()
    while at < len(expression):
        found = TOKEN.match(expression, at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"an expression that cannot be read, at {expression[at:]!r}: {expression}")
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()

    def sign(*wanted: str) -> str:
        return tokens.pop(0)[1] if tokens and tokens[0][0] == "sign" and tokens[0][1] in wanted else ""

    def operand() -> str:
        if sign("("):
            inside = either()
            if not sign(")"):
                raise ValueError(f"a bracket is missing: {expression}")
            return inside
        if not tokens or tokens[0][0] == "sign":
            raise ValueError(f"an operand is missing: {expression}")
        kind, text = tokens.pop(0)
        return text if kind == "text" else names[text]

    def equal() -> str:
        left = operand()
        while which := sign("==", "!="):
            left = "true" if (left == operand()) == (which == "==") else ""
        return left

    def both() -> str:
        left = equal()
        while sign("&&"):
            right = equal()
            left = right if left else ""
        return left

    def either() -> str:
        left = both()
        while sign("||"):
            right = both()
            left = left or right
        return left

    given = either()
    if tokens:
        raise ValueError(f"more than one expression: {expression}")
    return given


def filled(text: str, names: Mapping[str, str]) -> str:
    """A text with the values of its `${{ }}`."""
    return EXPRESSION.sub(lambda found: value(found[1], names), text)


def lines(file: Path) -> list[str]:
    """What steps wrote into one of the files."""
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def run(
    action: Mapping[str, Any],
    start: Callable[[str, list[str], dict[str, str]], T],
    inputs: Mapping[str, str],
    folder: Path,
    *,
    action_path: str = str(ROOT),
    skip: Container[str] = (),
) -> dict[str, T]:
    """Each step that was started, by its id. One that fails ends the job; those of `skip` count as done.

    `start(id, command, environment)` starts one, with the environment of that step alone; `folder` has the files.

    Raises:
        KeyError: an input that the action does not have.
    """
    unknown = inputs.keys() - action["inputs"].keys()
    if unknown:
        raise KeyError(*sorted(unknown))
    names = {f"inputs.{name}": str(inputs.get(name, each["default"])) for name, each in action["inputs"].items()}
    names["github.action_path"] = action_path
    names["steps.doctor.outputs.usable"] = ""  # until doctor has written it; the one output that conditions read
    done: dict[str, T] = {}
    for step in action["runs"]["steps"]:
        if step["id"] in skip or not value(step.get("if", "'always'"), names):
            continue
        before = len(lines(folder / "output"))
        environment = {name: filled(str(text), names) for name, text in step.get("env", {}).items()}
        done[step["id"]] = start(step["id"], command(step["run"], folder), environment | files(folder))
        if done[step["id"]].returncode:
            break
        written = dict(line.split("=", 1) for line in lines(folder / "output")[before:])
        names |= {f"steps.{step['id']}.outputs.{name}": text for name, text in written.items()}
    return done
