"""A headless Chromium that is asked over two pipes, which needs the standard library alone, and what any page of a
report must be in it.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
         "--remote-debugging-pipe")
SECONDS = 30.0
"""Within which the browser answers."""
HIGH = 20
"""Where descriptors lie before they become 3 and 4: nothing is in the way there."""


class Browser:
    """One page of a running browser."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._process, self._write, self._read, self._number, self._rest = process, write, read, 0, b""
        self.events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Return what the page answers to a command of the DevTools protocol."""
        return self._ask(method, self._session, **parameters)

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (found := self._next()).get("id") != self._number:
            self.events.append(found)
        assert "error" not in found, (method, found)
        return found["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            assert time.monotonic() < until, "the browser does not answer"
            received = os.read(self._read, 1 << 20)
            assert received, "the browser has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        """Load a page at a width, in `light` or `dark`, and forget what was heard before."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, program: str) -> Any:
        """Return the JSON value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=program, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Return errors and warnings since the page was opened: of its script, of its policy, of what it loads."""
        return [json.dumps(event["params"]) for event in self.events
                if event["method"] == "Runtime.exceptionThrown"
                or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))
                or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"))]

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened, but for data in the page."""
        addresses = [event["params"]["request"]["url"] for event in self.events
                     if event["method"] == "Network.requestWillBeSent"]
        return [address for address in addresses if not address.startswith("data:")]

    def pdf(self) -> bytes:
        """Return the page as it is printed, on A4."""
        return base64.b64decode(self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True,
                                         printBackground=True)["data"])

    def screenshot(self, whole: bool = True) -> bytes:
        """Return a PNG of the page, all of it or what is seen at first."""
        return base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yield a browser whose profile lies in a folder; skip without one, but fail in CI."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        if os.environ.get("CI"):
            pytest.fail(f"none of {', '.join(PROGRAMS)} is installed; .ci/run installs chromium")
        pytest.skip(f"needs one of {', '.join(PROGRAMS)}; on Debian: apt-get install chromium")
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD, HIGH) for pair in (os.pipe(), os.pipe()) for end in pair]
    theirs_in, ours_out, ours_in, theirs_out = pipes
    start = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
    process = subprocess.Popen(["bash", "-c", start, "bash", program, *FLAGS, f"--user-data-dir={folder}"],
                               pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(process, ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        process.terminate()
        process.wait(SECONDS)


# What any page must be.

CONTRAST = 4.5
"""WCAG 2.1, AA: of text below 24 px, or 18.66 px where bold; of larger text 3."""
AUDIT = """(() => {
  const numbers = (colour) => {
    const found = colour.match(/[\\d.]+/g).map(Number), scale = colour.startsWith('color(') ? 255 : 1;
    return [...found.slice(0, 3).map((each) => each * scale), found[3] ?? 1];
  };
  const luminance = (rgb) => rgb.map((each) => each / 255).map(
    (each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4
  ).reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      const [red, green, blue, alpha] = numbers(getComputedStyle(each).backgroundColor);
      if (alpha > 0) layers.push([red, green, blue, alpha]);
      if (alpha === 1) break;
    }
    return layers.reverse().reduce((under, [...over]) => under.map(
      (each, place) => each * (1 - over[3]) + over[place] * over[3]), [255, 255, 255]);
  };
  const faint = new Map(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, style = getComputedStyle(element);
    if (!texts.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true })
        || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
    const [one, other] = [luminance(numbers(style.color).slice(0, 3)), luminance(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
    seen += 1;
    if (ratio < (large ? 3 : LEAST)) faint.set(texts.currentNode.data.trim().slice(0, 40), [ratio, style.color]);
  }
  const named = (element) => element.getAttribute('aria-label') || element.getAttribute('alt')
    || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent || element.textContent;
  return {
    seen, faint: Object.fromEntries(faint),
    wide: [document.documentElement.scrollWidth, innerWidth],
    unnamed: [...document.querySelectorAll('img, a, button, summary, [role], [tabindex]')].filter(
      (each) => !named(each).trim()).map((each) => each.outerHTML.slice(0, 200)),
    images: [...document.images].map((each) => each.alt),
    broken: [...document.images].filter((each) => each.complete && !each.naturalWidth).length,
    levels: [...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1])),
  };
})()""".replace("LEAST", str(CONTRAST))


def audit(page: Browser, file: Path, width: int, scheme: str) -> dict[str, Any]:
    """Open a report and return what `AUDIT` finds, if it is nothing that a reader would suffer from."""
    page.open(file, width, scheme)
    found: dict[str, Any] = page.value(AUDIT)
    assert page.complaints() == [] and page.requested() == [file.as_uri()]
    assert found["wide"] == [width, width]
    assert found["faint"] == {} and found["unnamed"] == [] and found["broken"] == 0 and all(found["images"])
    assert found["levels"][0] == 1 and all(
        after <= before + 1 for before, after in zip(found["levels"], found["levels"][1:], strict=False))
    return found
