# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house, read off the source with ast: floors, fences, sizes, headers. Runs nothing of pyvmm.

Each rule is a function from a project folder to the list of what breaks it. It is applied twice: to this project,
where the list must be empty, and to a small project made to break it, where it must not be.
"""

from __future__ import annotations

import ast
import functools
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

_SHOWING = ("base", "errors", "abi", "kvm", "sandbox", "asm", "machine", "host", "observe", "debug", "payload",
            "report")  # fmt: skip

# Each floor, and the floors it may import beside itself: only ones above it in this list.
FLOORS = {
    "base": set(),
    "errors": {"base"},
    "abi": {"base", "errors"},
    "kvm": {"base", "errors", "abi"},
    "sandbox": {"base", "errors", "abi", "kvm"},
    "asm": {"base", "errors", "abi"},
    "machine": {"base", "errors", "abi", "kvm", "asm"},
    "host": {"base", "errors", "abi", "kvm", "sandbox", "asm", "machine"},
    "observe": {"base", "errors", "abi", "kvm", "asm", "machine", "host"},
    "debug": {"base", "errors", "abi", "kvm", "asm", "machine", "host", "observe"},
    "payload": {"base", "errors", "abi", "kvm", "sandbox", "asm", "machine", "host", "observe"},
    "bench": {"base", "errors", "abi", "kvm", "sandbox", "asm", "machine", "host", "observe", "payload"},
    "report": {"base", "errors", "abi", "kvm", "sandbox", "asm", "machine", "host", "observe", "payload", "bench"},
    "fuzz": {*_SHOWING},
    "learn": {*_SHOWING},
    "fleet": {"base", "errors", "abi", "kvm", "host", "payload", "fuzz"},
    "pytest_plugin": {*_SHOWING},
    "screen": {*_SHOWING},
    "cli": {*_SHOWING, "screen", "bench", "learn", "fleet", "fuzz"},
}
FACES = {
    "__init__",
    "__main__",
}  # vmm/__init__.py shows the library, vmm/__main__.py the command: both look at all floors
# Imported by one module only, on this floor.
ONE_DOOR = {
    "keystone": "asm",
    "capstone": "asm",
    "elftools": "machine",
    "rich": "cli",
    "jinja2": "report",
    "distributed": "fleet",
}
LAZY = {
    "rich",
    "shtab",
    "matplotlib",
    "elftools",
    "jinja2",
    "textual",
    "distributed",
}  # slow to import: never at module level
TERMINAL = {"rich", "textual"}  # what the floor "screen" is made with; whoever opens a screen loads that floor late
MEDIAN_LINES = 150
LICENCE = "# SPDX-License-Identifier: GPL-2.0-or-later"


class Import(NamedTuple):
    """One imported name, absolute: `from ..abi import exits` in vmm/kvm/x.py is "vmm.abi.exits"."""

    file: Path
    line: int
    name: str
    at_module_level: bool

    def within(self, package: str) -> bool:
        return f"{self.name}.".startswith(f"{package}.")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.name}"


# No rule changes a project, and no two broken ones share a folder: what was read once holds for all rules.
@functools.cache
def python_files(root: Path, *parts: str) -> tuple[Path, ...]:
    """The Python files below these folders (or these files themselves), as paths relative to `root`."""
    found = [root / part for part in parts if (root / part).is_file()]
    found += [path for part in parts for path in (root / part).rglob("*.py")]
    return tuple(sorted(path.relative_to(root) for path in found if "__pycache__" not in path.parts))


@functools.cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path), str(path))


@functools.cache
def modules(root: Path) -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
    """(modules, folders of them), each as the parts of its name."""
    known = frozenset(path.with_suffix("").parts for path in python_files(root, "vmm", "guest_payloads"))
    return known, frozenset(parts[:i] for parts in known for i in range(1, len(parts)))


@functools.cache
def imports(root: Path, file: Path) -> tuple[Import, ...]:
    """Every import of a file, those inside functions too; imports under `if TYPE_CHECKING` count as not executed."""
    return tuple(_imports(root, file))


def _imports(root: Path, file: Path) -> Iterator[Import]:
    package = file.parent.parts
    known, folders = modules(root)

    def visit(node: ast.AST, executed: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, executed)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                whole = (*module, alias.name)
                # `from vmm import kvm` means the floor; `from vmm.kvm import Kvm` a name on it
                deeper = whole in known or whole in folders or whole[-1] == "_kvm"
                yield Import(file, node.lineno, ".".join(whole if deeper else module), executed)
        else:
            inert = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            )
            for child in ast.iter_child_nodes(node):
                yield from visit(child, executed and not inert)

    yield from visit(tree(root / file), True)


def all_imports(root: Path, *parts: str) -> Iterator[Import]:
    for file in python_files(root, *parts):
        yield from imports(root, file)


def floor_of(file: Path) -> str:
    """vmm/kvm/vm.py is on floor "kvm", vmm/errors.py on floor "errors"."""
    return file.with_suffix("").parts[1]


# The rules --------------------------------------------------------------------------------------------------------


def floors_in_one_direction(root: Path) -> list[str]:
    wrong = []
    for file in python_files(root, "vmm"):
        here = floor_of(file)
        if here in FACES:
            continue
        if here not in FLOORS:
            wrong.append(f"{file}: is on no floor; put it on one, or add the floor to {Path(__file__).name}")
            continue
        for found in imports(root, file):
            if found.name == "vmm":
                wrong.append(f"{found}, which looks at all floors; name the floor")
            elif found.within("vmm") and found.name.split(".")[1] not in {here, *FLOORS[here]}:
                wrong.append(f"{found}, which floor {here} is not above")
            elif found.within("guest_payloads") and here != "payload":
                wrong.append(f"{found}; only floor payload knows the lessons")
    return wrong


def no_circles_inside_a_floor(root: Path) -> list[str]:
    """A module that needs another to be understood is not needed by it: imports that only name types count, and those
    inside functions too.
    """
    arrows = {}
    for file in python_files(root, "vmm"):
        name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        floor = floor_of(file)
        if floor not in FACES:
            arrows[name] = {found.name for found in imports(root, file) if found.within(f"vmm.{floor}")} - {name}
    left = dict(arrows)
    while gone := [name for name, below in left.items() if not below & left.keys()]:
        for name in gone:
            del left[name]
    while gone := [name for name in left if not any(name in below for below in left.values())]:
        for name in gone:
            del left[name]
    return [f"{name}: stands in a circle with {', '.join(sorted(left[name] & left.keys()))}" for name in sorted(left)]


def rooms_of_the_machine_in_one_direction(root: Path) -> list[str]:
    """Of two folders of vmm/machine only one imports the other; the modules beside them join them all."""
    files = [file for file in python_files(root, "vmm") if file.parts[1:2] == ("machine",)]
    rooms = {file.parts[2] for file in files if len(file.parts) > 3}
    arrows: dict[tuple[str, str], Import] = {}
    for found in (each for file in files for each in imports(root, file)):
        here, there = found.file.parts[2], f"{found.name}...".split(".")[2]
        if found.within("vmm.machine") and {here, there} <= rooms and here != there:
            arrows.setdefault((here, there), found)
    return [f"{found}, and {there} imports {here} too: {arrows[there, here]}"
            for (here, there), found in arrows.items() if (there, here) in arrows]  # fmt: skip


def lessons_import_only_vmm(root: Path) -> list[str]:
    allowed = {"vmm", "guest_payloads", *sys.stdlib_module_names}
    return [str(found) for found in all_imports(root, "guest_payloads") if found.name.split(".")[0] not in allowed]


def only_the_binding_touches_c(root: Path) -> list[str]:
    users = [found for found in all_imports(root, "vmm", "guest_payloads") if found.within("vmm.kvm._kvm")]
    return [str(found) for found in users if found.file.parts[:2] != ("vmm", "kvm")]


def one_door_to_each_engine(root: Path) -> list[str]:
    wrong = []
    for engine, floor in ONE_DOOR.items():
        doors = {found.file for found in all_imports(root, "vmm", "guest_payloads") if found.within(engine)}
        doors = {door for door in doors if engine not in TERMINAL or floor_of(door) != "screen"}
        wrong += [f"{door}: imports {engine}; only floor {floor} may" for door in doors if floor_of(door) != floor]
        if (root / "vmm" / floor / "__init__.py").exists() and len(doors) != 1:
            wrong.append(f"{engine} must be imported by exactly one module: {sorted(map(str, doors))}")
    others = (one for one in all_imports(root, "vmm", "guest_payloads") if one.within("textual"))
    return wrong + [f"{one}; only floor screen may" for one in others if floor_of(one.file) != "screen"]


def slow_imports_are_lazy(root: Path) -> list[str]:
    wrong = []
    for one in all_imports(root, "vmm", "guest_payloads"):
        name, inside = one.name.split(".")[0], floor_of(one.file) == "screen"
        late = one.within("vmm.screen") and not inside
        if one.at_module_level and (late or (name in LAZY and not (inside and name in TERMINAL))):
            wrong.append(f"{one} at module level")
    return wrong


def what_to_try_is_a_field(root: Path) -> list[str]:
    """Of an error: `hint`. In its text nobody could take it off again. (`inside` a lab's host, words are compared.)"""
    return [
        f"{file}:{node.lineno}: {node.value!r}: give it as `hint`"
        for file in python_files(root, "vmm", "guest_payloads", "tools")
        if file != Path("vmm/errors.py") and "inside" not in file.parts
        for node in ast.walk(tree(root / file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"^  try:", node.value, re.M)
    ]


# How a fact would be written a second time, and the one place that has it.
FACTS = {
    r"\(1 << 64\) - 1|0x[fF]{16}\b": "vmm/base/bits.py",
    r"^_?PAGE(_SIZE)?(, \w+)* = (0x1000|4096)\b|^_?PAGE_SHIFT = 12": "vmm/abi/x86.py",
    r"x0f.x01.x(c1|d9)|\b0x0f01(c1|d9)\b": "vmm/abi/x86.py",
    r"\b\d+\)? +# KVM_MP_STATE": "vmm/abi/exits.py",
    r"^(IF|\w+_FLAG) = 0x200$": "vmm/abi/x86.py",
}


def a_fact_stands_in_one_place(root: Path) -> list[str]:
    return [
        f"{file}:{number}: {line.strip()}: import it from {home}"
        for fact, home in FACTS.items()
        for file in python_files(root, "vmm", "guest_payloads")
        if file != Path(home)
        for number, line in enumerate(source(root / file).splitlines(), 1)
        if re.search(fact, line, re.IGNORECASE)
    ]


def median_module_is_short(root: Path) -> list[str]:
    """`__init__.py` is not counted: a row of empty ones would hide any size."""
    files = [file for file in python_files(root, "vmm") if file.stem not in FACES]
    sizes = [len(source(root / file).splitlines()) for file in files]
    median = statistics.median(sizes) if sizes else 0
    return [f"median module of vmm has {median} lines"] if median >= MEDIAN_LINES else []


OURS = ("vmm", "guest_payloads", "tests", "bench", "tools", "cffi_build.py", "setup.py")


def licence_comes_first(root: Path) -> list[str]:
    wrong = []
    for file in python_files(root, *OURS):
        lines = source(root / file).splitlines()
        first = next((line for line in lines if not line.startswith("#!")), "")
        if first != LICENCE:
            wrong.append(f"{file}: first line is not `{LICENCE}`")
    return wrong


def docstring_opens_the_module(root: Path) -> list[str]:
    files = python_files(root, *OURS)
    return [f"{file}: no module docstring" for file in files if not ast.get_docstring(tree(root / file))]


# What a stranger does not have. Put together here, so that this file does not trip over itself.
NOT_FOR_STRANGERS = {
    "a path of one machine": re.compile(
        "|".join(
            r"(?<![\w.])/" + p for p in ("work/", "farm/", "tmp/v/", "tmp/notes", "opt/pypi", "opt/wheels", "root/")
        )
    ),
    "an exception in the line; pyproject.toml holds them all": re.compile("# " + r"noqa\b"),
}
TEXT = {".py", ".pyi", ".h", ".c", ".asm", ".inc", ".md", ".toml", ".yml", ".yaml", ".json", ".jsonl", ".sh", ""}
FOLDERS = ("vmm", "guest_payloads", "tests", "bench", "docs", "examples", "tools", ".github", ".ci")


def nothing_of_one_machine(root: Path) -> list[str]:
    files = [path for path in root.iterdir() if path.is_file()]
    files += [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    wrong = []
    for path in files:
        if path.suffix not in TEXT or path.name.startswith(".coverage") or "__pycache__" in path.parts:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            wrong += [
                f"{path.relative_to(root)}:{number}: {what}: {line.strip()}"
                for what, pattern in NOT_FOR_STRANGERS.items()
                if pattern.search(line)
            ]
    return wrong


def touch_table(root: Path) -> list[str]:
    """The paths in backticks of CONTRIBUTING.md's "To add X, touch Y" table; NAME stands for any one name."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|(?! *-|.*\btouch *\|).*$", text.partition("touch Y")[2].partition("\n## ")[0], re.M)
    return [path for row in rows for path in re.findall(r"`([^` ]+/[^` ]*|[\w.]+\.(?:md|py|toml))`", row)]


def touch_table_names_what_exists(root: Path) -> list[str]:
    wrong = []
    for path in touch_table(root):
        pattern = path.rstrip("/").replace("NAME", "*")
        if not any(root.glob(pattern)):
            wrong.append(f"CONTRIBUTING.md: nothing is called {path}")
    return wrong


# Each rule, and a file that breaks it -----------------------------------------------------------------------------


class Broken(NamedTuple):
    rule: Callable[[Path], list[str]]
    file: str
    text: str


HEAD = f'{LICENCE}\n"""Doc."""\n'
BROKEN = [
    Broken(floors_in_one_direction, "vmm/kvm/bad.py", HEAD + "from vmm.machine import Machine\n"),
    Broken(floors_in_one_direction, "vmm/kvm/bad.py", HEAD + "def f():\n    import vmm.machine.run.handle\n"),
    Broken(floors_in_one_direction, "vmm/kvm/bad.py", HEAD + "from ..machine import loop\n"),
    Broken(floors_in_one_direction, "vmm/abi/bad.py", HEAD + "from vmm import kvm\n"),
    Broken(floors_in_one_direction, "vmm/asm/bad.py", HEAD + "from vmm.kvm import Kvm\n"),
    Broken(floors_in_one_direction, "vmm/kvm/bad.py", HEAD + "from vmm.asm import assemble\n"),
    Broken(floors_in_one_direction, "vmm/machine/bad.py", HEAD + "if TYPE_CHECKING:\n    import vmm.observe\n"),
    Broken(floors_in_one_direction, "vmm/machine/bad.py", HEAD + "from vmm import Machine\n"),
    Broken(floors_in_one_direction, "vmm/attic.py", HEAD),
    Broken(floors_in_one_direction, "vmm/machine/bad.py", HEAD + "import guest_payloads.basics.hello\n"),
    Broken(no_circles_inside_a_floor, "vmm/kvm/_kvm.py", HEAD + "import vmm.kvm\n"),
    Broken(no_circles_inside_a_floor, "vmm/cli/live.py", HEAD + "def f():\n    from vmm.cli.late import g\n"),
    Broken(no_circles_inside_a_floor, "vmm/cli/live.py", HEAD + "if TYPE_CHECKING:\n    import vmm.cli.late\n"),
    Broken(rooms_of_the_machine_in_one_direction, "vmm/machine/run/bad.py", HEAD + "import vmm.machine.bus\n"),
    Broken(lessons_import_only_vmm, "guest_payloads/basics/bad.py", HEAD + "import capstone\n"),
    Broken(lessons_import_only_vmm, "guest_payloads/basics/bad.py", HEAD + "def f():\n    from rich import table\n"),
    Broken(only_the_binding_touches_c, "vmm/machine/bad.py", HEAD + "from vmm.kvm._kvm import lib\n"),
    Broken(only_the_binding_touches_c, "vmm/machine/bad.py", HEAD + "def f():\n    from vmm.kvm import _kvm\n"),
    Broken(only_the_binding_touches_c, "guest_payloads/basics/bad.py", HEAD + "import vmm.kvm._kvm\n"),
    Broken(one_door_to_each_engine, "vmm/asm/bad.py", HEAD + "import capstone\n"),
    Broken(one_door_to_each_engine, "vmm/observe/bad.py", HEAD + "def f():\n    from keystone import Ks\n"),
    Broken(one_door_to_each_engine, "vmm/asm/assembler.py", HEAD),
    Broken(one_door_to_each_engine, "vmm/report/bad.py", HEAD + "def f():\n    import rich\n"),
    Broken(one_door_to_each_engine, "vmm/cli/bad.py", HEAD + "def f():\n    import textual.app\n"),
    Broken(slow_imports_are_lazy, "vmm/report/bad.py", HEAD + "from rich.table import Table\n"),
    Broken(slow_imports_are_lazy, "vmm/cli/bad.py", HEAD + "from vmm.screen.app import DebugScreen\n"),
    Broken(slow_imports_are_lazy, "vmm/screen/bad.py", HEAD + "import matplotlib\n"),
    Broken(slow_imports_are_lazy, "vmm/report/bad.py", HEAD + "try:\n    import matplotlib\nexcept ImportError: ...\n"),
    Broken(slow_imports_are_lazy, "vmm/report/bad.py", HEAD + "class A:\n    import rich\n"),
    Broken(what_to_try_is_a_field, "vmm/machine/bad.py", HEAD + 'x = "no KVM\\n  try: a host"\n'),
    Broken(what_to_try_is_a_field, "guest_payloads/pv/bad.py", HEAD + 'x = f"{1}\\n"\ny = "  try: a host"\n'),
    Broken(a_fact_stands_in_one_place, "vmm/machine/bad.py", HEAD + "x = y & (1 << 64) - 1\n"),
    Broken(a_fact_stands_in_one_place, "vmm/observe/bad.py", HEAD + "PAGE = 0x1000\n"),
    Broken(a_fact_stands_in_one_place, "vmm/observe/bad.py", HEAD + "HALTED = 3  # KVM_MP_STATE_HALTED\n"),
    Broken(a_fact_stands_in_one_place, "vmm/bench/bad.py", HEAD + 'x = b"\\x0f\\x01\\xc1"\n'),
    Broken(median_module_is_short, "vmm/errors.py", HEAD + "x = 1\n" * 300),
    Broken(licence_comes_first, "vmm/abi/bad.py", '"""Doc."""\n'),
    Broken(licence_comes_first, "tools/bad.py", "#!/usr/bin/env python3\n" + '"""Doc."""\n'),
    Broken(docstring_opens_the_module, "vmm/abi/bad.py", LICENCE + "\nx = 1\n"),
    Broken(nothing_of_one_machine, "docs/bad.md", "see " + "/" + "work/notes\n"),
    Broken(nothing_of_one_machine, ".ci/run", "pip install --find-links " + "/" + "opt/wheels\n"),
    Broken(nothing_of_one_machine, "vmm/abi/bad.py", HEAD + "import os  # " + "noqa: F401\n"),
    Broken(touch_table_names_what_exists, "CONTRIBUTING.md", "## To add X, touch Y\n| a | `vmm/abi/gone.py` |\n"),
    Broken(touch_table_names_what_exists, "CONTRIBUTING.md", "## To add X, touch Y\n| a | `vmm/gone/NAME.py` |\n"),
]
RULES = list(dict.fromkeys(broken.rule for broken in BROKEN))

SOUND = {
    "vmm/__init__.py": HEAD + "from vmm.machine import Machine\n",
    "vmm/__main__.py": HEAD + "from vmm.cli import main\n",
    "vmm/errors.py": HEAD + "import os\n",
    "vmm/abi/__init__.py": HEAD + "from vmm.errors import VmmError\n",
    "vmm/kvm/__init__.py": HEAD + "from vmm.kvm._kvm import lib\nfrom vmm.abi import exits\n",
    "vmm/asm/__init__.py": HEAD,
    "vmm/asm/assembler.py": HEAD + "import keystone\n",
    "vmm/asm/disassembler.py": HEAD + "def f():\n    import capstone\n",
    "vmm/machine/images/elf.py": HEAD + "def f():\n    import elftools\n",
    "vmm/report/pages.py": HEAD + "def f():\n    import jinja2\n",
    "vmm/machine/__init__.py": HEAD + "from vmm.kvm import Kvm\nfrom . import run\n",
    "vmm/machine/bus/__init__.py": HEAD + "from vmm.machine.run import handle\n",
    "vmm/machine/run/handle.py": HEAD + "from vmm import kvm\n",
    "vmm/payload/__init__.py": HEAD + "import guest_payloads\n",
    "vmm/report/__init__.py": HEAD,
    "vmm/cli/__init__.py": HEAD + "from vmm.report import text\n",
    "vmm/cli/late.py": HEAD + "def g():\n    import vmm.cli.live\n",
    "vmm/cli/live.py": HEAD + "def f():\n    import rich.table\nif TYPE_CHECKING:\n    import rich\n",
    "guest_payloads/__init__.py": HEAD,
    "guest_payloads/basics/hello.py": HEAD + "from vmm.payload import Check\nimport os\n",
    "tools/tool.py": "#!/usr/bin/env python3\n" + HEAD,
    "CONTRIBUTING.md": "## To add X, touch Y\n| to add | touch |\n|---|---|\n| a floor | `vmm/abi/`, `vmm/NAME.py` |\n",
}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A small project that keeps every rule."""
    for name, text in SOUND.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_project_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert not rule(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_project_passes(rule: Callable[[Path], list[str]], sound: Path) -> None:
    assert not rule(sound)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.rule.__name__}-{broken.file}")
def test_the_rule_can_fail(broken: Broken, sound: Path) -> None:
    file = sound / broken.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(broken.text, encoding="utf-8")
    if broken.rule is median_module_is_short:
        for other in python_files(sound, "vmm"):
            (sound / other).write_text(broken.text, encoding="utf-8")
    assert broken.rule(sound)


def test_every_rule_had_something_to_read() -> None:
    """A rule over no files holds always: each floor has modules, and together they are no handful."""
    for floor in FLOORS:
        if (ROOT / "vmm" / floor).is_dir():
            assert python_files(ROOT, f"vmm/{floor}"), f"vmm/{floor} holds no Python"
    assert len(python_files(ROOT, "vmm")) >= 40
    assert sum(1 for found in all_imports(ROOT, "vmm") if found.within("vmm")) >= 100
    assert len(python_files(ROOT, "guest_payloads")) >= 5
    assert len(touch_table(ROOT)) >= 15


def test_floors_are_listed_from_the_ground_up() -> None:
    seen: set[str] = set()
    for floor, below in FLOORS.items():
        assert below <= seen, f"{floor} may import {below - seen}, which come after it"
        seen.add(floor)
