# SPDX-License-Identifier: GPL-2.0-or-later
"""One test in a process of its own: a line of JSON in, a line of JSON out. What becomes of it harms no other test."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from vmm.payload.kut.settings import CpuChoice, Settings

LOOK = 0.5  # seconds between looks


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


def end_with(parent: int) -> None:
    """End this process when that one is no more: nobody would read what it finds. On a thread of its own."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, name="is the parent there", daemon=True).start()


if __name__ == "__main__":
    end_with(os.getppid())
    main(sys.stdin, sys.stdout)
