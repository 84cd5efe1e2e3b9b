"""`interposer connect`: standard input and output on one side, the broker's socket on the other, and nothing else.

It holds no credential and no state, understands no message, and imports the standard library only: an agent runtime
may spawn one for every call. It ends within two seconds of the end of its standard input, whatever the broker does.
"""

from __future__ import annotations

# _socket, because the module on top of it takes 10 ms to import, as long as the whole interpreter (benchmarks/shim.py).
import _socket
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UNAVAILABLE = 5
DENIED = 3
USAGE = 2
CHUNK_BYTES = 256 * 1024
DRAIN_S = 1.5
"""After the end of standard input; with start and exit of the interpreter that stays below two seconds."""
CONNECT_S = 2.0
AUTHENTICATE_S = 5.0
ANSWER_BYTES = 64 * 1024

USAGE_TEXT = """\
Usage: interposer connect [--token-file FILE] [SOCKET]

  Connect standard input and output to a running broker.

  SOCKET is a path, unix:PATH or tcp://127.0.0.1:PORT. Default: $INTERPOSER_SOCKET, then broker.sock in
  $INTERPOSER_HOME (~/.local/state/interposer). TCP needs a token: --token-file, or $INTERPOSER_TOKEN_FILE.

Example:

  interposer connect /run/interposer/broker.sock
"""


class Failure(Exception):
    """Why there is no connection: an exit code, and one line with what to do."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(hint)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the shim. Returns the exit code: 0 the client ended, 2 usage, 3 token refused, 5 no broker."""
    try:
        arguments = _arguments(list(sys.argv[1:] if argv is None else argv))
        if arguments is None:
            sys.stdout.write(USAGE_TEXT)
            return 0
        _require_standard_streams()
        broker, early = _connect(*arguments)
        try:
            return _Copier(broker, early).run()
        finally:
            broker.close()
    except Failure as failure:
        _say(str(failure))
        return failure.code
    except KeyboardInterrupt:
        return 130


def _say(hint: str) -> None:
    try:
        os.write(2, f"interposer connect: {hint}\n".encode())
    except OSError:
        return  # nobody listens, and the exit code says it too


def _arguments(argv: list[str]) -> tuple[str, str] | None:
    """(address, token file); None when help is asked for."""
    address, token_file = "", os.environ.get("INTERPOSER_TOKEN_FILE", "")
    while argv:
        word = argv.pop(0)
        if word in ("-h", "--help"):
            return None
        if word == "--token-file" and argv:
            token_file = argv.pop(0)
        elif word.startswith("--token-file="):
            token_file = word.partition("=")[2]
        elif word.startswith("-") or address:
            raise Failure(USAGE, f"cannot use {word!r}; see interposer connect --help")
        else:
            address = word
    return address or _default_socket(), token_file


def _require_standard_streams() -> None:
    # A closed one would be given to the socket, which would then talk to itself.
    try:
        os.fstat(0)
        os.fstat(1)
    except OSError:
        raise Failure(USAGE, "needs an open standard input and output") from None


def _default_socket() -> str:
    given = os.environ.get("INTERPOSER_SOCKET")
    if given:
        return given
    home = os.environ.get("INTERPOSER_HOME") or os.path.expanduser("~/.local/state/interposer")
    return os.path.join(home, "broker.sock")


def _connect(address: str, token_file: str) -> tuple[_socket.socket, bytes]:
    """The connected broker, and bytes that it sent already."""
    if address.startswith("tcp://"):
        token = _token(token_file)
        broker = _connect_tcp(address)
        return broker, _authenticate(broker, token)
    path = address.removeprefix("unix:")
    broker = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # A broker that listens but does not accept would hold a blocking connect for ever; a struct timeval bounds it.
    seconds = int(CONNECT_S).to_bytes(8, sys.byteorder) + bytes(8)
    broker.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, seconds)
    try:
        broker.connect(path)
    except OSError as error:
        broker.close()
        raise Failure(UNAVAILABLE, f"no broker at {path} ({error.strerror}); start it with: interposer serve") from None
    return broker, b""


def _connect_tcp(address: str) -> _socket.socket:
    host, _, port = address.removeprefix("tcp://").rstrip("/").rpartition(":")
    host = host.strip("[]")
    if not (host == "localhost" or host == "::1" or host.startswith("127.")) or not port.isdecimal():
        raise Failure(USAGE, f"cannot use {address}; TCP is for loopback only: tcp://127.0.0.1:PORT")
    broker = _socket.socket(_socket.AF_INET6 if host == "::1" else _socket.AF_INET, _socket.SOCK_STREAM)
    broker.settimeout(CONNECT_S)
    try:
        broker.connect((host, int(port)))
        broker.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        broker.close()
        raise Failure(UNAVAILABLE, f"no broker at {address} ({error}); start it with: interposer serve") from None
    return broker


def _token(token_file: str) -> str:
    if not token_file:
        raise Failure(USAGE, "TCP needs a token; give --token-file FILE, or set INTERPOSER_TOKEN_FILE")
    try:
        with open(token_file, encoding="utf-8") as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError):
        raise Failure(USAGE, f"cannot read the token file {token_file}") from None
    if not token:
        raise Failure(USAGE, f"the token file {token_file} is empty")
    return token


def _authenticate(broker: _socket.socket, token: str) -> bytes:
    """Show the token; returns what came after the answer."""
    import json

    request = {"jsonrpc": "2.0", "id": 0, "method": "interposer/authenticate", "params": {"token": token}}
    deadline = time.monotonic() + AUTHENTICATE_S
    got = bytearray()
    try:
        broker.sendall(json.dumps(request).encode() + b"\n")
        while b"\n" not in got and len(got) < ANSWER_BYTES:
            broker.settimeout(max(deadline - time.monotonic(), 0.001))
            data = broker.recv(ANSWER_BYTES)
            if not data:
                break
            got += data
        answer, _, rest = bytes(got).partition(b"\n")
        accepted = "result" in json.loads(answer)
    except (OSError, ValueError, TypeError):
        broker.close()
        raise Failure(UNAVAILABLE, "the broker did not answer; is there one at this address?") from None
    if not accepted:
        broker.close()
        raise Failure(DENIED, "the broker did not accept the token; check the token file")
    return rest


class _Copier:
    """Copies bytes both ways. One chunk is held in each direction at most; what is not taken is not read."""

    def __init__(self, broker: _socket.socket, early: bytes) -> None:
        broker.setblocking(False)
        self._broker = broker
        self._to_broker = memoryview(b"")
        self._to_client = memoryview(early)
        self._client_ended = False
        self._broker_ended = False
        self._deadline: float | None = None
        # poll, because epoll refuses regular files and /dev/null.
        self._poll = select.poll()
        self._watched = {0: -1, 1: -1, broker.fileno(): -1}

    def run(self) -> int:
        # Standard input stays blocking: it is read only when it has something, and it may be somebody's terminal.
        blocking = os.get_blocking(1)
        if not os.isatty(1):
            os.set_blocking(1, False)
        try:
            return self._copy()
        except OSError:
            return 0  # nobody reads our standard output any more: the client is gone
        finally:
            os.set_blocking(1, blocking)

    def _copy(self) -> int:
        broker = self._broker.fileno()
        while True:
            if self._broker_ended and not self._to_client:
                return self._hung_up()
            self._watch()
            timeout = None if self._deadline is None else max(self._deadline - time.monotonic(), 0) * 1000
            events = dict(self._poll.poll(timeout))
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return 0
            if 1 in events:
                if events[1] & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                    return 0
                self._write_client()
            seen = events.get(broker, 0)
            if seen & select.POLLOUT:
                self._write_broker()
            if seen & ~select.POLLOUT and not self._to_client:
                self._read_broker()
            if 0 in events and not self._to_broker:
                self._read_client()
            elif events.get(0, 0) & (select.POLLHUP | select.POLLRDHUP):
                self._start_draining()

    def _watch(self) -> None:
        """Ask for what can be used now. A hang-up that cannot be acted upon yet must not wake us again and again."""
        to_broker = select.POLLOUT if self._to_broker else 0
        from_broker = 0 if self._broker_ended or self._to_client else select.POLLIN
        if not self._to_broker:
            from_client = 0 if self._client_ended else select.POLLIN
        else:
            from_client = select.POLLRDHUP if self._deadline is None else 0
        wanted = {
            0: from_client or -1,
            1: select.POLLOUT if self._to_client else 0,
            self._broker.fileno(): (from_broker | to_broker) or -1,
        }
        for fd, mask in wanted.items():
            if self._watched[fd] == mask:
                continue
            if mask == -1:
                self._poll.unregister(fd)
            else:
                self._poll.register(fd, mask)
            self._watched[fd] = mask

    def _read_client(self) -> None:
        try:
            data = os.read(0, CHUNK_BYTES)
        except OSError:
            data = b""
        if data:
            self._to_broker = memoryview(data)
            self._write_broker()
        else:
            self._client_ended = True
            self._start_draining()
            self._half_close()

    def _start_draining(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + DRAIN_S

    def _write_broker(self) -> None:
        try:
            self._to_broker = self._to_broker[self._broker.send(self._to_broker) :]
        except BlockingIOError:
            return
        except OSError:
            self._to_broker = memoryview(b"")  # it hung up; what it sent before is still to be read

    def _half_close(self) -> None:
        try:
            self._broker.shutdown(_socket.SHUT_WR)
        except OSError:
            self._broker_ended = True

    def _read_broker(self) -> None:
        try:
            data = self._broker.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._to_client = memoryview(data)
            self._write_client()
        else:
            self._broker_ended = True

    def _write_client(self) -> None:
        try:
            self._to_client = self._to_client[os.write(1, self._to_client) :]
        except BlockingIOError:
            return

    def _hung_up(self) -> int:
        if self._client_ended:
            return 0
        _say("the broker hung up; see its log, or start it with: interposer serve")
        return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
