"""The demo's skill service: real effects behind a private key, spoken over MCP on stdin and stdout.

Run as one process per skill set (`crm`, `payments`, `db`, `mail`, `web`). It answers no `tools/call` unless its
environment holds the key whose SHA-256 lies in the data directory: who starts it without the key gets errors and no
effect. It speaks both families of MCP (initialize up to 2025-11-25, stateless 2026-07-28) and needs nothing but Python.

    service.py init DATA                              create the data and a fresh random key
    service.py --skill-set payments --data DATA       serve
"""

from __future__ import annotations

import argparse
import base64
import email.message
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
KEY_VARIABLE = "SKILL_SERVICE_KEY"
IDENTITY = {"name": "react-service", "version": "1.0"}
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)
PREFIX = "io.modelcontextprotocol/"
FRAME_LIMIT_BYTES = 1 << 20
KEY_REFUSED = -31401

Object = dict[str, Any]


class ProtocolFault(Exception):
    """Answered as a JSON-RPC error; nothing was done."""

    def __init__(self, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.error: Object = {"code": code, "message": message, **({"data": more} if more else {})}


class SkillFailed(Exception):
    """The skill ran and has bad news: an `isError` result."""


class Skills:
    """What the service can do, on the files of one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def crm_get_customer(self, id: str) -> tuple[str, Object]:
        found = next((row for row in self._customers() if row["id"] == id), None)
        if found is None:
            raise SkillFailed(f"There is no customer {id}.")
        shown = {name: value for name, value in found.items() if name != "city"}
        return "\n".join(f"{name}: {value}" for name, value in shown.items()), shown

    def crm_search(self, query: str) -> tuple[str, Object]:
        wanted = query.casefold()
        hits = [
            {"id": row["id"], "name": row["name"], "city": row["city"]}
            for row in self._customers()
            if wanted in row["name"].casefold() or wanted in row["city"].casefold()
        ]
        return "\n".join(f"{hit['id']} {hit['name']}, {hit['city']}" for hit in hits) or "Nobody.", {"customers": hits}

    def crm_debug_info(self) -> tuple[str, None]:
        key = os.environ[KEY_VARIABLE]
        basic = base64.b64encode(f"service:{key}".encode()).decode()
        return f"react-service 1.0\nX-Service-Key: {key}\nAuthorization: Basic {basic}", None

    def payments_refund(self, customer: str, amount: float, reason: str) -> tuple[str, Object]:
        if all(row["id"] != customer for row in self._customers()):
            raise SkillFailed(f"There is no customer {customer}.")
        entry = {"refund": f"R-{secrets.token_hex(4)}", "customer": customer, "amount": amount, "reason": reason}
        with (self.root / "ledger.jsonl").open("ab") as ledger:
            ledger.write(json.dumps(entry).encode() + b"\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        return f"Refunded {amount} dollars to {customer}: {entry['refund']}.", entry

    def payments_list_refunds(self, customer: str | None = None) -> tuple[str, Object]:
        lines = (self.root / "ledger.jsonl").read_text().splitlines()
        entries = [entry for entry in map(json.loads, lines) if customer in (None, entry["customer"])][-100:]
        text = "\n".join(f"{entry['refund']} {entry['customer']} {entry['amount']}" for entry in entries)
        return text or "No refunds.", {"refunds": entries}

    def db_query(self, sql: str) -> tuple[str, Object]:
        database = sqlite3.connect(self.root / "shop.sqlite", timeout=5)
        try:
            database.set_authorizer(_inside_this_file)
            with database:
                cursor = database.execute(sql)
                rows = [list(map(_as_json, row)) for row in cursor.fetchmany(200)]
            columns = [column[0] for column in cursor.description or ()]
            changed = max(cursor.rowcount, 0)
        except sqlite3.Error as fault:
            raise SkillFailed(f"SQLite: {fault}") from fault
        finally:
            database.close()
        lines = [" | ".join(columns)] if columns else [f"{changed} rows changed"]
        lines += [" | ".join(map(str, row)) for row in rows]
        return "\n".join(lines), {"columns": columns, "rows": rows, "changed": changed}

    def mail_send(self, to: str, subject: str, body: str) -> tuple[str, None]:
        message = email.message.EmailMessage()
        try:
            message["From"], message["To"], message["Subject"] = "support@shop.example", to, subject
        except ValueError as fault:
            raise SkillFailed("A header of the message is not valid.") from fault
        message.set_content(body)
        name = f"{secrets.token_hex(8)}.eml"
        draft = self.root / "outbox" / f".{name}"
        draft.write_bytes(bytes(message))
        draft.rename(self.root / "outbox" / name)
        return f"Sent as {name}.", None

    def web_fetch(self, url: str) -> tuple[str, None]:
        page = self.root / "pages" / f"{url.rpartition('/')[2] or 'returns'}.html"
        if not re.fullmatch(r"https://[a-z0-9.-]+/[a-z0-9-]*", url) or not page.is_file():
            raise SkillFailed("404: there is no such page.")
        return page.read_text(), None

    def _customers(self) -> list[Object]:
        found: list[Object] = json.loads((self.root / "customers.json").read_text())
        return found


def _inside_this_file(action: int, *_: object) -> int:
    """Other files are not the skill's business, whatever the statement says."""
    return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK


def _as_json(cell: object) -> object:
    return cell.hex() if isinstance(cell, bytes) else cell


class Service:
    """One MCP conversation about one skill set."""

    def __init__(self, skill_set: str, root: Path) -> None:
        self.definitions: list[Object] = json.loads((HERE / "skills.json").read_text())[skill_set]
        self.skills: dict[str, tuple[Object, Callable[..., tuple[str, Object | None]]]] = {
            one["name"]: (one, getattr(Skills(root), f"{skill_set}_{one['name']}")) for one in self.definitions
        }
        self.root = root
        self.era = ""
        self.version = ""

    def run(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Answer line by line until the peer closes its end."""
        while line := source.readline(FRAME_LIMIT_BYTES):
            if not line.strip():
                continue
            answer = self.answer(line)
            if answer is not None:
                sink.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
                sink.flush()

    def answer(self, line: bytes) -> Object | list[Object] | None:
        try:
            message = json.loads(line.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return _failure(None, ProtocolFault(-32700, "Parse error"))
        # 2025-03-26 is the one revision in which a receiver must take batches.
        if isinstance(message, list) and message and self.version == "2025-03-26":
            return [one for one in map(self._one, message) if one is not None] or None
        return self._one(message)

    def _one(self, message: Any) -> Object | None:
        id = message.get("id") if isinstance(message, dict) else None
        if (
            not isinstance(message, dict)
            or message.get("jsonrpc") != "2.0"
            or isinstance(id, bool | float | list | dict)
        ):
            return _failure(None, ProtocolFault(-32600, "Not a JSON-RPC 2.0 request"))
        if "method" not in message:
            return None
        if "id" not in message:
            return None
        try:
            params = message.get("params", {})
            if id is None or not isinstance(message["method"], str) or not isinstance(params, dict):
                raise ProtocolFault(-32600, "Not a JSON-RPC 2.0 request")
            return {"jsonrpc": "2.0", "id": id, "result": self._dispatch(message["method"], params)}
        except ProtocolFault as fault:
            return _failure(id, fault)

    def _dispatch(self, method: str, params: Object) -> Object:
        meta = params.get("_meta")
        if isinstance(meta, dict) and f"{PREFIX}protocolVersion" in meta:
            return self._modern(method, params, meta)
        if self.era == "modern":
            if method == "initialize":
                raise _unsupported(params.get("protocolVersion"))
            raise ProtocolFault(-32602, f"_meta lacks {PREFIX}protocolVersion")
        return self._legacy(method, params)

    def _legacy(self, method: str, params: Object) -> Object:
        if method == "initialize":
            if self.era:
                raise ProtocolFault(-32600, "Already initialized")
            wanted = params.get("protocolVersion")
            self.era, self.version = "legacy", wanted if wanted in LEGACY else LEGACY[-1]
            return {"protocolVersion": self.version, "capabilities": {"tools": {}}, "serverInfo": IDENTITY}
        if method == "ping":
            return {}
        if method in ("tools/list", "tools/call") and not self.era:
            raise ProtocolFault(-32600, "initialize first")
        return self._tools(method, params)

    def _modern(self, method: str, params: Object, meta: Object) -> Object:
        if self.era == "legacy":
            raise ProtocolFault(-32600, "This conversation began with initialize")
        if meta[f"{PREFIX}protocolVersion"] not in MODERN:
            raise _unsupported(meta[f"{PREFIX}protocolVersion"])
        if not isinstance(meta.get(f"{PREFIX}clientCapabilities"), dict):
            raise ProtocolFault(-32602, f"_meta lacks {PREFIX}clientCapabilities")
        cache: Object = {}
        if method == "server/discover":
            # A probe leaves the era open: its client may still choose to initialize.
            result: Object = {"supportedVersions": list(MODERN), "capabilities": {"tools": {}}}
        else:
            self.era = "modern"
            result = self._tools(method, params)
        if method != "tools/call":
            cache = {"ttlMs": 60_000, "cacheScope": "public"}
        return {"resultType": "complete", **result, **cache, "_meta": {f"{PREFIX}serverInfo": IDENTITY}}

    def _tools(self, method: str, params: Object) -> Object:
        if method == "tools/list":
            if "cursor" in params:
                raise ProtocolFault(-32602, "There is one page only")
            return {"tools": self.definitions}
        if method == "tools/call":
            return self._call(params)
        raise ProtocolFault(-32601, "Method not found")

    def _call(self, params: Object) -> Object:
        if not holds_key(self.root):
            raise ProtocolFault(KEY_REFUSED, "This service answers only to its private key. Nothing was done.")
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or name not in self.skills:
            raise ProtocolFault(-32602, "Unknown tool")
        definition, skill = self.skills[name]
        _check(arguments, definition["inputSchema"])
        try:
            text, structured = skill(**arguments)
        except SkillFailed as failure:
            return {"content": [{"type": "text", "text": str(failure)}], "isError": True}
        result: Object = {"content": [{"type": "text", "text": text}], "isError": False}
        return result if structured is None else {**result, "structuredContent": structured}


def holds_key(root: Path) -> bool:
    """Whether the environment holds the key that the data directory was made with; compared in constant time."""
    given = hashlib.sha256(os.environ.get(KEY_VARIABLE, "").encode()).hexdigest()
    try:
        wanted = (root / "key.sha256").read_text().strip()
    except OSError:
        return False
    return hmac.compare_digest(given.encode(), wanted.encode())


def _check(arguments: Any, schema: Object) -> None:
    """The part of the schema that the skills' own code relies on: names, types, lengths and bounds."""
    properties = schema["properties"]
    if not isinstance(arguments, dict) or set(arguments) - set(properties):
        raise ProtocolFault(-32602, "Unknown arguments")
    if missing := set(schema.get("required", ())) - set(arguments):
        raise ProtocolFault(-32602, f"Missing arguments: {', '.join(sorted(missing))}")
    for name, value in arguments.items():
        if not _fits(value, properties[name]):
            raise ProtocolFault(-32602, f"Argument {name} does not fit its schema")


def _fits(value: object, rule: Object) -> bool:
    if rule["type"] == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return bool(rule["exclusiveMinimum"] < value <= rule["maximum"])
    if not isinstance(value, str) or not rule.get("minLength", 0) <= len(value) <= rule["maxLength"]:
        return False
    return re.search(rule.get("pattern", ""), value) is not None


def _unsupported(requested: object) -> ProtocolFault:
    return ProtocolFault(-32022, "Unsupported protocol version", supported=list(MODERN), requested=requested)


def _failure(id: object, fault: ProtocolFault) -> Object:
    return {"jsonrpc": "2.0", "id": id, "error": fault.error}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Object:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def initialise(root: Path) -> None:
    """Create the data and a fresh random key. Raises `FileExistsError` where there is a key already."""
    os.umask(0o077)
    for folder in (root, root / "outbox"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_urlsafe(32)
    _write_once(root / "service.key", key)
    _write_once(root / "key.sha256", hashlib.sha256(key.encode()).hexdigest())
    people = customers()
    (root / "customers.json").write_text(json.dumps(people, indent=1))
    (root / "ledger.jsonl").touch(mode=0o600)
    shutil.copytree(HERE / "pages", root / "pages", dirs_exist_ok=True)
    database = sqlite3.connect(root / "shop.sqlite")
    with database:
        database.execute("create table customers (id text primary key, name text, city text, segment text)")
        database.execute("create table orders (id integer primary key, customer text, item text, total real)")
        rows = [(one["id"], one["name"], one["city"], one["segment"]) for one in people]
        database.executemany("insert into customers values (?, ?, ?, ?)", rows)
        orders = [
            (one["id"], item, total) for one in people for item, total in (("espresso machine", 249.0), ("beans", 18.5))
        ]
        database.executemany("insert into orders (customer, item, total) values (?, ?, ?)", orders)
    database.close()


def _write_once(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def customers() -> list[Object]:
    """Five people who do not exist, with card and social security numbers that only look real."""
    people = [
        ("Mara Lindholm", "Portland", "consumer"),
        ("Tobias Achterberg", "Boise", "consumer"),
        ("Keiko Haraldsen", "Salem", "business"),
        ("Ifeanyi Brandt", "Eugene", "consumer"),
        ("Rosa Quintero", "Spokane", "business"),
    ]
    return [
        {
            "id": f"C-{1001 + number}",
            "name": name,
            "email": f"{name.split()[0].lower()}@customer.example",
            "phone": f"+1 503-555-01{number + 10}",
            "card": card_number(number),
            "ssn": f"{540 + number:03}-{21 + number:02}-{6300 + 17 * number:04}",
            "segment": segment,
            "city": city,
        }
        for number, (name, city, segment) in enumerate(people)
    ]


def card_number(number: int) -> str:
    """A test number: an issuer's range, zeros, a counter and the check digit (ISO/IEC 7812-1, Luhn)."""
    body = f"4000123456{7077 + number:05}"
    doubled = (int(digit) * (2 - place % 2) for place, digit in enumerate(body))
    check = -sum(product - 9 if product > 9 else product for product in doubled) % 10
    whole = f"{body}{check}"
    return " ".join(whole[start : start + 4] for start in range(0, 16, 4))


def main(words: list[str]) -> int:
    if words[:1] == ["init"]:
        parser = argparse.ArgumentParser(prog="service.py init", description="Create the data and a fresh random key.")
        parser.add_argument("data", type=Path)
        root: Path = parser.parse_args(words[1:]).data
        try:
            initialise(root)
        except FileExistsError:
            print(f"{root} holds a key already; remove the directory to start anew.", file=sys.stderr)
            return 2
        print(f"{root}: data and key created.")
        return 0
    parser = argparse.ArgumentParser(prog="service.py", description="Serve one skill set over MCP on stdin and stdout.")
    parser.add_argument("--skill-set", required=True, choices=["crm", "payments", "db", "mail", "web"])
    parser.add_argument("--data", required=True, type=Path, help="a directory made by: service.py init DIR")
    options = parser.parse_args(words)
    if not (options.data / "key.sha256").is_file():
        parser.error(f"{options.data} is not initialised; run: service.py init {options.data}")
    Service(options.skill_set, options.data).run(sys.stdin.buffer, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
