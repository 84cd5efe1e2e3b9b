"""A scriptable MCP server on stdio: honest by default, and as hostile as a test asks for. Standard library only.

    upstream.py [--era legacy|modern|dual|silent|exits] [--truth FILE] [--token TEXT] [--script FILE] [--tools FILE]
                [--effects FILE]

`silent` drops what it does not know, `exits` ends at it, both are legacy. `--truth` gets one durable line per received
`tools/call`: what really arrived; `--wire` all that the process was ever given. `--token` is ignored: it marks the
process in `ps`. `--script` holds the rows that the skill `play` emits, so that what is emitted is not in the arguments;
`--tools` holds definitions to offer as well. `--effects` gets one durable line when `pay` takes effect.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
SLEEPER = "import signal; signal.alarm(600); signal.pause()"

ANNOTATIONS = {"destructiveHint": False, "x": [1.5]}

Object = dict[str, Any]


def tool(name: str, **properties: str) -> Object:
    """A definition whose properties are all optional and typed."""
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"name": name, "description": f"The {name} skill.", "inputSchema": schema, "annotations": ANNOTATIONS}


TOOLS = [
    tool("echo", text="string"),
    tool("slow", ms="integer", text="string"),
    tool("boom"),
    tool("die"),
    tool("noise"),
    tool("big", bytes="integer"),
    tool("raw", frames="array", answer="boolean"),
    tool("generate", prefix="string", unit="string", count="integer", suffix="string"),
    tool("steps", values="array"),
    tool("ask"),
    tool("change"),
    tool("spawn", detached="boolean"),
    tool("about"),
    tool("stubborn"),
    tool("play", row="string", every_ms="integer"),
]


def load(path: str) -> list[Object]:
    """JSON lines, read when they are needed: a test may change them while the server runs."""
    if not path:
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Server:
    """One conversation on stdin and stdout."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.opened = False
        self.asked_of_us: list[Object] = []
        self.cancelled: list[Any] = []
        self.listening: Any = None
        self.replies: list[Object] = []

    def run(self) -> None:
        for line in sys.stdin.buffer:
            if self.options.wire:
                self.keep(line)
            if line.strip():
                self.message(json.loads(line))

    def keep(self, line: bytes) -> None:
        """All that this process was ever given: its environment, its command line, and what it read."""
        with open(self.options.wire, "ab") as file:
            if not file.tell():
                file.write(json.dumps([dict(os.environ), sys.argv]).encode() + b"\n")
            file.write(line)

    def write(self, data: bytes) -> None:
        with self.lock:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def send(self, message: Object) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def result(self, id: Any, result: Object) -> None:
        if self.options.era == "modern" or (self.options.era == "dual" and not self.opened):
            info = {META + "serverInfo": {"name": "fake", "version": "1"}, "kept": True}
            result = {"resultType": "complete", "_meta": info, **result}
        self.send({"id": id, "result": result})

    def error(self, id: Any, code: int, message: str, **data: Any) -> None:
        self.send({"id": id, "error": {"code": code, "message": message, **({"data": data} if data else {})}})

    def message(self, message: Object) -> None:
        method, id = message.get("method"), message.get("id")
        params = message.get("params", {})
        if method is None:
            self.replies.append(message)
        elif id is None:
            if method == "notifications/cancelled":
                self.cancelled.append(params.get("requestId"))
        elif method == "initialize" and self.options.era != "modern":
            self.initialize(id, params)
        elif method == "initialize":
            self.error(id, -32022, "Unsupported protocol version", supported=[MODERN])
        elif self.opened or (
            self.options.era in ("modern", "dual") and META + "protocolVersion" in params.get("_meta", {})
        ):
            self.request(id, method, params)
        else:
            self.unknown(id, method)

    def initialize(self, id: Any, params: Object) -> None:
        self.opened = True
        wanted = self.options.version or params["protocolVersion"]
        version = wanted if wanted in (*LEGACY, self.options.version) else LEGACY[0]
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "fake", "version": "1"}
        self.result(
            id,
            {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info, "instructions": "Be kind."},
        )

    def unknown(self, id: Any, method: str) -> None:
        if self.options.era == "exits":
            sys.exit(3)
        if self.options.era != "silent":
            self.error(id, -32601, f"Method not found: {method}")

    def request(self, id: Any, method: str, params: Object) -> None:
        if method == "server/discover" and self.options.era in ("modern", "dual"):
            discovered = {"supportedVersions": [MODERN], "capabilities": {"tools": {"listChanged": True}}}
            self.result(id, {**discovered, "ttlMs": 0, "cacheScope": "private", "instructions": "Be modern."})
        elif method == "subscriptions/listen":
            self.listening = id
            note = {"_meta": {META + "subscriptionId": id}, "notifications": params["notifications"]}
            self.send({"method": "notifications/subscriptions/acknowledged", "params": note})
        elif method == "tools/list":
            self.list(id, params)
        elif method == "tools/call":
            self.called(id, params)
        elif method == "ping":
            self.result(id, {})
        else:
            self.unknown(id, method)

    def list(self, id: Any, params: Object) -> None:
        page = int(params.get("cursor", "0"))
        tools = list(TOOLS) if self.options.pages == 1 else [tool(f"skill_{page}", text="string")]
        if self.options.strict:
            schema = {**tools[0]["inputSchema"], "required": ["text"], "additionalProperties": False}
            tools[0] = {**tools[0], "inputSchema": schema}
        tools += load(self.options.tools)
        if self.options.broken_tools:
            tools += [{"name": "no_schema"}, {"inputSchema": {}}, "text"]  # type: ignore[list-item]
        result: Object = {"tools": tools, "ttlMs": 5, "cacheScope": "private"}
        if self.options.cyclic:
            result["nextCursor"] = "1"
        elif page + 1 < self.options.pages:
            result["nextCursor"] = str(page + 1)
        self.result(id, result)

    def called(self, id: Any, params: Object) -> None:
        if self.options.truth:
            with open(self.options.truth, "a", encoding="utf-8") as file:
                seen = {"name": params["name"], "arguments": params.get("arguments")}
                if self.options.witness:
                    seen |= {"meta": params.get("_meta"), "at": time.time(), "pid": os.getpid()}
                file.write(json.dumps(seen) + "\n")
                file.flush()
                os.fsync(file.fileno())
        skill = getattr(self, "do_" + params["name"], None)
        if skill is None:
            self.error(id, -32602, f"Unknown tool: {params['name']}")
        else:
            skill(id, params.get("arguments", {}), params.get("_meta", {}))

    def text(self, id: Any, text: str) -> None:
        self.result(id, {"content": [{"type": "text", "text": text}]})

    def do_echo(self, id: Any, arguments: Object, meta: Object) -> None:
        self.text(id, arguments.get("text", ""))

    def do_slow(self, id: Any, arguments: Object, meta: Object) -> None:
        timer = threading.Timer(arguments["ms"] / 1000, self.text, (id, arguments.get("text", "late")))
        timer.daemon = True
        timer.start()

    def do_pay(self, id: Any, arguments: Object, meta: Object) -> None:
        """Take effect after `before_ms`, and answer `after_ms` later: also when whoever asked is gone by then."""
        text = arguments["text"]

        def effect() -> None:
            with open(self.options.effects, "a", encoding="utf-8") as file:
                file.write(json.dumps({"text": text, "at": time.time()}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            threading.Timer(arguments.get("after_ms", 0) / 1000, self.paid, (id, text)).start()

        threading.Timer(arguments.get("before_ms", 0) / 1000, effect).start()

    def paid(self, id: Any, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.text(id, f"paid {text}")

    def do_boom(self, id: Any, arguments: Object, meta: Object) -> None:
        self.error(id, -32050, "boom", why="asked to")

    def do_die(self, id: Any, arguments: Object, meta: Object) -> None:
        sys.stderr.write("dying now\n")
        sys.stderr.flush()
        os._exit(9)

    def do_noise(self, id: Any, arguments: Object, meta: Object) -> None:
        self.write(b'Server listening on stdio\n{"level":30,"msg":"hello"}\n\x1b[2J\n')
        self.text(id, "quiet again")

    def do_big(self, id: Any, arguments: Object, meta: Object) -> None:
        self.text(id, "B" * arguments["bytes"])

    def do_raw(self, id: Any, arguments: Object, meta: Object) -> None:
        """Emit base64 frames as they are, `"$ID"` and `"$TOK"` replaced; then answer, if asked to."""
        for frame in arguments["frames"]:
            data = base64.b64decode(frame).replace(b'"$ID"', json.dumps(id).encode())
            self.write(data.replace(b'"$TOK"', json.dumps(meta.get("progressToken", 0)).encode()))
        if arguments.get("answer"):
            self.text(id, "after the frames")

    def do_generate(self, id: Any, arguments: Object, meta: Object) -> None:
        """Emit prefix, unit × count, suffix (base64) without building it, then answer the call if it still waits."""
        prefix, unit, suffix = (base64.b64decode(arguments[key]) for key in ("prefix", "unit", "suffix"))
        self.write(prefix.replace(b'"$ID"', json.dumps(id).encode()))
        count, many = arguments["count"], max(1, 65536 // max(1, len(unit)))
        while count > 0:
            self.write(unit * min(many, count))
            count -= many
        self.write(suffix)
        self.text(id, "after the flood")

    def do_play(self, id: Any, arguments: Object, meta: Object) -> None:
        """Emit a row of the script: its frames as lines (`STDERR:` in front: to stderr), or prefix, unit × count,
        suffix. Then answer, in case that the call still waits; with `every_ms`, emit again and again instead."""
        row = next(row for row in load(self.options.script) if row["row"] == arguments["row"])
        if "unit" in row:
            self.do_generate(id, row, meta)
            return
        self.emit(row["frames"], id, meta)
        if "every_ms" in arguments:
            never = threading.Event()
            while not never.wait(arguments["every_ms"] / 1000):
                self.emit(row["frames"], id, meta)
        self.text(id, "after the row")

    def emit(self, frames: Any, id: Any, meta: Object) -> None:
        for frame in frames:
            if frame.startswith("STDERR:"):
                sys.stderr.write(frame.removeprefix("STDERR:") + "\n")
                sys.stderr.flush()
            else:
                data = frame.encode().replace(b'"$ID"', json.dumps(id).encode())
                token = json.dumps(meta.get("progressToken", 0)).encode()
                self.write(data.replace(b'"$TOK"', token).rstrip(b"\n") + b"\n")

    def do_steps(self, id: Any, arguments: Object, meta: Object) -> None:
        for value in arguments["values"]:
            params = {
                "progressToken": meta.get("progressToken"),
                "progress": value,
                "total": 10,
                "message": f"at {value}",
            }
            self.send({"method": "notifications/progress", "params": params})
        self.text(id, "done")

    def do_ask(self, id: Any, arguments: Object, meta: Object) -> None:
        self.result(id, {"resultType": "input_required", "requestState": "s"})

    def do_change(self, id: Any, arguments: Object, meta: Object) -> None:
        params = {} if self.listening is None else {"_meta": {META + "subscriptionId": self.listening}}
        self.send({"method": "notifications/tools/list_changed", "params": params})
        self.text(id, "changed")

    def do_spawn(self, id: Any, arguments: Object, meta: Object) -> None:
        """A grandchild that would outlive us; `detached` puts it in a session of its own, its parent gone."""
        command = [sys.executable, "-c", SLEEPER, self.options.token]
        if arguments.get("detached"):
            script = f"import subprocess,sys; subprocess.Popen({command!r}, start_new_session=True)"
            subprocess.run([sys.executable, "-c", script], check=True, stdin=subprocess.DEVNULL)
        else:
            subprocess.Popen(command)
        self.text(id, "spawned")

    def do_about(self, id: Any, arguments: Object, meta: Object) -> None:
        about = {
            "pid": os.getpid(),
            "environ": dict(os.environ),
            "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
            "cwd": os.getcwd(),
            "meta": meta,
            "cancelled": self.cancelled,
            "replies": self.replies,
        }
        self.text(id, json.dumps(about))

    def do_stubborn(self, id: Any, arguments: Object, meta: Object) -> None:
        """Ignore SIGTERM and the end of stdin from now on."""
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.text(id, "I stay")
        signal.alarm(600)
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", default="legacy", choices=["legacy", "modern", "dual", "silent", "exits"])
    parser.add_argument("--version", default="")
    parser.add_argument("--truth", default="")
    parser.add_argument("--effects", default="")
    parser.add_argument("--token", default="")
    parser.add_argument("--wire", default="")
    parser.add_argument("--script", default="")
    parser.add_argument("--tools", default="")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--cyclic", action="store_true")
    parser.add_argument("--broken-tools", action="store_true")
    Server(parser.parse_args()).run()


if __name__ == "__main__":
    main()
