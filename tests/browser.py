"""A headless Chromium driven over the DevTools protocol: just enough to use a page as a person does."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
"""Seconds to wait for anything; a busy machine is slow, and a test that passes never waits that long."""

CODES = {
    "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
    "Tab": 9,
}  # fmt: skip


CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
"""The path of an installed Chromium or Chrome; None if there is none."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium")


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start a browser that keeps its files in ``folder``, and end it with the block."""
    with ExitStack() as stack:
        log = stack.enter_context((folder / "chromium.log").open("wb"))
        process = subprocess.Popen(
            [
                str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}", "about:blank",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
        stack.callback(end, process)
        port = folder / "profile" / "DevToolsActivePort"
        wait(lambda: port.exists() and port.read_text().count("\n") >= 1, "the browser to start")
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"

        def page() -> str | None:
            with urllib.request.urlopen(address) as reply:
                return next((t["webSocketDebuggerUrl"] for t in json.load(reply) if t["type"] == "page"), None)

        yield Browser(stack.enter_context(connect(wait(page, "a page"), max_size=None, compression=None)))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it if it does not."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Browser:
    """One page.

    Attributes:
        requested: the address of everything that was asked for.
        complaints: exceptions, and errors in the console.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._last = 0
        self._socket = socket
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def open(self, address: str) -> None:
        """Go to ``address``."""
        self.call("Page.navigate", url=address)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        wait(lambda: self.js(f"Boolean({expression})"), expression)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and let go a key: a character, or a name as in ``ArrowLeft``."""
        event = {
            "key": key,
            "modifiers": 8 if shift else 0,
            "windowsVirtualKeyCode": CODES.get(key, ord(key[0].upper())),
        }
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is in the window."""
        x, y = self.js(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getClientRects()[0];"
            " return [(box.left + box.right) / 2, (box.top + box.bottom) / 2]; })()"
        )
        return x, y

    def mouse(self, kind: str, at: tuple[float, float], clicks: int = 1) -> None:
        """``mousePressed``, ``mouseMoved`` or ``mouseReleased`` with the left button."""
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=1, clickCount=clicks)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        at = self.middle(selector)
        self.mouse("mousePressed", at)
        self.mouse("mouseReleased", at)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the window's size and whether the system is dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Save a screenshot (PNG)."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def names(self) -> list[tuple[str, str]]:
        """Role and name of everything a screen reader meets, in order."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and "role" in node
        ]


def wait(ready: Any, what: str) -> Any:
    """Ask until the answer is true, and give it back."""
    end = time.monotonic() + PATIENCE
    while not (answer := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.02)
    return answer
