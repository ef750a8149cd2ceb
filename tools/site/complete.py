# SPDX-License-Identifier: GPL-2.0-or-later
"""What a public docstring lacks: shapes, units, errors, source. It reads signatures, docstrings and functions.

- *said*: there is a docstring.
- *shape and unit*: each number and each string of bytes that a function takes is spoken of: by the parameter's name in
  the docstring (of the function, or of its class or module), or because the name is one of VOCABULARY, which has one
  meaning everywhere. A number that it gives back has words of what it counts.
- *errors*: each exception of ours that the code raises, itself or in a private helper, is named in the docstring, by
  itself or by a base of it; "Errors as NAME" passes the question on to that name.
- *source*: what wraps the kernel or the architecture (floor kvm, machine/x86) names a call, a header or a section: in
  its docstring, its class's or its module's.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from vmm import errors

from .public import Name

# Parameters with one meaning everywhere, which the reference's first page says.
VOCABULARY = {
    "address": "guest-physical, or a port with pio",
    "gpa": "guest-physical address",
    "va": "guest-virtual address",
    "size": "bytes",
    "data": "the bytes themselves",
    "timeout": "seconds",
    "port": "number of an I/O port",
    "index": "of a vCPU from 0, or number of an MSR",
    "vcpu": "index of a vCPU from 0",
    "gsi": "number of an interrupt line",
    "vector": "interrupt vector, 0 to 255",
    "slot": "number of a memslot",
    "fd": "descriptor",
    "symbol": "name in the program",
}
NUMBERS = re.compile(r"\b(int|float|bytes|bytearray|memoryview|Buffer)\b")
# Words by which a docstring says what a number or bytes that it gives back are.
UNITS = re.compile(
    r"\b(bytes?|bits?|(milli|micro|nano)?seconds?|ns|kHz|Hz|ticks?|pages?|addres\w*|numbers?|index|count\w*|values?|"
    r"how (often|many|much|long|far)|mask|flags?|vector|ids?|exits?|register|RAX|RIP|descriptor|status|size|line|"
    r"bitmap|offset|text|level|port|vCPUs?|name\w*|depth|steps?|bound|limit|KiB|GPA|MSRs?|state|words?|selector|base)\b"
)
SOURCE = re.compile(
    r"\b(KVM_[A-Z0-9_]+|UFFDIO_\w+|[a-z]+\.rst|<?(linux|asm)/\w+\.h>?|SDM|APM|ioctl\w*|userfaultfd|eventfd|kvm_\w+|kvm_run)\b"
)
SOURCED = ("vmm.kvm", "vmm.machine.x86")
OURS = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def lacking(name: Name) -> list[str]:
    """What is missing for this name, each a phrase; empty where it is complete."""
    value = name.value.fget if isinstance(name.value, property) else name.value
    doc = inspect.getdoc(name.value) or ""
    if name.owner is None and inspect.isclass(value):
        return list(_class(value, doc))
    if not doc:
        return ["no docstring"]
    return [*_shapes(name, value, doc), *_errors(name, value, doc), *_source(name, value, doc)]


def _class(value: type, doc: str) -> Iterator[str]:
    if not value.__dict__.get("__doc__"):
        yield "no docstring"
        return
    if value.__module__.startswith(SOURCED) and not SOURCE.search(doc + (sys.modules[value.__module__].__doc__ or "")):
        yield "no source"
    for missing in _fields(value, doc):
        yield f"field {missing}: no unit"


def _fields(value: type, doc: str) -> Iterator[str]:
    """Fields of a record that hold numbers and are not spoken of."""
    if not any(base.__name__ == "Record" for base in value.__mro__):
        return
    module = sys.modules[value.__module__].__doc__ or ""
    if "Field names are those of <" in module:  # and their widths with them: the header is the source
        return
    beside = inspect.getsource(value)
    for field, hint in inspect.get_annotations(value).items():
        if not NUMBERS.search(str(hint)) or field in VOCABULARY or re.search(rf"\b{field}\b", doc + module):
            continue
        if not re.search(rf'^    {field}: .*(#|\n    """)', beside, re.M):
            yield field


def _context(name: Name, value: Any) -> str:
    module = sys.modules.get(value.__module__)
    return "\n".join((_classes(name.owner) if name.owner else "", (module.__doc__ or "") if module else ""))


def _shapes(name: Name, value: Any, doc: str) -> Iterator[str]:
    told = f"{doc}\n{_context(name, value)}"
    signature = inspect.signature(value)
    for each in signature.parameters.values():
        if not NUMBERS.search(str(each.annotation)) or each.name in VOCABULARY or each.name == "self":
            continue
        if not re.search(rf"\b{each.name}\b", told):
            yield f"parameter {each.name}: no shape or unit"
    given = str(signature.return_annotation)
    if NUMBERS.search(given) and not UNITS.search(doc):
        yield f"gives {given}: no shape or unit"


def _classes(owner: type) -> str:
    return "\n".join(base.__doc__ or "" for base in owner.__mro__ if base.__module__.startswith("vmm."))


def _errors(name: Name, value: Any, doc: str) -> Iterator[str]:
    if re.search(r"\b[Ee]rrors? (as|of)\b|\b[Ss]ee [a-z`]|[Oo]therwise as|Raises as", doc):
        return
    # A class may say once what each of its methods raises: "Every access raises ...".
    of_all = "" if name.owner is None else " ".join(re.findall(r"\bEvery [^.]*?raises[^.]*\.", _classes(name.owner)))
    for each in sorted(raised(value)):
        bases = [base.__name__ for base in OURS[each].__mro__ if base.__name__ in OURS]
        if not any(re.search(rf"\b{base}\b", f"{doc} {of_all}") for base in bases):
            yield f"raises {each}: not said"


def raised(value: Any) -> set[str]:
    """Names of our errors that a function raises, itself or in private helpers of its module and class."""
    module = sys.modules[value.__module__]
    return set(_raised(value.__qualname__, module.__name__, 3))


@cache
def _tree(module: str) -> dict[str, ast.FunctionDef]:
    """Qualified name -> function, of a module."""
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef):
                    found.setdefault(f"{node.name}.{each.name}", each)
    return found


def _raised(qualified: str, module: str, depth: int) -> Iterator[str]:
    node = _tree(module).get(qualified)
    if node is None or depth == 0:
        return
    owner = qualified.rpartition(".")[0]
    caught = {
        part
        for each in ast.walk(node)
        if isinstance(each, ast.ExceptHandler) and each.type is not None
        for part in re.findall(r"\w+", ast.unparse(each.type))
    }
    for each in ast.walk(node):
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call) and isinstance(each.exc.func, ast.Name):
            if each.exc.func.id in OURS:
                yield each.exc.func.id
        elif isinstance(each, ast.Call):
            called = ast.unparse(each.func)
            private = called.removeprefix("self.").removeprefix("cls.")
            if re.fullmatch(r"_[a-z]\w*", private):
                inside = f"{owner}.{private}" if called != private else private
                yield from (found for found in _raised(inside, module, depth - 1) if found not in caught)


def _source(name: Name, value: Any, doc: str) -> Iterator[str]:
    if value.__module__.startswith(SOURCED) and not SOURCE.search(f"{doc}\n{_context(name, value)}"):
        yield "no source"


def report(names: Iterator[Name]) -> list[str]:
    """A line for each name that lacks something: `vmm.Machine.run: parameter x: no shape or unit`."""
    return [f"{name.full}: {each}" for name in names for each in lacking(name)]


if __name__ == "__main__":
    from .public import names as every

    print(textwrap.dedent("\n".join(report(every()))))
