# SPDX-License-Identifier: GPL-2.0-or-later
"""A headless Chromium for tests and pictures of pages: one process for many pages. A pair of pipes drives it, by
the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/), so nothing listens anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 120.0  # seconds: for a machine that does much else
WORDS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe", "--force-color-profile=srgb", "--disable-background-networking",
)  # fmt: skip


def program() -> str | None:
    """Where it is; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """A browser with one tab. `complaints` are script errors, console errors and loads of the page that is open."""

    def __init__(self, folder: Path) -> None:
        found = program()
        assert found is not None
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        fds = (3, 4)

        def place() -> None:
            copies = (os.dup(read), os.dup(write))
            for copy, fd in zip(copies, fds, strict=True):
                os.dup2(copy, fd)

        self._folder = folder
        self._process = subprocess.Popen(
            [found, *WORDS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._buffer = b""
        self._number = self._pages = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each for each in targets if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the process."""
        os.close(self._write)
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; what happens meanwhile is kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + PATIENCE
        while True:
            found = self._message(end)
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        self._note(found)
        return found

    def _note(self, found: dict[str, Any]) -> None:
        params = found.get("params", {})
        match found.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(str(details.get("exception", {}).get("description") or details.get("text")))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(f"console.{params['type']}: {params['args']}")
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(params["entry"]["text"])
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("file:"):
                self.complaints.append(f"loads {params['request']['url']}")
            case "Page.loadEventFired":
                self._events.append(found)

    def open(
        self, text: str, fragment: str = "", *, width: int = 1600, dark: bool = False, script: bool = True
    ) -> None:
        """Load a page at this width, with the system's colours as told, and wait until it has run its script."""
        self._pages += 1
        file = self._folder / f"page{self._pages}.html"
        file.write_text(text, encoding="utf-8")
        self.complaints.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.visit(file.as_uri() + fragment, width=width, dark=dark)

    def visit(self, url: str, *, width: int = 1600, dark: bool = False) -> None:
        """The same of a page that lies somewhere, with what lies beside it."""
        self.look(width=width, dark=dark)
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._loaded()

    def look(self, *, width: int, dark: bool = False, media: str = "screen") -> None:
        """Another width, other colours, or on paper."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def _loaded(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self._events:
            self._message(end)
        self._events.clear()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Keys, one after the other: "Tab", "Enter", "ArrowRight", "+"."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, " ": 32}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            params = {
                "key": key,
                "windowsVirtualKeyCode": codes.get(key, ord(key[0])),
                **({"text": text} if text else {}),
            }
            self.call("Input.dispatchKeyEvent", type="keyDown", **params)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def drag(self, x: float, y: float, to: float) -> None:
        """The mouse, pressed at (x, y), moved and let go at (to, y)."""
        for kind, at in (("mousePressed", x), ("mouseMoved", (x + to) / 2), ("mouseMoved", to), ("mouseReleased", to)):
            self.call("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, file: Path, *, height: int | None = None) -> None:
        """All of the page as it is now, or so many pixels of it, as PNG."""
        tall = height or int(self.run("document.documentElement.scrollHeight"))
        wide = int(self.run("window.innerWidth"))
        clip = {"x": 0, "y": 0, "width": wide, "height": min(tall, 12000), "scale": 1}
        made = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(made["data"]))

    def paper(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])
