"""Chromium without a screen, driven through ChromeDriver's own protocol (W3C WebDriver): one browser, several profiles.

No library between: a test says what a person does, and reads what the page holds.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tests.e2e.needs import missing

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Window:
    """One browser profile with one window."""

    def __init__(self, client: httpx2.AsyncClient, session: str) -> None:
        self._client = client
        self._session = session

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        sent = body if method == "POST" else None
        answer = await self._client.request(method, f"/session/{self._session}{path}", json=sent)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise AssertionError(f"{path}: {value.get('error')}: {value.get('message', '')[:400]}")
        return value

    async def go(self, url: str) -> None:
        await self.ask("POST", "/url", url=url)

    async def run(self, script: str, *args: Any) -> Any:
        """The value that the script returns, run in the page."""
        return await self.ask("POST", "/execute/sync", script=script, args=list(args))

    async def address(self) -> str:
        found: str = await self.ask("GET", "/url")
        return found

    async def text(self, css: str = "body") -> str:
        found: str = await self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)
        return found

    async def count(self, css: str) -> int:
        found: int = await self.run("return document.querySelectorAll(arguments[0]).length", css)
        return found

    async def until(self, script: str, *args: Any, within_s: float = 8.0) -> Any:
        """The script's value, as soon as it is true."""
        with anyio.fail_after(within_s):
            while not (found := await self.run(script, *args)):
                await anyio.sleep(0.03)
        return found

    async def until_text(self, said: str, css: str = "body", within_s: float = 8.0) -> None:
        await self.until(
            "return (document.querySelector(arguments[1])?.innerText ?? '').includes(arguments[0])",
            said,
            css,
            within_s=within_s,
        )

    async def find(self, css: str) -> str:
        found = await self.ask("POST", "/element", using="css selector", value=css)
        return str(found[_ELEMENT])

    async def click(self, css: str) -> None:
        await self.ask("POST", f"/element/{await self.find(css)}/click")

    async def type(self, css: str, text: str) -> None:
        await self.ask("POST", f"/element/{await self.find(css)}/value", text=text)

    async def press(self, *keys: str) -> None:
        """Keys for whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self.ask("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    async def focus(self) -> str:
        """The id or address of what has the focus."""
        found: str = await self.run(
            "const it = document.activeElement; return it.id || it.getAttribute('href') || it.tagName"
        )
        return found

    async def resize(self, width: int, height: int, *, scale: float = 1.0) -> None:
        await self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )

    async def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        await self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def cdp(self, command: str, **params: Any) -> Any:
        return await self.ask("POST", "/goog/cdp/execute", cmd=command, params=params)

    async def picture(self, path: Path) -> None:
        found = await self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(found["data"]))


class Driver:
    """A ChromeDriver that runs, and the windows that it has open."""

    def __init__(self, base: str, folder: Path) -> None:
        self._base = base
        self._folder = folder
        self._sessions: list[str] = []

    @asynccontextmanager
    async def windows(self, count: int = 1) -> AsyncIterator[list[Window]]:
        """So many windows, each of a profile of its own; those that are open already are used again."""
        async with httpx2.AsyncClient(base_url=self._base, timeout=30.0, trust_env=False) as client:
            while len(self._sessions) < count:
                self._sessions.append(await self._opened(client))
            yield [Window(client, session) for session in self._sessions[:count]]

    async def _opened(self, client: httpx2.AsyncClient) -> str:
        profile = self._folder / f"profile{len(self._sessions)}"
        options = {"binary": shutil.which("chromium"), "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "timeouts": {"pageLoad": 15_000}}
        answer = await client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
        value = answer.json()["value"]
        if "sessionId" not in value:
            raise AssertionError(str(value.get("message"))[:600])
        return str(value["sessionId"])

    def close(self) -> None:
        with httpx2.Client(base_url=self._base, timeout=10.0, trust_env=False) as client:
            for session in self._sessions:
                with suppress(httpx2.HTTPError):
                    client.delete(f"/session/{session}")


@contextmanager
def chromium(folder: Path) -> Iterator[Driver]:
    """ChromeDriver, and nothing of it afterwards. Skips (or fails, see `needs`) where it is not installed."""
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        missing("Chromium is not installed; run `apt-get install chromium chromium-driver`")
    env = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    words = [driver, "--port=0", "--log-level=SEVERE"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        found = Driver(f"http://127.0.0.1:{_port(process)}", folder)
        try:
            yield found
        finally:
            found.close()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    for line in process.stdout or ():
        if "successfully" in line and " on port " in line:
            return int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
    raise RuntimeError("ChromeDriver did not start")
