"""A scripted broker in one file: MCP over standard streams or one Unix socket, standard library only.

It also serves as a skill service for the real broker, which speaks the same protocol on both sides.

    fake_broker.py LOG            a line of LOG for each event: `start PID`, `call NAME`, `cancelled`, `end`
    fake_broker.py LOG SOCKET     the same on a Unix socket, one conversation after another

Every call runs in a thread of its own, as a broker's calls do.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections import Counter
from typing import IO, Any

CONSOLE = "https://console.example/q/ap-7"
OBJECT = {"type": "object", "properties": {}}
CUSTOMER = {"type": "object", "properties": {"customer": {"type": "string"}}, "required": ["customer"]}
ODD_NAMES = {"type": "object", "properties": {name: {} for name in ("config", "runtime", "self", "run_manager")}}
SKILLS: list[dict[str, Any]] = [
    {
        "name": "crm.get_customer",
        "description": "A customer's record",
        "inputSchema": CUSTOMER,
        "annotations": {"readOnlyHint": True},
    },
    {"name": "db.query", "description": "SQL", "inputSchema": OBJECT},
    {"name": "payments.refund", "description": "Pay back", "inputSchema": OBJECT},
    {"name": "echo", "inputSchema": {}},
    {"name": "odd_names", "inputSchema": ODD_NAMES},
    *({"name": name, "inputSchema": OBJECT} for name in ("big", "gate", "release", "fails", "picture", "grow")),
    *({"name": name, "inputSchema": OBJECT} for name in ("dies", "bids_farewell", "silent", "offers_nothing", "lost")),
]


class Conversation:
    def __init__(self, lines: IO[bytes], out: IO[bytes], log: str) -> None:
        self.lines, self.out, self.log = lines, out, log
        self.writing = threading.Lock()
        self.opened = threading.Event()
        self.cancelled = threading.Event()
        self.asked: Counter[str] = Counter()
        self.grown = False

    def serve(self) -> None:
        self.note(f"start {os.getpid()}")
        for line in self.lines:
            message = json.loads(line)
            if message["method"] == "notifications/cancelled":
                self.note("cancelled")
                self.cancelled.set()
            elif "id" in message:
                threading.Thread(target=self.answer, args=(message,), daemon=True).start()
        self.note("end")

    def answer(self, message: dict[str, Any]) -> None:
        method, id, params = message["method"], message["id"], message.get("params", {})
        if method == "initialize":
            offer = {"tools": {"listChanged": True}}
            info = {"name": "fake", "version": "0"}
            self.result(id, {"protocolVersion": params["protocolVersion"], "capabilities": offer, "serverInfo": info})
        elif method == "tools/list":
            self.list(id, params.get("cursor"))
        elif method != "tools/call":
            self.send({"id": id, "error": {"code": -32601, "message": "Method not found"}})
        else:
            self.note(f"call {params['name']}")
            self.call(id, params["name"], params["arguments"], params.get("_meta", {}).get("progressToken"))

    def list(self, id: int, cursor: str | None) -> None:
        if cursor is None:
            self.result(id, {"tools": SKILLS[:3], "nextCursor": ""})
        else:
            self.result(id, {"tools": SKILLS[3:] + ([{"name": "grown", "inputSchema": OBJECT}] if self.grown else [])})

    def call(self, id: int, name: str, arguments: dict[str, Any], token: int | None) -> None:
        match name:
            case "crm.get_customer":
                masked = {"customer": arguments["customer"], "card": "[REDACTED:credit_card]"}
                said = {"interposer/decision": {"effect": "allow", "invocation": "inv-1"}}
                self.text(id, json.dumps(masked), structuredContent=masked, _meta=said)
            case "db.query":
                self.denied(id)
            case "payments.refund":
                self.asks_twice(id, json.dumps(arguments, sort_keys=True))
            case "echo" | "odd_names":
                self.text(id, json.dumps(arguments))
            case "big":
                self.text(id, "x" * arguments["size"])
            case "gate":
                if token is not None:
                    self.send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
                self.opened.wait(10)
                self.text(id, "passed")
            case "release":
                self.opened.set()
                self.text(id, "released")
            case "lost":
                decision = {"effect": "allow", "code": -31005, "reason": "outcome_unknown", "invocation": "inv-2"}
                self.text(id, "The outcome is unknown.", isError=True, _meta={"interposer/decision": decision})
            case "fails":
                self.text(id, "the ledger is closed", isError=True)
            case "picture":
                self.picture(id)
            case "grow":
                self.grown = True
                self.send({"method": "notifications/tools/list_changed"})
                self.text(id, "grown")
            case "dies":
                os._exit(1)
            case "bids_farewell":
                self.text(id, "goodbye")
                os._exit(0)
            case "silent":
                self.cancelled.wait(10)
            case "offers_nothing":
                self.result(id, {"content": []})
            case _:
                self.send({"id": id, "error": {"code": -32602, "message": f"Unknown tool: {name}"}})

    def denied(self, id: int) -> None:
        decision = {"effect": "deny", "code": -31001, "reason": "denied", "rule": "no-sql"}
        words = "Blocked by policy rule 'no-sql'. Nothing was executed. Do not retry."
        self.text(id, words, isError=True, _meta={"interposer/decision": decision})

    def asks_twice(self, id: int, canonical: str) -> None:
        self.asked[canonical] += 1
        if self.asked[canonical] > 2:
            self.text(id, "refunded")
            return
        pending = {"approval_id": "ap-7", "expires_at": 4102444800, "retry_after_ms": 1, "url": CONSOLE}
        words = "Waits for approval ap-7. Nothing was executed. Call again with identical arguments after approval."
        self.text(id, words, isError=True, _meta={"interposer/pending": pending})

    def picture(self, id: int) -> None:
        blocks = [
            {"type": "text", "text": "here"},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},
        ]
        self.result(id, {"content": blocks})

    def text(self, id: int, text: str, **more: Any) -> None:
        self.result(id, {"content": [{"type": "text", "text": text}], **more})

    def result(self, id: int, result: dict[str, Any]) -> None:
        self.send({"id": id, "result": result})

    def send(self, message: dict[str, Any]) -> None:
        with self.writing:
            self.out.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self.out.flush()

    def note(self, event: str) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{event}\n".encode())
        os.close(descriptor)


def serve_socket(log: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            peer, _ = listener.accept()
            with peer, peer.makefile("rb") as lines, peer.makefile("wb") as out:
                Conversation(lines, out, log).serve()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        serve_socket(sys.argv[1], sys.argv[2])
    else:
        Conversation(sys.stdin.buffer, sys.stdout.buffer, sys.argv[1]).serve()
        sys.stdout.flush()
        os._exit(0)  # calls that still wait are daemon threads: they do not hold up the end
