"""Unix and TCP listeners: who gets in, and where a socket may stand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.errors import ConfigurationError
from interposer.ports import Secret, Transport
from interposer.transports.link import Limits
from interposer.transports.sockets import TcpSocket, UnixSocket
from tests.fakes.peer import Echo, RawPeer, receive_all, receive_exactly

TOKEN = "correct-horse-battery-staple"
TOKENS = [(Secret("another-token-of-someone"), "bob"), (Secret(TOKEN), "ann")]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def _served(transport: Transport) -> AsyncIterator[tuple[str, list[Echo]]]:
    """Serve an echo; gives the address and the receivers."""
    receivers: list[Echo] = []
    address: list[str] = []
    ready = anyio.Event()

    def accept(connection: Any) -> Echo:
        receivers.append(Echo(connection))
        return receivers[-1]

    def note(given: str) -> None:
        address.append(given)
        ready.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.serve, accept, note)
        with anyio.fail_after(5):
            await ready.wait()
        yield address[0], receivers
        tasks.cancel_scope.cancel()


@pytest.fixture
def dial() -> Any:
    """Connect to an address; hung up after the test."""
    opened: list[socket.socket] = []

    def connect(address: str) -> RawPeer:
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address.removeprefix("unix:"))
        else:
            sock = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)
        opened.append(sock)
        return RawPeer.on(sock)

    yield connect
    for sock in opened:
        sock.close()


Dial = Callable[[str], RawPeer]


async def test_a_unix_peer_is_whom_the_kernel_says(tmp_path: Path, dial: Dial) -> None:
    """The caller's uid, gid and pid come from the kernel."""
    async with _served(UnixSocket(str(tmp_path / "s"))) as (address, receivers):
        peer = dial(address)
        await peer.send(b"x")
        with anyio.fail_after(5):
            await receive_exactly(peer, 1)
        caller = receivers[0].connection.caller
    assert (caller.transport, caller.uid, caller.gid, caller.pid) == ("unix", os.getuid(), os.getgid(), os.getpid())


async def test_a_unix_socket_has_its_mode_and_goes_away(tmp_path: Path) -> None:
    """Whatever the umask, the socket has the configured mode, and nothing is left of it at the end."""
    path = tmp_path / "s"
    before = os.umask(0o077)
    try:
        async with _served(UnixSocket(str(path), 0o620)):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o620
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_socket_that_is_no_longer_ours_is_left(tmp_path: Path) -> None:
    """What somebody put in the socket's place is not removed."""
    path = tmp_path / "s"
    async with _served(UnixSocket(str(path))):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


async def test_a_stale_socket_is_replaced(tmp_path: Path, dial: Dial) -> None:
    """A socket that a killed broker left behind does not keep the next one from starting."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    async with _served(UnixSocket(str(path))) as (address, _):
        dial(address)


async def test_a_living_socket_is_not_taken_over(tmp_path: Path) -> None:
    """Where another broker listens, a second one is refused."""
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(tmp_path / "s"))
        living.listen()
        with pytest.raises(ConfigurationError, match="another broker"):
            await UnixSocket(str(tmp_path / "s")).serve(Echo, lambda address: None)
    assert (tmp_path / "s").exists()


async def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    """Something that is not a socket is never removed."""
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        await UnixSocket(str(tmp_path / "s")).serve(Echo, lambda address: None)
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Nobody else may be able to put a socket under our name: not in the directory, and not above it."""
    below = tmp_path / "shared" / "private"
    below.mkdir(parents=True)
    below.chmod(0o700)
    for mode in (0o777, 0o773):
        (tmp_path / "shared").chmod(mode)
        with pytest.raises(ConfigurationError, match="writable by everybody"):
            await UnixSocket(str(below / "s")).serve(Echo, lambda address: None)
    (tmp_path / "link").symlink_to(below)
    with pytest.raises(ConfigurationError, match="writable by everybody"):
        await UnixSocket(str(tmp_path / "link" / "s")).serve(Echo, lambda address: None)
    (tmp_path / "shared").chmod(0o1777)
    async with _served(UnixSocket(str(below / "s"))):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
async def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A directory's owner could replace the socket; so could a group that can write to it."""
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, -1)
    with pytest.raises(ConfigurationError, match="belongs to uid 65534"):
        await UnixSocket(str(place / "s")).serve(Echo, lambda address: None)
    os.chown(place, 0, 65534)
    place.chmod(0o770)
    with pytest.raises(ConfigurationError, match="writable by group"):
        await UnixSocket(str(place / "s")).serve(Echo, lambda address: None)


@pytest.mark.parametrize("path", ["\0abstract", "", "/" + "x" * 107])
def test_a_path_that_is_no_file_is_refused(path: str) -> None:
    """Abstract sockets and paths that the kernel would cut are refused."""
    with pytest.raises(ConfigurationError):
        UnixSocket(path)


async def test_one_peer_too_many_is_told_so(tmp_path: Path, dial: Dial) -> None:
    """Beyond the limit a peer gets one error and the end; whoever is inside is served, and a place becomes free."""
    async with _served(UnixSocket(str(tmp_path / "s"), limits=Limits(connections=1))) as (address, _):
        inside = dial(address)
        with anyio.fail_after(5):
            await inside.send(b"a")
            assert await receive_exactly(inside, 1) == b"a"
            assert json.loads(await receive_all(dial(address)))["error"]["code"] == -31003
            await inside.send(b"b")
            assert await receive_exactly(inside, 1) == b"b"
            inside.end()
            assert await receive_all(inside) == b""
            while not await _is_let_in(dial(address)):
                await anyio.lowlevel.checkpoint()


async def _is_let_in(peer: RawPeer) -> bool:
    try:
        await peer.send(b"c")
    except BrokenPipeError:
        return False
    return await receive_exactly(peer, 1) == b"c"


async def test_running_out_of_descriptors_is_survived(tmp_path: Path, dial: Dial) -> None:
    """With no descriptor left, who is inside is served, and who waits is let in when there is one again."""
    async with _served(UnixSocket(str(tmp_path / "s"), limits=Limits(backoff_s=0.05))) as (address, _):
        inside, waiting = dial(address), socket.socket(socket.AF_UNIX)
        with waiting, anyio.fail_after(5):
            await inside.send(b"a")
            assert await receive_exactly(inside, 1) == b"a"
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            try:
                waiting.connect(str(tmp_path / "s"))
                for _ in range(5):
                    await inside.send(b"b")
                    assert await receive_exactly(inside, 1) == b"b"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            late = RawPeer.on(waiting)
            await late.send(b"c")
            assert await receive_exactly(late, 1) == b"c"


def _hello(token: str, **more: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": 7, "method": "interposer/authenticate", "params": {"token": token}}
    return json.dumps({**request, **more}).encode() + b"\n"


async def test_the_right_token_opens_the_conversation(dial: Dial) -> None:
    """After its token a TCP peer is known by the token's label; bytes behind the first line are not lost."""
    async with _served(TcpSocket("localhost", 0, TOKENS)) as (address, receivers):
        peer = dial(address)
        await peer.send(_hello(TOKEN) + b"early\n")
        with anyio.fail_after(5):
            welcome = b'{"jsonrpc":"2.0","id":7,"result":{}}\n'
            assert await receive_exactly(peer, len(welcome) + 6) == welcome + b"early\n"
        assert receivers[0].connection.caller.label == "ann"
        assert TOKEN not in repr(receivers[0].connection.caller)


async def test_a_first_line_may_come_byte_by_byte(dial: Dial) -> None:
    """However the first line is cut, it is one line."""
    async with _served(TcpSocket("127.0.0.1", 0, TOKENS)) as (address, _):
        peer = dial(address)
        for n in _hello(TOKEN):
            await peer.send(bytes([n]))
        with anyio.fail_after(5):
            assert b'"result":{}' in await receive_exactly(peer, 20 + 17)


@pytest.mark.parametrize(
    "line",
    [
        _hello("wrong-token-of-some-length"),
        _hello(""),
        _hello(TOKEN, method="initialize"),
        _hello(TOKEN, jsonrpc="1.0"),
        _hello(TOKEN, id=None),
        _hello(TOKEN, params=[TOKEN]),
        _hello(TOKEN + "\ud800"),
        b"POST / HTTP/1.1\r\n",
        b"[]\n",
        b"\xff\n",
        b"x" * 17_000,
        _hello(TOKEN, pad="x" * 17_000),
    ],
)
async def test_without_the_token_there_is_no_conversation(dial: Dial, line: bytes) -> None:
    """Whatever else comes first is answered by one constant error and the end; no receiver is ever made."""
    async with _served(TcpSocket("127.0.0.1", 0, TOKENS)) as (address, receivers):
        peer = dial(address)
        await peer.send(line)
        with anyio.fail_after(5):
            answer = json.loads(await receive_all(peer))
        assert answer["error"]["code"] == -32600
        assert TOKEN not in json.dumps(answer)
        assert receivers == []


async def test_a_silent_tcp_peer_is_hung_up_on(dial: Dial) -> None:
    """A peer that shows no token in time is gone."""
    async with _served(TcpSocket("127.0.0.1", 0, TOKENS, limits=Limits(authenticate_s=0.05))) as (address, receivers):
        with anyio.fail_after(5):
            assert b"-32600" in await receive_all(dial(address))
        assert receivers == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_only_loopback_is_served(host: str) -> None:
    """A token in the clear does not belong on a network."""
    with pytest.raises(ConfigurationError, match="loopback"):
        TcpSocket(host, 0, TOKENS)


@pytest.mark.parametrize("tokens", [[], [(Secret("short"), "ann")], [TOKENS[0], TOKENS[0]]])
def test_weak_tokens_are_refused(tokens: list[tuple[Secret, str]]) -> None:
    """No token, one that can be guessed, and one for two callers are configuration errors."""
    with pytest.raises(ConfigurationError):
        TcpSocket("127.0.0.1", 0, tokens)


async def test_a_port_in_use_is_said() -> None:
    """A port that another process has is a configuration error, not a crash."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigurationError, match="another port"):
            await TcpSocket("127.0.0.1", other.getsockname()[1], TOKENS).serve(Echo, lambda address: None)


GOOD, BAD = "head.payload.signature", "head.other.signature"


class Judge:
    """Accepts one token; with `gate`, only when it is opened."""

    def __init__(self, gate: anyio.Event | None = None) -> None:
        self.asked: list[str] = []
        self.cancelled = anyio.Event()
        self._gate = gate

    async def __call__(self, token: str) -> bool:
        self.asked.append(token)
        try:
            if self._gate is not None:
                await self._gate.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return token == GOOD


@pytest.mark.parametrize("tokens", [[], TOKENS], ids=["issuers only", "static tokens too"])
async def test_an_issuers_token_opens_the_conversation(dial: Dial, tokens: list[tuple[Secret, str]]) -> None:
    """A token that is none of the static ones is judged; accepted, it is what the caller speaks by from then on."""
    judge = Judge()
    async with _served(TcpSocket("127.0.0.1", 0, tokens, judge=judge)) as (address, receivers):
        peer = dial(address)
        await peer.send(_hello(GOOD) + b"early\n")
        with anyio.fail_after(5):
            welcome = b'{"jsonrpc":"2.0","id":7,"result":{}}\n'
            assert await receive_exactly(peer, len(welcome) + 6) == welcome + b"early\n"
            await peer.send(b"late\n")
            assert await receive_exactly(peer, 5) == b"late\n"
        caller = receivers[0].connection.caller
    assert (caller.token, caller.label) == (GOOD, None)
    assert GOOD not in repr(caller)
    assert judge.asked == [GOOD]


async def test_a_static_token_needs_no_judge(dial: Dial) -> None:
    """What is ours is not shown to anybody else."""
    judge = Judge()
    async with _served(TcpSocket("127.0.0.1", 0, TOKENS, judge=judge)) as (address, receivers):
        peer = dial(address)
        await peer.send(_hello(TOKEN) + b"x")
        with anyio.fail_after(5):
            welcome = b'{"jsonrpc":"2.0","id":7,"result":{}}\n'
            assert await receive_exactly(peer, len(welcome) + 1) == welcome + b"x"
        assert receivers[0].connection.caller.label == "ann"
    assert judge.asked == []


async def test_a_token_of_eight_kibibytes_fits(dial: Dial) -> None:
    """The largest token that an issuer may give is not cut off by the gate."""
    judge = Judge()
    async with _served(TcpSocket("127.0.0.1", 0, [], judge=judge)) as (address, _):
        peer = dial(address)
        await peer.send(_hello("x" * 8192))
        with anyio.fail_after(5):
            assert b"-32600" in await receive_all(peer)
    assert judge.asked == ["x" * 8192]


@pytest.mark.parametrize("flood", [b"", b"x" * 1_000_000], ids=["silent", "flooding"])
async def test_nothing_is_kept_of_a_peer_that_is_being_judged(dial: Dial, flood: bytes) -> None:
    """Until its token is accepted no conversation is begun, and a judge that does not answer in time has said no."""
    judge = Judge(anyio.Event())
    limits = Limits(authenticate_s=0.2)
    async with _served(TcpSocket("127.0.0.1", 0, [], judge=judge, limits=limits)) as (address, receivers):
        peer = dial(address)
        with anyio.fail_after(5):
            await peer.send(_hello(GOOD))
            while not judge.asked:
                await anyio.lowlevel.checkpoint()
            async with anyio.create_task_group() as sending:
                sending.start_soon(_send_what_goes, peer, flood)
                await judge.cancelled.wait()
                assert b"-32600" in await _rest(peer)
                sending.cancel_scope.cancel()
        assert receivers == []


async def _send_what_goes(peer: RawPeer, data: bytes) -> None:
    with contextlib.suppress(OSError):
        await peer.send(data)


async def _rest(peer: RawPeer) -> bytes:
    try:
        return await receive_all(peer)
    except ConnectionResetError:  # it was hung up on while it sent
        return b"-32600"


async def test_a_long_tail_behind_a_token_to_be_judged_is_refused(dial: Dial) -> None:
    """Whoever is not known yet cannot have us keep a conversation for them."""
    async with _served(TcpSocket("127.0.0.1", 0, [], judge=Judge())) as (address, receivers):
        peer = dial(address)
        with anyio.fail_after(5):
            await peer.send(_hello(GOOD) + b"x" * 20_000)
            assert b"-32600" in await receive_all(peer)
        assert receivers == []


async def test_a_peer_that_leaves_while_it_is_judged_is_forgotten(dial: Dial) -> None:
    """Its place becomes free at the end of the authentication time at the latest."""
    gate = anyio.Event()
    judge = Judge(gate)
    limits = Limits(connections=1, authenticate_s=0.1)
    async with _served(TcpSocket("127.0.0.1", 0, TOKENS, judge=judge, limits=limits)) as (address, receivers):
        gone = dial(address)
        with anyio.fail_after(5):
            await gone.send(_hello(GOOD))
            while not judge.asked:
                await anyio.lowlevel.checkpoint()
            gone.end()
            await judge.cancelled.wait()
            while not await _is_let_in_by(dial(address)):
                await anyio.lowlevel.checkpoint()
        assert len(receivers) == 1


async def _is_let_in_by(peer: RawPeer) -> bool:
    try:
        await peer.send(_hello(TOKEN))
        return b'"result"' in await receive_exactly(peer, 36)
    except OSError:
        return False


async def test_a_judge_that_breaks_lets_nobody_in(dial: Dial) -> None:
    """A fault at the gate is a refusal, and is not kept quiet."""

    async def broken(token: str) -> bool:
        raise RuntimeError("broken")

    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: faults.append(found["exception"]))
    async with _served(TcpSocket("127.0.0.1", 0, [], judge=broken)) as (address, receivers):
        peer = dial(address)
        await peer.send(_hello(GOOD))
        with anyio.fail_after(5):
            assert b"-32600" in await receive_all(peer)
        assert receivers == []
    assert [str(fault) for fault in faults] == ["broken"]


async def test_refusals_are_reported_in_moderation(dial: Dial) -> None:
    """Each reason is told of, and a hundred knocks in a second are told of once."""
    told: list[str] = []
    limits = Limits(authenticate_s=0.2)
    transport = TcpSocket("127.0.0.1", 0, TOKENS, judge=Judge(), limits=limits, on_refused=told.append)
    async with _served(transport) as (address, _):
        with anyio.fail_after(5):
            for line in (_hello(BAD), _hello(BAD), _hello("no-token"), b"[]\n"):
                peer = dial(address)
                await peer.send(line)
                await receive_all(peer)
            await receive_all(dial(address))
    assert told == ["bad_token", "no_token"]


@pytest.mark.parametrize("ours", [True, False])
async def test_a_uid_that_is_not_listed_is_turned_away(tmp_path: Path, dial: Dial, ours: bool) -> None:
    """Whatever the socket's mode lets in, the list decides; whoever is turned away is told so, and is reported."""
    told: list[str] = []
    uids = [os.getuid() if ours else os.getuid() + 1]
    transport = UnixSocket(str(tmp_path / "s"), 0o666, uids=uids, on_refused=told.append)
    async with _served(transport) as (address, receivers):
        peer = dial(address)
        with anyio.fail_after(5):
            if ours:
                await peer.send(b"x")
                assert await receive_exactly(peer, 1) == b"x"
            else:
                answer = json.loads(await receive_all(peer))
                assert answer["error"]["code"] == -32600
                assert "may not connect" in answer["error"]["message"]
        assert len(receivers) == ours
    assert told == ([] if ours else ["foreign_uid"])


async def test_an_empty_list_of_uids_lets_nobody_in(tmp_path: Path, dial: Dial) -> None:
    """A list without entries is a list, and not the absence of one."""
    async with _served(UnixSocket(str(tmp_path / "s"), uids=[])) as (address, receivers):
        with anyio.fail_after(5):
            assert b"may not connect" in await receive_all(dial(address))
        assert receivers == []
