# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm completion SHELL`: what makes a shell complete pyvmm's arguments, made by shtab of the parsers themselves.

The text is complete in itself: a TAB starts no pyvmm. What an argument takes is told by its metavar, here and nowhere
else: one that ends in a suffix (`FILE.jsonl`) takes files of that suffix. A test tells of one that is not known.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from vmm.errors import HostError

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("asm", "c", "bin", "elf", "img")
"""Suffixes of what `pyvmm run` takes. Kernels have any name: where nothing else fits, the shell offers every file."""
DIRECTORIES = {"DIR", "ROOT"}
FILES = {"FILE", "VMLINUZ", "SCRIPT", "BINARY", "PATH"}
FREE = {"N", "S", "SIZE", "K=V", "VALUE", "LEAF", "A", "SYM|A", "P", "R", "NAME", "LINK", "ADDR:PORT|SOCKET",
        "TEST", "GROUP", "KIND", "WHEN", "ADDRESS"}  # fmt: skip
"""What only the user knows."""


def _payloads() -> list[str]:
    from vmm.payload.catalog import shipped

    return list(shipped())


def _features() -> list[str]:
    from vmm.abi import pv

    return [each.name for each in pv.FEATURES]


def _topics() -> list[str]:
    from vmm.payload.proof.prove import proofs
    from vmm.report.explain import topics

    return list(dict.fromkeys(each.name for each in topics(proofs({}))))


def _rows() -> list[str]:
    from vmm.bench.table import specs

    rows = [spec.row for spec in specs()]
    return list(dict.fromkeys([*(row.group for row in rows), *(row.name for row in rows)]))


def _boards() -> list[str]:
    from vmm.machine.boards.others import OTHERS

    return ["own", *OTHERS]


def _actions() -> list[str]:
    from vmm.cli.learn import ACTIONS

    return list(ACTIONS)


def _lessons() -> list[str]:
    from vmm.learn.course import lessons

    return [each.name for each in lessons()]


def _targets() -> list[str]:
    from vmm.fuzz.targets.catalog import SHIPPED

    return list(SHIPPED)


def _guests() -> list[str]:
    from vmm.payload.templates import BY_KIND

    return list(BY_KIND)


def _commands() -> list[str]:
    from vmm.cli.arguments import COMMANDS

    return list(COMMANDS)


def _pages() -> list[str]:
    from vmm.base.docs_place import pages

    return list(pages())


# By the name in the namespace where that says more than the metavar, else by the metavar.
WORDS: dict[str, Callable[[], list[str]]] = {
    "board": _boards,
    "topic": _topics,
    "kind": _guests,
    "page": _pages,
    "FEATURE": _features,
    "ROW": _rows,
    "COMMAND": _commands,
    "X": _commands,
    "ACTION": _actions,
    "LESSON|FILE": _lessons,
    "TARGET": _targets,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose text is to be printed")
    parser.epilog = (
        'bash  eval "$(pyvmm completion bash)"    in ~/.bashrc\n'
        'zsh   eval "$(pyvmm completion zsh)"     in ~/.zshrc, below compinit\n'
        "fish  pyvmm completion fish | source     in ~/.config/fish/config.fish\n"
        "\nThe wheel has the same files below share/, where a shell finds those of packages: docs/install.md."
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    out.write(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The text that makes `shell` (one of SHELLS) complete `pyvmm`.

    Raises:
        HostError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise HostError(
            f"shtab, which writes completions, cannot be imported: {error}", hint="pip install shtab"
        ) from None
    from vmm.cli.arguments import whole

    top = whole()
    for _command, action in arguments(top):
        _complete(action, shtab)
    text: str = shtab.complete(top, shell)
    return text.rstrip() + "\n"


def arguments(top: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
    """Every argument that takes a word, of the parser and those below it, with its command (`run`, `learn export`)."""
    for action in top._actions:
        if isinstance(action.choices, dict):
            for name, below in action.choices.items():
                yield from arguments(below, f"{command} {name}".strip())
        elif action.nargs != 0:
            yield command, action


def kind(action: argparse.Action) -> str:
    """What completes it: `payload`, `words`, `files`, `directories`, a suffix such as `.json`, `free`; empty if that is
    not known.
    """
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    suffix = re.search(r"\.\w+$", metavar)
    if action.choices or action.dest in WORDS or metavar in WORDS:
        return "words"
    if metavar.startswith("PAYLOAD"):
        return "payload"
    if suffix:
        return suffix[0]
    bare = metavar.partition("[")[0]  # FILE[,ro]
    return "files" if bare in FILES else "directories" if bare in DIRECTORIES else "free" if bare in FREE else ""


def _complete(action: Any, shtab: Any) -> None:
    """shtab reads `choices`, or `complete`, which argparse does not know."""
    match kind(action):
        case "words":
            name = action.dest if action.dest in WORDS else action.metavar
            action.choices = action.choices or WORDS[name]()
        case "payload":
            action.complete = _payload_or_file()
        case "files":
            action.complete = shtab.FILE
        case "directories":
            action.complete = shtab.DIRECTORY
        case "free" | "":
            pass
        case suffix:
            # zsh reads shtab's own pattern, `(*.json)`, as a qualifier of nothing, and finds no file.
            action.complete = {**shtab.glob(f"*{suffix}"), "zsh": f"_files -g '*{suffix}'"}


def _payload_or_file() -> dict[str, Any]:
    """A payload's name, or a file of a suffix that says it is a program."""
    names = " ".join(_payloads())
    bash = "\n".join(f"""  compgen -f -X '!*.{suffix}' -- "$1" """.rstrip() for suffix in PROGRAMS)
    fish = "\n".join(f"  __fish_complete_suffix .{suffix}" for suffix in PROGRAMS[:1])
    return {
        "bash": "_pyvmm_payload_or_file",
        "zsh": "_pyvmm_payload_or_file",
        "fish": "(_pyvmm_payload_or_file)",
        "preamble": {
            "bash": f"""
_pyvmm_payload_or_file() {{
  compgen -W '{names}' -- "$1"
{bash}
  compgen -d -- "$1"
}}""",
            "zsh": f"""
_pyvmm_payload_or_file() {{
  _alternative 'payloads:payload:({names})' 'files:file:_files -g "*.({"|".join(PROGRAMS)})"'
}}""",
            "fish": f"""
function _pyvmm_payload_or_file
  string split ' ' -- '{names}'
{fish}
end""",
        },
    }
