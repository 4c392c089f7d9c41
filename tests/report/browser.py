"""Headless Chromium over the DevTools pipe: load a page at a width, ask it for facts, keep what its console said."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--remote-debugging-pipe",
)
_FACTS = """(() => ({
  width: document.documentElement.clientWidth,
  scroll: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight,
  images: [...document.images].map(i => ({alt: i.alt, done: i.complete, natural: i.naturalWidth, shown: i.clientWidth})),
  wide: [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right >
    document.documentElement.clientWidth + 1 && !e.closest(".wide, pre")).map(e => e.tagName + " " + e.className),
  cut: [...document.querySelectorAll("body *")].filter(e => e.scrollWidth > e.clientWidth + 1 &&
    ["auto", "scroll"].includes(getComputedStyle(e).overflowX)).map(e => e.tagName + " " + e.className + " " + e.ariaLabel),
  scripts: document.scripts.length,
  title: document.title,
  text: document.body.innerText,
}))()"""


class Browser:
    """One Chromium process with one tab."""

    def __init__(self, profile: Path):
        command_in, self._to = os.pipe()
        self._from, answer_out = os.pipe()
        # Chromium reads commands on descriptor 3 and answers on 4; a shell puts ours there.
        shell = f'exec 3<&{command_in} 4>&{answer_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "chromium", CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(command_in, answer_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_in)
        os.close(answer_out)
        self._rest, self._last, self._events = b"", 0, []
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path, width: int, height: int = 900) -> dict:
        """Load the page at `width` CSS pixels; answers its facts, console errors and requests that left the page."""
        self._events.clear()
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self._ask("Page.navigate", {"url": page.resolve().as_uri()})
        self._wait("Page.loadEventFired")
        facts = self._ask("Runtime.evaluate", {"expression": _FACTS, "returnByValue": True})["result"]["value"]
        facts["console"] = [e["params"] for e in self._events if _is_error(e)]
        sent = [e["params"]["request"]["url"] for e in self._events if e.get("method") == "Network.requestWillBeSent"]
        facts["requests"] = [u for u in sent if not u.startswith("data:") and u != page.resolve().as_uri()]
        return facts

    def picture(self, out: Path, *, top: int = 0, height: int | None = None) -> None:
        """A PNG of the page, or of `height` pixels of it from `top` on."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self._ask("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        out.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End this process only."""
        try:
            self._ask("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(10)
        finally:
            os.close(self._to)
            os.close(self._from)

    def _ask(self, method: str, params: dict | None = None) -> dict:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params or {}}
        if getattr(self, "_session", None) and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            answer = self._read(end)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def _wait(self, method: str) -> None:
        end = time.monotonic() + 60
        while not any(e.get("method") == method for e in self._events):
            self._events.append(self._read(end))

    def _read(self, end: float) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(end - time.monotonic(), 0))
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                raise RuntimeError("chromium does not answer")
            self._rest += chunk
        one, self._rest = self._rest.split(b"\0", 1)
        return json.loads(one)


def _is_error(event: dict) -> bool:
    params = event.get("params", {})
    return (
        event.get("method") == "Runtime.exceptionThrown"
        or (event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
        or (event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert", "warning"))
    )
