# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the output is a terminal that wants colour: asked the same way by every command."""

from __future__ import annotations

import os

from vmm.report.style import Style

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import TextIO


def can_colour(args: argparse.Namespace, out: TextIO) -> bool:
    """On a terminal that obeys escape sequences, unless --no-color or NO_COLOR (no-color.org) says otherwise."""
    obeys = out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return obeys and not args.no_color and "NO_COLOR" not in os.environ


def style_for(args: argparse.Namespace, out: TextIO) -> Style:
    """Colour where `can_colour`, else plain text."""
    return Style(can_colour(args, out))
