"""A webhook's receiver: a real HTTP server that keeps what it was sent and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given in order, and then OK; None is never answered."""

    url: str = ""
    got: list[Received] = field(default_factory=list)
    answers: deque[bytes | None] = field(default_factory=deque)
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, count: int) -> list[Received]:
        """What came, as soon as there were so many."""
        with anyio.fail_after(5):
            while len(self.got) < count:
                await self.changed.wait()
        return self.got

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.got.append(Received(headers, body))
            answer = self.answers.popleft() if self.answers else OK
            self.changed.set()
            self.changed = anyio.Event()
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def status(code: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} X", "content-length: 0", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def receiver(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    found = Receiver(answers=deque(answers))
    server = await asyncio.start_server(found._serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    found.url = f"http{'s' if tls else ''}://127.0.0.1:{port}/hook?token=not-to-be-shown"
    async with server:
        yield found
