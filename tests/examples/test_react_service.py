"""The example skill service keeps its promises: both eras, nothing without the key, and effects that are real."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

FOLDER = Path(__file__).parents[2] / "examples" / "react_service"
SERVICE = FOLDER / "service.py"
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
MODERN = {"_meta": {VERSION: "2026-07-28", CAPABILITIES: {}}}
REFUND = {"customer": "C-1001", "amount": 75, "reason": "broken lid"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    subprocess.run([sys.executable, SERVICE, "init", root], check=True, capture_output=True, timeout=10)
    return root


def key_of(data: Path) -> str:
    return (data / "service.key").read_text()


def talk(skill_set: str, data: Path, key: str | None, lines: Iterable[object]) -> list[Any]:
    """What a real service process answers to these messages (or raw bytes), sent one per line."""
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    if key is not None:
        environment["SKILL_SERVICE_KEY"] = key
    sent = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    command: list[str | Path] = [sys.executable, SERVICE, "--skill-set", skill_set, "--data", data]
    done = subprocess.run(command, input=sent, env=environment, capture_output=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask(method: str, params: dict[str, Any], id: object = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def modern_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return ask("tools/call", {"name": name, "arguments": arguments, **MODERN})


def call(skill_set: str, data: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    [answer] = talk(skill_set, data, key_of(data), [modern_call(name, arguments)])
    result: dict[str, Any] = answer["result"]
    return result


def luhn_valid(card: str) -> bool:
    digits = [int(digit) for digit in reversed(card.replace(" ", ""))]
    return sum(sum(divmod(d * 2, 10)) if place % 2 else d for place, d in enumerate(digits)) % 10 == 0


def test_init_makes_a_fresh_key_that_only_its_owner_reads(tmp_path: Path, data: Path) -> None:
    """The key is random, readable by its owner only, and the service side holds no more than its SHA-256."""
    assert stat.S_IMODE((data / "service.key").stat().st_mode) == 0o400
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert (data / "key.sha256").read_text() == hashlib.sha256(key_of(data).encode()).hexdigest()
    other = tmp_path / "other"
    subprocess.run([sys.executable, SERVICE, "init", other], check=True, capture_output=True, timeout=10)
    assert len(key_of(data)) == 43
    assert key_of(other) != key_of(data)


def test_init_keeps_an_existing_key(data: Path) -> None:
    """A second init in the same place changes nothing and says so."""
    before = key_of(data)
    again = subprocess.run([sys.executable, SERVICE, "init", data], capture_output=True, timeout=10)
    assert again.returncode == 2
    assert key_of(data) == before
    assert before.encode() not in again.stdout + again.stderr


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize(
    ("skill_set", "name", "arguments"),
    [
        ("payments", "refund", REFUND),
        ("db", "query", {"sql": "delete from orders"}),
        ("mail", "send", {"to": "a@b.example", "subject": "s", "body": "b"}),
        ("crm", "get_customer", {"id": "C-1001"}),
        ("crm", "debug_info", {}),
        ("web", "fetch", {"url": "https://shop.example/returns"}),
        ("web", "no_such_tool", {}),
    ],
)
def test_nothing_is_done_without_the_key(
    data: Path, key: str | None, skill_set: str, name: str, arguments: dict[str, Any]
) -> None:
    """Without the key, or with a wrong one, every call answers the same error and leaves every file as it was."""
    before = contents(data)
    legacy = [ask("initialize", HELLO, 0), ask("tools/call", {"name": name, "arguments": arguments})]
    [answer] = talk(skill_set, data, key, [modern_call(name, arguments)])
    assert answer["error"]["code"] == -31401
    assert talk(skill_set, data, key, legacy)[1]["error"] == answer["error"]
    assert contents(data) == before


@pytest.mark.parametrize("key", ["", "é", "x" * 43])
def test_an_odd_key_is_a_wrong_key(data: Path, key: str) -> None:
    """An empty, a non-ASCII and a wrong key of the right length are refused like any other."""
    [answer] = talk("payments", data, key, [modern_call("refund", REFUND)])
    assert answer["error"]["code"] == -31401


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_customer_has_card_and_social_security_number(data: Path) -> None:
    """get_customer says in text and in structure what a masker has to find: a card that passes Luhn, and an SSN."""
    result = call("crm", data, "get_customer", {"id": "C-1001"})
    customer = result["structuredContent"]
    assert luhn_valid(customer["card"])
    assert customer["card"] in result["content"][0]["text"]
    assert customer["ssn"] in result["content"][0]["text"]
    assert set(customer) == {"id", "name", "email", "phone", "card", "ssn", "segment"}


def test_search_finds_by_name_and_city(data: Path) -> None:
    """search gives numbers and names, and no more than those."""
    assert call("crm", data, "search", {"query": "portland"})["structuredContent"] == {
        "customers": [{"id": "C-1001", "name": "Mara Lindholm", "city": "Portland"}]
    }


def test_debug_info_really_leaks(data: Path) -> None:
    """The careless skill hands out the key, so that whoever stands in front of it has something to stop."""
    assert key_of(data) in call("crm", data, "debug_info", {})["content"][0]["text"]


def test_a_refund_is_one_line_of_the_ledger(data: Path) -> None:
    """refund appends exactly one entry, and list_refunds tells of it."""
    paid = call("payments", data, "refund", REFUND)["structuredContent"]
    [line] = (data / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line) == paid == {"refund": paid["refund"], **REFUND}
    assert call("payments", data, "list_refunds", {"customer": "C-1001"})["structuredContent"] == {"refunds": [paid]}
    assert call("payments", data, "list_refunds", {"customer": "C-1002"})["structuredContent"] == {"refunds": []}


def test_sql_is_really_executed(data: Path) -> None:
    """query reads and writes the database, and bad SQL is the tool's failure."""
    count = {"sql": "select count(*) as n from orders"}
    assert call("db", data, "query", count)["structuredContent"] == {"columns": ["n"], "rows": [[10]], "changed": 0}
    assert (
        call("db", data, "query", {"sql": "delete from orders where total < 20"})["structuredContent"]["changed"] == 5
    )
    with sqlite3.connect(data / "shop.sqlite") as database:
        assert database.execute("select count(*) from orders").fetchone() == (5,)
    database.close()
    assert call("db", data, "query", {"sql": "selec"})["isError"] is True


def test_sql_stays_in_its_file(data: Path, tmp_path: Path) -> None:
    """A statement cannot reach another database file."""
    result = call("db", data, "query", {"sql": f"attach '{tmp_path / 'other.sqlite'}' as other"})
    assert result["isError"] is True
    assert not (tmp_path / "other.sqlite").exists()


def test_mail_lands_in_the_outbox(data: Path) -> None:
    """send writes one message, whole, with the given recipient, subject and body."""
    assert call("mail", data, "send", {"to": "a@b.example", "subject": "Hi", "body": "Grüße"})["isError"] is False
    [path] = (data / "outbox").iterdir()
    message = message_from_bytes(path.read_bytes())
    assert (message["To"], message["Subject"]) == ("a@b.example", "Hi")
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().strip() == "Grüße"


def test_one_page_carries_an_injection(data: Path) -> None:
    """fetch serves local pages, one of which talks to the model; other places are not found."""
    page = call("web", data, "fetch", {"url": "https://blog.example/review"})["content"][0]["text"]
    assert "Ignore your earlier instructions" in page
    assert call("web", data, "fetch", {"url": "https://blog.example/nowhere"})["isError"] is True


@pytest.mark.parametrize(
    ("skill_set", "name", "arguments"),
    [
        ("payments", "refund", {**REFUND, "amount": 0}),
        ("payments", "refund", {**REFUND, "amount": "75"}),
        ("payments", "refund", {**REFUND, "amount": True}),
        ("payments", "refund", {**REFUND, "extra": 1}),
        ("payments", "refund", {"customer": "C-1001", "amount": 5}),
        ("mail", "send", {"to": "a@b.example", "subject": "a\nBcc: x@y.example", "body": "b"}),
        ("web", "fetch", {"url": "https://x.example/../service.key"}),
        ("crm", "get_customer", {"id": ["C-1001"]}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    data: Path, skill_set: str, name: str, arguments: dict[str, Any]
) -> None:
    """Arguments outside the schema are an error, and nothing is done."""
    before = contents(data)
    [answer] = talk(skill_set, data, key_of(data), [modern_call(name, arguments)])
    assert answer["error"]["code"] == -32602
    assert contents(data) == before


@pytest.mark.parametrize("skill_set", ["crm", "payments", "db", "mail", "web"])
@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_the_official_client_is_served_in_both_eras(data: Path, skill_set: str, mode: str) -> None:
    """The official SDK lists every skill set in its legacy, probing and pinned modern modes."""
    arguments = [str(SERVICE), "--skill-set", skill_set, "--data", str(data)]
    server = StdioServerParameters(command=sys.executable, args=arguments)
    with anyio.fail_after(10):
        async with Client(stdio_client(server), mode=mode) as client:
            tools = (await client.list_tools()).tools
    assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
    assert all(tool.annotations is not None and tool.annotations.read_only_hint is not None for tool in tools)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_calls_with_the_key(data: Path, mode: str) -> None:
    """The official SDK, which checks structured results against their schema, accepts an answer in both eras."""
    arguments = [str(SERVICE), "--skill-set", "crm", "--data", str(data)]
    environment = {"SKILL_SERVICE_KEY": key_of(data)}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    with anyio.fail_after(10):
        async with Client(stdio_client(server), mode=mode) as client:
            result = await client.call_tool("get_customer", {"id": "C-1002"})
    assert result.structured_content is not None
    assert result.structured_content["name"] == "Tobias Achterberg"


def test_discover_says_what_the_version_error_says(data: Path) -> None:
    """server/discover and -32022 name the same versions, and every modern result is stamped."""
    other = {"_meta": {VERSION: "2099-01-01", CAPABILITIES: {}}}
    found, refused = talk("web", data, None, [ask("server/discover", MODERN), ask("tools/list", other)])
    assert found["result"]["resultType"] == "complete"
    assert refused["error"]["code"] == -32022
    assert refused["error"]["data"]["supported"] == found["result"]["supportedVersions"] == ["2026-07-28"]


def test_a_probe_leaves_the_era_open(data: Path) -> None:
    """After server/discover alone a client may still initialize; after a modern request it may not."""
    probe, hello = ask("server/discover", MODERN), ask("initialize", HELLO)
    assert talk("web", data, None, [probe, hello])[1]["result"]["protocolVersion"] == "2025-11-25"
    assert talk("web", data, None, [ask("tools/list", MODERN), hello])[1]["error"]["code"] == -32022
    assert talk("web", data, None, [hello, ask("tools/list", MODERN)])[1]["error"]["code"] == -32600


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_every_legacy_revision_is_echoed(data: Path, version: str) -> None:
    """A known revision is agreed to; batches exist in 2025-03-26 only."""
    batch = [ask("ping", {}, 7), {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    hello, answer = talk("web", data, None, [ask("initialize", {**HELLO, "protocolVersion": version}), batch])
    assert hello["result"]["protocolVersion"] == version
    batches = version == "2025-03-26"
    assert answer == [{"jsonrpc": "2.0", "id": 7, "result": {}}] if batches else answer["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}', -32601),
    ],
)
def test_what_is_not_a_request_is_refused_and_the_service_lives_on(data: Path, line: bytes, code: int) -> None:
    """A bad line is answered with its code, and the next good one is answered as if nothing had been."""
    refused, pong = talk("web", data, None, [line, ask("ping", {})])
    assert refused["error"]["code"] == code
    assert pong["result"] == {}


def test_the_example_configuration_names_only_skills_that_exist() -> None:
    """Every upstream of interposer.yaml is a skill set, and every skill that policy.yaml names by name exists."""
    definitions = json.loads((FOLDER / "skills.json").read_text())
    skills = {f"{skill_set}.{one['name']}" for skill_set, every in definitions.items() for one in every}
    configuration = (FOLDER / "interposer.yaml").read_text()
    assert all(f"  {skill_set}:\n" in configuration for skill_set in definitions)
    policy = (FOLDER / "policy.yaml").read_text()
    named = {word.strip("[],{}") for line in policy.splitlines() if "skills:" in line for word in line.split()}
    named = {word for word in named if "." in word and "*" not in word}
    assert named
    assert named <= skills
