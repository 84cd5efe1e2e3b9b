"""The console of a real broker: from the address that `serve` prints to the answer that the agent gets."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2

from interposer.cli.console import _leading_to
from tests.e2e.daemon import daemon, interposer
from tests.e2e.test_daemon import configure, shim

POLICY = """version: 1
rules:
  - {id: a-human, effect: ask, skills: ["fake.echo"], approval: {grant: {for: 1h, uses: 3}}}
"""


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, page[:2000]
    return found[1]


async def test_a_printed_address_leads_to_an_answered_call(tmp_path: Path) -> None:
    """An agent's held call is approved in the console and answered; the address works once, the command prints
    another one, and the record knows who it was."""
    path, env = configure(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    got: list[Any] = []

    async def ask() -> None:
        async with shim(env) as client:
            got.append(await client.call_tool("echo", {"text": "hi"}))

    with anyio.fail_after(60):
        async with daemon(path, env) as said, httpx2.AsyncClient(trust_env=False) as browser:
            (printed,) = [line.removeprefix("console on ").strip() for line in said if line.startswith("console on ")]
            base, _, token = printed.partition("/login?token=")
            from_here = {"origin": base}
            answer = await browser.post(f"{base}/login", data={"token": token, "to": ""}, headers=from_here)
            assert answer.status_code == 303
            again = await browser.post(f"{base}/login", data={"token": token}, headers=from_here)
            assert again.status_code == 403
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while not (ids := re.findall(r'href="/q/(q_\w+)"', (await browser.get(f"{base}/")).text)):
                    await anyio.sleep(0.02)
                page = (await browser.get(f"{base}/q/{ids[0]}")).text
                assert "fake.echo" in page
                assert "id: a-human" in page
                form = {name: field(page, name) for name in ("csrf", "version")} | {"scope": "once", "reason": "ok"}
                # The skill does not say that it is harmless, so it has to be read first.
                while (
                    await browser.post(f"{base}/q/{ids[0]}/approve", data=form, headers=from_here)
                ).status_code == 409:
                    await anyio.sleep(0.3)
            assert "hi" in str(got[0])
            assert "consumed" in (await browser.get(f"{base}/q/{ids[0]}")).text
            assert re.search(r"<code>s_\w+</code>", (await browser.get(f"{base}/sessions")).text)
            another = (await interposer(tmp_path / "home", "console", ids[0])).strip()
            assert re.fullmatch(rf"{re.escape(base)}/login\?token=[\w-]{{43}}&to={ids[0]}", another)
            shown = await interposer(tmp_path / "home", "approvals", "show", ids[0])
            assert "yes by operator:" in shown


async def test_no_broker_is_said(tmp_path: Path) -> None:
    """Without a broker the command says so, with the code for it."""
    with anyio.fail_after(30):
        words = [sys.executable, "-m", "interposer", "console"]
        done = await anyio.run_process(words, check=False, env={"INTERPOSER_HOME": str(tmp_path), "PATH": ""})
        assert done.returncode == 5
        assert b"no broker" in done.stderr


def test_no_command_line_holds_a_token(tmp_path: Path) -> None:
    """What a browser is started with is a page that only its user can read, and that leads on."""
    page = _leading_to("http://127.0.0.1:1/login?token=t&to=q_1", tmp_path)
    assert page.stat().st_mode & 0o777 == 0o600
    assert "url=http://127.0.0.1:1/login?token=t&amp;to=q_1" in page.read_text()
    assert _leading_to("http://127.0.0.1:1/login?token=u", tmp_path) == page
