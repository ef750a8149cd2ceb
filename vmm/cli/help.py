# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm help X`: the help of a command, what a payload shows and takes, or, as `pyvmm explain X`, a topic. No KVM."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, TextIO

from vmm.cli.arguments import COMMANDS, columns, parser
from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmm.payload.catalog import Payload
    from vmm.report.explain import Topic
    from vmm.report.style import Style

LEAST = 40  # columns
HINT = "`pyvmm help` lists the commands, `pyvmm list` the payloads, `pyvmm explain --list` the topics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "about", nargs="*", metavar="X", help="a command, a payload of `pyvmm list`, or anything `pyvmm explain` knows"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document (schema 1)")
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def run(args: argparse.Namespace, out: TextIO) -> int:
    from vmm.cli.colour import style_for
    from vmm.payload.catalog import find, shipped

    word = " ".join(args.about).strip()
    if args.json:
        import json

        out.write(json.dumps(document(word), indent=2) + "\n")
        return 0
    if not word:
        parser().print_help(out)
        return 0
    style = style_for(args, out)
    if word in COMMANDS:
        out.write(command_help(word))
        if word in shipped():
            out.write(f"\nThere is a payload of that name too: `pyvmm disasm {word}`\n")
        return 0
    if word in shipped():
        payload = find(word)
        out.write("\n".join(payload_lines(payload, style, max(min(columns(), 120), LEAST))) + "\n")
        return 0
    out.write(_topic(word, style))
    return 0


def document(word: str) -> dict[str, Any]:
    """The same as vmm/report/schemas/help.schema.json has it.

    Raises:
        UsageError: the word is nothing; the nearest names are offered.
    """
    from vmm.cli import list as listing
    from vmm.payload.catalog import find, shipped

    if not word:
        rows = [{"name": name, "help": text} for name, text in COMMANDS.items()]
        return {"schema": 1, "kind": "commands", "commands": rows}
    if word in COMMANDS:
        command = _command(word)
        arguments = [_argument(each, command) for each in command._actions]
        about = {"name": word, "help": COMMANDS[word], "usage": command.format_usage(), "arguments": arguments}
        return {"schema": 1, "kind": "command", "command": about}
    if word in shipped():
        payload = find(word)
        half = payload.host_half()
        more = {"proves": list(payload.header.proves), "shown": ((half.doc if half else "") or "").strip()}
        return {"schema": 1, "kind": "payload", "payload": listing.row(payload) | more}
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain

    found = _candidates(word)
    if len(found) > 1:
        return {"schema": 1, "kind": "topics", "topics": explain.list_document(found, word)["topics"]}
    return {"schema": 1, "kind": "topic", "topic": explain.document(found[0], proofs({}))}


def _argument(action: argparse.Action, command: argparse.ArgumentParser) -> dict[str, Any]:
    choices = [] if action.choices is None else [str(each) for each in action.choices]
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest
    text = (action.help or "") % {"prog": command.prog, "default": action.default}
    return {
        "names": list(action.option_strings),
        "takes": "" if action.nargs == 0 else metavar,
        "choices": choices,
        "help": text,
    }


def _command(command: str) -> argparse.ArgumentParser:
    (subs,) = (each for each in parser(command)._actions if isinstance(each, argparse._SubParsersAction))
    made: argparse.ArgumentParser = subs.choices[command]
    return made


def command_help(command: str) -> str:
    """What `pyvmm COMMAND --help` prints."""
    return _command(command).format_help()


def payload_lines(payload: Payload, style: Style, width: int) -> Iterator[str]:
    """Its summary, what it needs, its parameters and results, and how its host half shows it."""
    header = payload.header
    yield f"{style('head', payload.name)} ({payload.group}): {header.summary}"
    if header.proves:
        yield from _section("Proves", [(each, "") for each in header.proves], style, width)
    needs = [*(f"KVM_CAP_{each}" if each.isupper() else each for each in header.capabilities), *header.features]
    machine = f"{header.cpus} vCPU{'s'[: header.cpus != 1]}" + f", irqchip {header.irqchip}"
    yield from _section("Machine", [(machine, f"needs {', '.join(needs)}" if needs else "")], style, width)
    params = [(f"--param {each.name}={each.default:#x}", each.what) for each in header.params.values()]
    yield from _section("Parameters, with their defaults", params, style, width)
    results = [(each.name, each.what) for each in header.results.values()]
    yield from _section("What the guest stores", results, style, width)
    half = payload.host_half()
    if half and half.doc:
        yield ""
        yield style("head", "How it is shown")
        for paragraph in half.doc.strip().split("\n\n"):
            yield from textwrap.wrap(" ".join(paragraph.split()), width, initial_indent="  ", subsequent_indent="  ")
    yield ""
    yield f"pyvmm run {payload.name}       runs it; --trace shows each exit, --json is for programs"
    yield f"pyvmm disasm {payload.name}    shows its code"


def _section(title: str, rows: list[tuple[str, str]], style: Style, width: int) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield style("head", title)
    left = min(max(len(name) for name, _ in rows), max(width // 2, 12))
    for name, what in rows:
        room = max(width - left - 4, 20)
        first, *rest = textwrap.wrap(what, room) or [""]
        yield f"  {style('name', name.ljust(left))}  {first}".rstrip()
        yield from (f"  {'':{left}}  {line}" for line in rest)


def _topic(word: str, style: Style) -> str:
    """As `pyvmm explain`. UsageError: as of `_candidates`."""
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain, explain_text

    found = _candidates(word)
    if len(found) > 1:
        return explain_text.choice(word, found, style)
    return explain_text.text(explain.document(found[0], proofs({})), style)


def _candidates(word: str) -> list[Topic]:
    """What `pyvmm explain` finds. UsageError: nothing; the nearest of commands, payloads, topics are offered."""
    from vmm.base.names import nearest
    from vmm.payload.catalog import shipped
    from vmm.payload.proof.prove import proofs
    from vmm.report import explain_find

    try:
        return explain_find.candidates(word, proofs({}))
    except UsageError as error:
        near = nearest(word, [*COMMANDS, *shipped()]) if len(word) <= explain_find.MAX_WORD else []
        meant = f"; did you mean {', '.join(near)}?" if near else ""
        if "is called" not in error.text:
            raise
        also = "" if near else error.text.partition("; ")[2]
        said = f"no command, payload or topic is called {word!r}{meant}" + (f"; {also}" if also else "")
        raise UsageError(said, hint=HINT) from None
