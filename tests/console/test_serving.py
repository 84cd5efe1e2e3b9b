"""Serving: lazily, within bounds, and gone with its task."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.x509.oid import NameOID

from interposer.config_approvals import ConsoleConfig, TlsConfig
from interposer.console import serving
from interposer.console.place import Listener, Place
from interposer.errors import ConfigurationError
from tests.console.rooms import ANNA, Room, room


@asynccontextmanager
async def served(place: Place | None = None) -> AsyncIterator[Room]:
    async with room(place=place) as here, anyio.create_task_group() as tasks:
        tasks.start_soon(here.console.serve)
        yield here
        tasks.cancel_scope.cancel()


def port_of(here: Room) -> int:
    port: int = here.console.listener.socket.getsockname()[1]
    return port


async def until_closed(stream: SocketStream) -> bytes:
    got = b""
    try:
        while True:
            got += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return got


async def answered(here: Room, sent: bytes) -> bytes:
    """Everything that comes back until the other end has had enough."""
    stream = await anyio.connect_tcp("127.0.0.1", port_of(here))
    async with stream:
        if sent:
            await stream.send(sent)
        return await until_closed(stream)


def test_nothing_is_loaded_before_somebody_comes() -> None:
    """A broker with a console that nobody looks at has none of the web libraries."""
    script = (
        "import sys; import interposer.console.console, interposer.console.place as place;"
        "place.Listener(place.Place());"
        "print([name for name in ('starlette', 'uvicorn', 'jinja2', 'httpx2', 'h11', 'jwt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


async def test_a_request_is_answered_and_signals_stay_the_brokers() -> None:
    """Over a real socket; uvicorn sets no signal handler, and names neither itself nor the time."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with anyio.fail_after(20):
        async with served() as here, httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{here.console.listener.base}/login")
            assert answer.status_code == 200
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
            assert "server" not in answer.headers


async def test_it_is_gone_with_its_task() -> None:
    """Cancelled while pages are watched: streams end, connections close, the port is free, quickly."""
    with anyio.fail_after(20):
        async with room() as here, anyio.create_task_group() as tasks:
            cookie, _ = here.console.logins.begin(ANNA)
            tasks.start_soon(here.console.serve)
            head = f"GET /events HTTP/1.1\r\nhost: 127.0.0.1:{port_of(here)}\r\n"
            stream = await anyio.connect_tcp("127.0.0.1", port_of(here))
            idle = await anyio.connect_tcp("127.0.0.1", port_of(here))
            await stream.send(f"{head}cookie: {here.console.listener.cookie}={cookie}\r\n\r\n".encode())
            got = b""
            while b"data:" not in got:
                got += await stream.receive()
            port, began = port_of(here), time.monotonic()
            tasks.cancel_scope.cancel()
        assert time.monotonic() - began < 3.0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
        for one in (stream, idle):
            async with one:
                await until_closed(one)


async def test_a_peer_that_says_little_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, or none, before the first request or after one: no connection waits for longer than it may."""
    monkeypatch.setattr(serving, "HEAD_S", 0.2)
    with anyio.fail_after(20):
        async with served() as here:
            assert await answered(here, b"") == b""
            assert await answered(here, b"GET / HTTP/1.1\r\nhost: ") == b""
            async with await anyio.connect_tcp("127.0.0.1", port_of(here)) as stream:
                await stream.send(f"GET /login HTTP/1.1\r\nhost: 127.0.0.1:{port_of(here)}\r\n\r\n".encode())
                got = b""
                while b"</html>" not in got:
                    got += await stream.receive()
                await stream.send(b"GET")
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()


async def test_connections_and_heads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are served, one connection too many is closed unread; a head that is too long is refused."""
    monkeypatch.setattr(serving, "CONNECTIONS", 1)
    with anyio.fail_after(20):
        async with served() as here:
            long = b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n"
            assert (await answered(here, long)).startswith(b"HTTP/1.1 4")
            async with await anyio.connect_tcp("127.0.0.1", port_of(here)) as first:
                await watch(here, first)
                assert await answered(here, b"GET /login HTTP/1.1\r\n\r\n") == b""


async def watch(here: Room, stream: SocketStream) -> None:
    """A request that is served for as long as it likes."""
    cookie, _ = here.console.logins.begin(ANNA)
    head = f"GET /events HTTP/1.1\r\nhost: 127.0.0.1:{port_of(here)}\r\n"
    await stream.send(f"{head}cookie: {here.console.listener.cookie}={cookie}\r\n\r\n".encode())
    got = b""
    while b"data:" not in got:
        got += await stream.receive()


@pytest.mark.parametrize("bound", ["CONNECTIONS", "SHARE"])
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nx: ", b"POST /login HTTP/1.1\r\n%s\r\n\r\na"])
async def test_who_waits_makes_room(monkeypatch: pytest.MonkeyPatch, bound: str, said: bytes) -> None:
    """Connections that say nothing, half a head or half a form starve nobody: the oldest of them goes."""
    monkeypatch.setattr(serving, bound, 2)
    with anyio.fail_after(20):
        async with served() as here, httpx2.AsyncClient(trust_env=False) as client:
            form = f"host: 127.0.0.1:{port_of(here)}\r\norigin: {here.console.listener.base}\r\n"
            form += "content-type: application/x-www-form-urlencoded\r\ncontent-length: 9"
            streams = [await anyio.connect_tcp("127.0.0.1", port_of(here)) for _ in range(2)]
            for stream in streams:
                await stream.send(said % form.encode() if b"%s" in said else said)
            assert (await client.get(f"{here.console.listener.base}/login")).status_code == 200
            assert await until_closed(streams[0]) == b""
            for stream in streams:
                await stream.aclose()


async def test_silent_connections_are_counted_before_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and never begins TLS holds no more descriptors than anybody, and not for long."""
    monkeypatch.setattr(serving, "SHARE", 4)
    monkeypatch.setattr(serving, "HANDSHAKE_S", 1.0)
    chain, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=chain)
    with anyio.fail_after(20):
        async with served(Place(host="localhost", certificate=chain, key=key)) as here:
            silent = [await anyio.connect_tcp("127.0.0.1", port_of(here)) for _ in range(40)]
            for stream in silent[:-4]:
                assert await until_closed(stream) == b""
            async with httpx2.AsyncClient(verify=trust, trust_env=False) as client:
                assert (await client.get(f"{here.console.listener.base}/login")).status_code == 200
            for stream in silent[-4:]:
                assert await until_closed(stream) == b""
            for stream in silent:
                await stream.aclose()


def test_one_party_is_counted_once() -> None:
    """Addresses that somebody has many of are one share."""
    assert serving.party("127.0.0.9") == serving.party("::1") == serving.party("::ffff:127.0.0.1") == "loopback"
    assert serving.party("2001:db8::1") == serving.party("2001:db8::ffff:2") != serving.party("2001:db8:1::1")
    assert serving.party("fe80::1%eth0") == "fe80::/64"
    assert serving.party("192.0.2.1") != serving.party("192.0.2.2")


async def test_slow_clients_end_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """At the end, half a form and an answer that nobody reads are hung up on, and are no faults in the log."""
    with anyio.fail_after(20):
        async with served() as here:
            form = f"host: 127.0.0.1:{port_of(here)}\r\norigin: {here.console.listener.base}\r\n"
            form += "content-type: application/x-www-form-urlencoded\r\ncontent-length: 9"
            slow = [await anyio.connect_tcp("127.0.0.1", port_of(here)) for _ in range(3)]
            for stream in slow:
                await stream.send(f"POST /login HTTP/1.1\r\n{form}\r\n\r\na".encode())
            assert b"421" in await answered(here, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        for stream in slow:
            assert await until_closed(stream) == b""
            await stream.aclose()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def certificate(folder: Path) -> tuple[str, str]:
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*plain))
    return str(folder / "chain.pem"), str(folder / "key.pem")


async def test_tls_is_spoken_where_it_is_configured(tmp_path: Path) -> None:
    """Over https the cookie is Secure and bound to the host."""
    chain, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=chain)
    with anyio.fail_after(20):
        async with served(Place(host="localhost", certificate=chain, key=key)) as here:
            assert here.console.listener.base == f"https://localhost:{port_of(here)}"
            async with httpx2.AsyncClient(verify=trust, trust_env=False) as client:
                answer = await client.post(
                    f"{here.console.listener.base}/login",
                    data={"token": here.console.logins.mint(ANNA, 60.0)},
                    headers={"origin": here.console.listener.base},
                )
                assert answer.status_code == 303
                assert answer.headers["set-cookie"].startswith("__Host-interposer=")


def test_what_cannot_be_served_is_said_at_the_start(tmp_path: Path) -> None:
    """A port that is taken, an address with a path, and TLS without a key are the operator's to correct."""
    taken = Listener(Place())
    try:
        wrong = [
            Place(port=taken.socket.getsockname()[1]),
            Place(url="https://host.example/console"),
            Place(certificate=str(tmp_path / "none.pem"), key=str(tmp_path / "none.pem")),
            Place(host="0.0.0.0"),
            Place(host="::"),
            Place(host="x" * 70),
        ]
        for place in wrong:
            with pytest.raises(ConfigurationError):
                Listener(place)
    finally:
        taken.close()


def test_a_host_that_is_not_there_is_said_in_words() -> None:
    """What the resolver says, not a number of its own."""
    with pytest.raises(ConfigurationError) as caught:
        Listener(Place(host="no such host"))
    assert "Unknown error" not in str(caught.value.problems)
    with pytest.raises(ConfigurationError) as caught:
        Listener(Place(host="0.0.0.0"))
    assert "url" in str(caught.value.problems)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_is_none_to_send_people_to(host: str) -> None:
    """Where the console listens everywhere, its configuration says how people reach it."""
    with pytest.raises(ValueError, match="`url` is needed"):
        ConsoleConfig(host=host, tls=TlsConfig("chain.pem", "key.pem"))
    ConsoleConfig(host=host, tls=TlsConfig("chain.pem", "key.pem"), url="https://console.example")
