# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of a page of `--html` for the documentation: `python -m tools.page_picture hello.html run-page.png`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.chromium import Chromium, program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1000, help="pixels (1000)")
    parser.add_argument("--height", type=int, help="pixels from the top of the page; default: all of it")
    parser.add_argument("--dark", action="store_true", help="as where the system's colours are dark")
    args = parser.parse_args()
    if program() is None:
        print("page_picture: there is no chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        browser = Chromium(Path(folder))
        try:
            browser.open(args.page.read_text(encoding="utf-8"), width=args.width, dark=args.dark)
            browser.picture(args.picture, height=args.height)
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
