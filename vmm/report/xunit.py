# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit XML, whatever was tested: a suite with its counts, properties, and text that XML can carry.

There is no standard; this is the part that Jenkins, GitLab and the GitHub actions agree on: testsuites, testsuite,
properties, testcase with failure, error or skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vmm.report.style import printable


def begin(name: str, when: datetime, counts: Mapping[str, int], elapsed: float) -> tuple[Element, Element]:
    """(testsuites, its only testsuite). `counts` are tests, failures, errors, skipped; `elapsed` is in seconds."""
    root = Element("testsuites", name="pyvmm")
    suite = SubElement(root, "testsuite", name=name, timestamp=when.strftime("%Y-%m-%dT%H:%M:%S"))
    for element in (root, suite):
        for what, count in counts.items():
            element.set(what, str(count))
        element.set("time", f"{elapsed:.3f}")
    return root, suite


def properties(parent: Element, values: Mapping[str, str]) -> None:
    """A box of named values."""
    box = SubElement(parent, "properties")
    for name, value in values.items():
        SubElement(box, "property", name=xml(name), value=xml(value))


def whole(root: Element) -> str:
    """The file's text."""
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def xml(text: str) -> str:
    """Text of characters that XML 1.0 has: printable, and white space."""
    return printable(text)
