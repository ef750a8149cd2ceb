# SPDX-License-Identifier: GPL-2.0-or-later
"""Annotations of a CI run, in the runner's own words. Values in, text out.

Source: docs.github.com, "Workflow commands for GitHub Actions": `::error title=T::message`, where `%`, CR and LF are
written as %25, %0D and %0A, and in a title `:` and `,` too.
"""

from __future__ import annotations

from vmm.report.columns import one_line


def annotation(level: str, title: str, message: str) -> str:
    """One line; level is error, warning or notice. Whatever the text, it is one command and starts no other."""
    return f"::{level} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return one_line(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
