# SPDX-License-Identifier: GPL-2.0-or-later
"""A template and its values to one self-contained page. It knows Jinja; it knows no document.

Templates lie in `templates/`. What they are given is escaped by the library; styles and scripts are put into the page,
whose Content-Security-Policy then lets it load nothing at all.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from vmm.base.version import pyvmm_version
from vmm.errors import UsageError
from vmm.report import columns
from vmm.report.style import printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = "templates"
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")


def page(template: str, **values: object) -> str:
    """The page of `templates/<template>`; each value by its name, None and lists of plain values too.

    Raises:
        UsageError: the template library is not installed.
    """
    made: str = _environment().get_template(template).render(version=pyvmm_version(), **values)
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", made)


def _shown(value: object) -> object:
    """Text of guests, hosts and documents without what could hide or turn round other text."""
    return printable(value) if type(value) is str else value


@functools.cache
def _environment() -> Environment:
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
    except ImportError as error:
        raise UsageError("a page needs Jinja2, which is not installed", hint="pip install Jinja2") from error

    folder = files(__package__) / TEMPLATES
    made = Environment(
        loader=DictLoader({each.name: each.read_text(encoding="utf-8") for each in folder.iterdir() if each.is_file()}),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = columns.number
    return made
