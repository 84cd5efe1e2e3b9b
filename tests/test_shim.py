"""The shim: a real process between a client's pipes and a broker's socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from interposer import shim

SHIM = Path(__file__).parents[1] / "interposer" / "shim.py"
MIB = 1024 * 1024
TOKEN = "correct-horse-battery-staple"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the shim as an agent runtime would, in isolated mode and without site-packages."""
    started = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens where a broker would."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "broker.sock"))
        listener.listen()
        listener.settimeout(5)
        yield listener


@pytest.fixture
def tcp_broker() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(5)
        yield listener


def _accept(listener: socket.socket) -> socket.socket:
    peer, _ = listener.accept()
    peer.settimeout(5)
    return peer


def _read(peer: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (data := peer.recv(size - len(got))):
        got += data
    return bytes(got)


def test_bytes_are_copied_both_ways(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """What the client writes reaches the broker, and the answer comes back; the client's end closes both."""
    shim = start(str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        assert shim.stdin
        assert shim.stdout
        shim.stdin.write(b"question\n")
        shim.stdin.flush()
        assert _read(peer, 9) == b"question\n"
        peer.sendall(b"answer\n")
        assert shim.stdout.readline() == b"answer\n"
        shim.stdin.close()
        assert peer.recv(1) == b""
        peer.sendall(b"last words\n")
    assert shim.stdout.read() == b"last words\n"
    assert shim.wait(5) == 0


def test_a_mebibyte_goes_both_ways_at_once(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """Big messages that cross each other do not block each other."""
    shim = start("unix:" + str(tmp_path / "broker.sock"))
    up, down = os.urandom(4 * MIB), os.urandom(4 * MIB)
    with _accept(broker) as peer:
        assert shim.stdin
        assert shim.stdout
        sending = [
            threading.Thread(target=shim.stdin.write, args=(up,)),
            threading.Thread(target=peer.sendall, args=(down,)),
        ]
        for thread in sending:
            thread.start()
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(shim.stdout.read(4 * MIB)))  # type: ignore[union-attr]
        reading.start()
        shim_up = _read(peer, len(up) - 65536)
        for thread in sending:
            thread.join(5)
        shim.stdin.flush()
        shim_up += _read(peer, len(up) - len(shim_up))
        reading.join(5)
    assert shim_up == up
    assert received == [down]


def test_no_broker_is_said_at_once(start: Start, tmp_path: Path) -> None:
    """Without a broker the shim ends with code 5 and one line of what to do, though a message is waiting."""
    shim = start(str(tmp_path / "nobody.sock"))
    out, err = shim.communicate(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n', timeout=5)
    assert shim.returncode == 5
    assert out == b""
    assert err.count(b"\n") == 1
    assert b"interposer serve" in err


def test_a_stalled_broker_does_not_hold_the_shim(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """Two seconds after the end of standard input the shim is gone, though the broker neither answers nor closes."""
    shim = start(str(tmp_path / "broker.sock"))
    with _accept(broker):
        began = time.monotonic()
        shim.communicate(b"hello\n", timeout=5)
        assert shim.returncode == 0
        assert time.monotonic() - began < 2.0


def test_a_broker_that_does_not_read_does_not_hold_the_shim(
    start: Start, broker: socket.socket, tmp_path: Path
) -> None:
    """The end of standard input is noticed even while the broker takes nothing."""
    shim = start(str(tmp_path / "broker.sock"))
    with _accept(broker):
        assert shim.stdin
        os.set_blocking(shim.stdin.fileno(), False)
        written = 0
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            try:
                written += os.write(shim.stdin.fileno(), b"x" * 65536)
            except BlockingIOError:
                if written > 300_000:
                    break
        shim.stdin.close()
        began = time.monotonic()
        shim.wait(5)
        assert time.monotonic() - began < 2.0


def test_a_broker_that_hangs_up_ends_the_shim(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """A broker that goes away is told apart from a client that has ended: code 5, after what it sent."""
    shim = start(str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        peer.sendall(b"goodbye\n")
    assert shim.wait(5) == 5
    assert shim.stdout
    assert shim.stdout.read() == b"goodbye\n"


def test_a_client_that_stops_reading_ends_the_shim(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """A closed standard output is the client's end, not a crash."""
    shim = start(str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        assert shim.stdout
        assert shim.stderr
        shim.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # it may notice before there is anything to write
            peer.sendall(b"anybody?\n")
        assert shim.wait(5) == 0
        assert shim.stderr.read() == b""


@pytest.mark.parametrize("variable", ["INTERPOSER_SOCKET", "INTERPOSER_HOME", "HOME"])
def test_the_socket_is_found_in_the_environment(
    start: Start, tmp_path_factory: pytest.TempPathFactory, variable: str
) -> None:
    """INTERPOSER_SOCKET, else INTERPOSER_HOME, else the state directory below HOME."""
    tmp_path = tmp_path_factory.mktemp("h")  # short: the address of a Unix socket has 107 characters
    place = {"INTERPOSER_SOCKET": "broker.sock", "INTERPOSER_HOME": "broker.sock"}.get(
        variable, ".local/state/interposer/broker.sock"
    )
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / place))
        listener.listen()
        listener.settimeout(5)
        value = str(tmp_path / place) if variable == "INTERPOSER_SOCKET" else str(tmp_path)
        start(**{variable: value})
        _accept(listener).close()


def test_a_token_is_shown_over_tcp(start: Start, tcp_broker: socket.socket, tmp_path: Path) -> None:
    """Over TCP the first line is the authentication, and its answer stays out of the client's stream."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    shim = start("--token-file", str(token_file), f"tcp://127.0.0.1:{tcp_broker.getsockname()[1]}")
    with _accept(tcp_broker) as peer:
        line = peer.recv(4096)
        assert b"interposer/authenticate" in line
        assert TOKEN.encode() in line
        peer.sendall(b'{"jsonrpc":"2.0","id":0,"result":{}}\nfirst\n')
        assert shim.stdin
        assert shim.stdout
        assert shim.stdout.readline() == b"first\n"
        shim.stdin.write(b"hello\n")
        shim.stdin.flush()
        assert _read(peer, 6) == b"hello\n"


def test_a_refused_token_is_said(start: Start, tcp_broker: socket.socket, tmp_path: Path) -> None:
    """A wrong token ends the shim with code 3, and the token is not in the hint."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    shim = start(f"tcp://127.0.0.1:{tcp_broker.getsockname()[1]}", INTERPOSER_TOKEN_FILE=str(token_file))
    with _accept(tcp_broker) as peer:
        peer.recv(4096)
        peer.sendall(b'{"jsonrpc":"2.0","id":0,"error":{"code":-32600,"message":"no"}}\n')
        _, err = shim.communicate(timeout=5)
    assert shim.returncode == 3
    assert TOKEN.encode() not in err


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["a", "b"], ["tcp://192.0.2.1:1", "--token-file", "/dev/null"], ["tcp://127.0.0.1:1"]]
)
def test_wrong_usage_is_said(start: Start, arguments: list[str]) -> None:
    """What cannot be used is refused with code 2 and one line."""
    shim = start(*arguments)
    _, err = shim.communicate(timeout=5)
    assert shim.returncode == 2
    assert err.count(b"\n") == 1


def test_help_ends_with_an_example(start: Start) -> None:
    """`--help` is on standard output and ends with an example."""
    shim = start("--help")
    out, _ = shim.communicate(timeout=5)
    assert shim.returncode == 0
    assert out.rstrip().splitlines()[-1].strip() == b"interposer connect /run/interposer/broker.sock"


def test_the_shim_imports_nothing_of_ours() -> None:
    """Only the standard library, and none of its slow parts."""
    code = (
        f"import sys; sys.path.insert(0, {str(SHIM.parents[1])!r}); import interposer.shim; "
        "slow = ('socket', 'json', 'asyncio', 'argparse', 'typing', 'enum', 're'); "
        "print([m for m in sys.modules if m in slow or m.startswith('interposer.') and m != 'interposer.shim'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True, timeout=10)
    assert done.stdout.strip() == b"[]"


def _jwt(name: str) -> str:
    """Three parts, as a JWT has; nothing in it is looked at on this side."""
    return f"{name}.payload.signature"


def _told(token: str) -> bytes:
    return b'{"jsonrpc":"2.0","method":"notifications/interposer/token","params":{"token":"' + token.encode() + b'"}}\n'


def _replace(path: Path, token: str) -> None:
    """As whoever refreshes tokens should: in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(token)
    fresh.replace(path)


def _lines(peer: socket.socket, count: int) -> list[bytes]:
    got = bytearray()
    while got.count(b"\n") < count and (data := peer.recv(1)):
        got += data
    return bytes(got).splitlines(keepends=True)


@pytest.mark.parametrize("way", ["option", "file variable", "variable"])
def test_a_token_is_the_first_line_on_a_unix_socket(
    start: Start, broker: socket.socket, tmp_path: Path, way: str
) -> None:
    """Who calls is said before anything is asked, whichever way the token came."""
    path = tmp_path / "token"
    path.write_text(_jwt("first") + "\n")
    arguments = ["--token-file", str(path)] if way == "option" else []
    variables = {"file variable": {"INTERPOSER_TOKEN_FILE": str(path)}, "variable": {"INTERPOSER_TOKEN": _jwt("first")}}
    shim = start(*arguments, str(tmp_path / "broker.sock"), **variables.get(way, {}))
    assert shim.stdin
    shim.stdin.write(b"question\n")
    shim.stdin.flush()
    with _accept(broker) as peer:
        assert _lines(peer, 2) == [_told(_jwt("first")), b"question\n"]


def test_a_token_of_any_characters_is_one_line_of_json(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """What is no token cannot break out of its notification."""
    odd = 'a"\\\n\x00é😀'
    (tmp_path / "token").write_text(odd)
    start("--token-file", str(tmp_path / "token"), str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        assert json.loads(_lines(peer, 1)[0])["params"] == {"token": odd}


def test_a_refreshed_token_is_told_while_nothing_is_said(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """A held call gets its new token though the client is silent; a file that is gone is told once, as nobody's."""
    path = tmp_path / "token"
    path.write_text(_jwt("first"))
    start("--token-file", str(path), str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        assert _lines(peer, 1) == [_told(_jwt("first"))]
        _replace(path, _jwt("second"))
        assert _lines(peer, 1) == [_told(_jwt("second"))]
        path.unlink()
        assert _lines(peer, 1) == [_told("")]
        path.write_text(_jwt("third"))
        assert _lines(peer, 1) == [_told(_jwt("third"))]


def test_a_refreshed_token_speaks_for_the_next_message(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """Whoever replaces the file and then asks, asks with the new token; never in the middle of a message."""
    path = tmp_path / "token"
    path.write_text(_jwt("0"))
    shim = start("--token-file", str(path), str(tmp_path / "broker.sock"))
    assert shim.stdin
    with _accept(broker) as peer:
        assert _lines(peer, 1) == [_told(_jwt("0"))]
        for number in range(1, 20):
            _replace(path, _jwt(str(number)))
            os.write(shim.stdin.fileno(), b"whole\nha")
            assert _lines(peer, 2) == [_told(_jwt(str(number))), b"whole\n"]
            assert _read(peer, 2) == b"ha"
            _replace(path, _jwt(f"{number}b"))
            os.write(shim.stdin.fileno(), b"lf\nnext\n")
            assert _lines(peer, 3) == [b"lf\n", _told(_jwt(f"{number}b")), b"next\n"]


def test_tokens_keep_their_order_and_break_no_message(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """A broker that reads late finds every message whole, and the last token behind all the others."""
    path = tmp_path / "token"
    path.write_text(_jwt("0"))
    shim = start("--token-file", str(path), str(tmp_path / "broker.sock"))
    assert shim.stdin
    sent = b"".join(b"%d:" % n + b"x" * (n * 997 % 90_000) + b"\n" for n in range(60))
    changing = threading.Event()

    def change() -> None:
        number = 0
        while not changing.wait(0.002):
            number += 1
            _replace(path, _jwt(str(number)))
        _replace(path, _jwt("last"))

    with _accept(broker) as peer:
        threads = [
            threading.Thread(target=change),
            threading.Thread(target=_write_all, args=(shim.stdin, sent), daemon=True),
        ]
        for thread in threads:
            thread.start()
        got = bytearray()
        try:
            while len(got) < 1_000_000:
                got += peer.recv(4096)
        finally:
            changing.set()
        while _told(_jwt("last")) not in got or got.count(b"\n") - got.count(b"{") // 2 < sent.count(b"\n"):
            got += peer.recv(65536)
        for thread in threads:
            thread.join(5)
        shim.stdin.close()
        while data := peer.recv(65536):
            got += data
    lines = bytes(got).splitlines(keepends=True)
    told = [json.loads(line)["params"]["token"] for line in lines if line.startswith(b"{")]
    assert b"".join(line for line in lines if not line.startswith(b"{")) == sent
    assert told[-1] == _jwt("last")
    numbers = [int(token.partition(".")[0]) for token in told[:-1]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 1


def _write_all(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)
    pipe.flush()


def test_a_later_token_stands_behind_an_earlier_one_that_waits(tmp_path: Path) -> None:
    """While the broker takes nothing, tokens queue in their order, between the messages."""
    path = tmp_path / "token"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        copier = shim._Copier(ours, b"", shim._Token(str(path), ""))
        copier._to_broker = memoryview(b"whole\nha")
        for name in ("first", "second"):
            _replace(path, _jwt(name))
            copier._looked = -shim.LOOK_S
            copier._tell()
        assert copier._to_broker == b"whole\n" + _told(_jwt("first")) + _told(_jwt("second")) + b"ha"


def test_a_token_from_a_pipe_is_read_once(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """`--token-file <(…)` works, and its end is no change."""
    os.mkfifo(tmp_path / "pipe")
    shim = start("--token-file", str(tmp_path / "pipe"), str(tmp_path / "broker.sock"))
    writing = threading.Thread(target=(tmp_path / "pipe").write_text, args=(_jwt("once"),), daemon=True)
    writing.start()
    with _accept(broker) as peer:
        assert _lines(peer, 1) == [_told(_jwt("once"))]
        assert shim.stdin
        shim.stdin.write(b"question\n")
        shim.stdin.flush()
        assert _lines(peer, 1) == [b"question\n"]


def test_a_missing_token_file_is_said_and_is_nobody(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """The kernel's word for the caller does not stand in for a token that is not there yet."""
    path = tmp_path / "token"
    shim = start("--token-file", str(path), str(tmp_path / "broker.sock"))
    with _accept(broker) as peer:
        assert _lines(peer, 1) == [_told("")]
        _replace(path, _jwt("late"))
        assert _lines(peer, 1) == [_told(_jwt("late"))]
    assert shim.stderr
    assert b"no token" in shim.stderr.readline()


def test_only_tokens_that_end_are_shown_again_over_tcp(start: Start, tcp_broker: socket.socket, tmp_path: Path) -> None:
    """A JWT is told again when it changes, after the gate took the first; a static token opens the gate only."""
    address = f"tcp://127.0.0.1:{tcp_broker.getsockname()[1]}"
    jwt, static = tmp_path / "jwt", tmp_path / "static"
    jwt.write_text(_jwt("first"))
    static.write_text(TOKEN)
    for path in (jwt, static):
        shim = start("--token-file", str(path), address)
        assert shim.stdin
        with _accept(tcp_broker) as peer:
            assert b"interposer/authenticate" in _lines(peer, 1)[0]
            _replace(path, _jwt("second"))
            peer.sendall(b'{"jsonrpc":"2.0","id":0,"result":{}}\n')
            shim.stdin.write(b"question\n")
            shim.stdin.flush()
            news = [_told(_jwt("second"))] if path is jwt else []
            assert _lines(peer, len(news) + 1) == [*news, b"question\n"]


def test_without_a_token_nothing_is_added(start: Start, broker: socket.socket, tmp_path: Path) -> None:
    """The first byte on the wire is the client's own."""
    shim = start(str(tmp_path / "broker.sock"))
    assert shim.stdin
    shim.stdin.write(b"question\n")
    shim.stdin.flush()
    with _accept(broker) as peer:
        assert _read(peer, 9) == b"question\n"
