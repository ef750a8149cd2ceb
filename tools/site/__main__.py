# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.site [--out DIR]`: the site, built and checked."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from . import build, check
from .stage import PROJECT


def main() -> int:
    """Build; 1 where something is wrong, which is said."""
    parser = argparse.ArgumentParser(prog="tools.site", description="Build the documentation as a site, and check it.")
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "site", metavar="DIR")
    out = parser.parse_args().out
    gc.disable()  # documents are large trees, and this process ends with them: a tenth of its time for 200 MiB
    begun = time.monotonic()
    wrong = build.build(out) or check.problems(out)
    for each in wrong:
        print(f"docs: {each}", file=sys.stderr)
    if wrong:
        return 1
    files = [path for path in out.rglob("*") if path.is_file()]
    pages = sum(path.suffix == ".html" for path in files)
    size = sum(path.stat().st_size for path in files) / (1 << 20)
    print(f"{pages} pages, {size:.1f} MiB, {time.monotonic() - begun:.0f} s: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
