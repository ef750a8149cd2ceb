# SPDX-License-Identifier: GPL-2.0-or-later
"""One test in a process of its own: a line of JSON in, a line of JSON out. What becomes of it harms no other test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from vmm.payload.kut.settings import CpuChoice, Settings


def request(settings: Settings, image: Path, timeout: float | None) -> str:
    """What `main` reads."""
    cpu = vars(settings.cpu) if not hasattr(settings.cpu, "_asdict") else settings.cpu._asdict()
    return json.dumps({"settings": vars(settings) | {"cpu": cpu}, "image": str(image), "timeout": timeout})


def settings_from(found: dict[str, Any]) -> Settings:
    """The reverse of what `request` does to settings."""
    cpu = found["cpu"]
    features = tuple((str(name), bool(on)) for name, on in cpu["features"])
    return Settings(**found | {"cpu": CpuChoice(**cpu | {"features": features})})


def main(source: TextIO, out: TextIO) -> None:
    """Run what the request asks for, and write what became of it."""
    from vmm.payload.kut.one import run_one

    asked = json.loads(source.read())
    ended = run_one(settings_from(asked["settings"]), Path(asked["image"]), asked["timeout"])
    json.dump(ended.as_json(), out)
    out.flush()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
