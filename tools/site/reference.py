# SPDX-License-Identifier: GPL-2.0-or-later
"""The library's reference: pages on which Sphinx' autodoc puts the docstrings of public names (`public`)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum

from .complete import VOCABULARY
from .docstrings import readable
from .public import PAGES, Name, fixtures, things
from .text import page

PLUGIN = "vmm.pytest_plugin"


def pages() -> Iterator[tuple[str, str]]:
    """Each page of `PAGES`, and the list of them."""
    yield "reference/index.md", page("references", pages=PAGES, vocabulary=VOCABULARY)
    for each in PAGES:
        directives = [_directive(thing) for entry in each.names for thing in things(entry)]
        if PLUGIN in each.names:
            directives = [*map(_fixture, fixtures().items()), *directives]
        yield f"reference/{each.name}.md", page("reference", each=each, text="\n\n".join(directives))


def _directive(thing: Name) -> str:
    if not inspect.isclass(thing.value):
        return f".. autofunction:: {thing.full}"
    inherits = not issubclass(thing.value, (BaseException, Enum, tuple))
    return f".. autoclass:: {thing.full}" + "\n   :inherited-members: Record" * inherits


def _fixture(pair: tuple[str, object]) -> str:
    """A fixture by name, with what it gives."""
    name, function = pair
    lines = readable(inspect.cleandoc(function.__doc__ or "").splitlines())
    text = "\n".join(f"   {line}".rstrip() for line in lines)
    return f".. py:function:: {name}\n   :module: {PLUGIN}\n\n{text}"
