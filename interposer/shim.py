"""`interposer connect`: standard input and output on one side, the broker's socket on the other, and nothing else.

It holds no credential but the caller's own token, understands no message, and imports the standard library only: an
agent runtime may spawn one for every call. A token in a file is shown again when it changes, between two messages. It
ends within two seconds of the end of its standard input, whatever the broker does.
"""

from __future__ import annotations

# _socket, because the module on top of it takes 10 ms to import, as long as the whole interpreter (benchmarks/shim.py).
import _socket
import os
import select
import stat
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
TOKEN_BYTES = 64 * 1024
SETTLED_S = 0.1
LOOK_S = 1.0
"""How often a token file is looked at while the client is silent; before its bytes are sent it always is."""

USAGE_TEXT = """\
Usage: interposer connect [--token-file FILE] [SOCKET]

  Connect standard input and output to a running broker.

  SOCKET is a path, unix:PATH or tcp://127.0.0.1:PORT. Default: $INTERPOSER_SOCKET, then broker.sock in
  $INTERPOSER_HOME (~/.local/state/interposer).

  An access token says who calls: --token-file, or $INTERPOSER_TOKEN_FILE, or $INTERPOSER_TOKEN. The file is read again
  when it changes. TCP needs a token; on a Unix socket the caller without one is whom the kernel says.

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
        address, token = arguments
        broker, early = _connect(address, token)
        try:
            return _Copier(broker, early, token).run()
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


def _arguments(argv: list[str]) -> tuple[str, _Token | None] | None:
    """(address, token); None when help is asked for."""
    address, token_file = "", os.environ.get("INTERPOSER_TOKEN_FILE")
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
    value = os.environ.get("INTERPOSER_TOKEN")
    token = None if token_file is None and value is None else _Token(token_file, value or "")
    return address or _default_socket(), token


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


def _connect(address: str, token: _Token | None) -> tuple[_socket.socket, bytes]:
    """The connected broker, and bytes that it sent already."""
    if address.startswith("tcp://"):
        shown = _at_the_gate(token)
        broker = _connect_tcp(address)
        return broker, _authenticate(broker, shown)
    if token is not None and not token.now():
        _say(f"there is no token in {token.place}; until there is one, every call is refused")
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


def _at_the_gate(token: _Token | None) -> str:
    """The token that a TCP broker is shown before anything else."""
    if token is None:
        raise Failure(USAGE, "TCP needs a token; give --token-file FILE, or set INTERPOSER_TOKEN_FILE")
    shown = token.now()
    if not shown:
        raise Failure(USAGE, f"there is no token in {token.place}")
    token.told = shown
    # A static token opens the gate and is not asked for again. A JWT (three parts, RFC 7515 §3.1) has an end.
    token.stays = token.stays or shown.count(".") != 2
    return shown


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


class _Token:
    """Who calls: a variable's value, or what a file says now. A file that is gone says the empty token: nobody."""

    def __init__(self, path: str | None, value: str) -> None:
        self._path = path or ""
        self.place = path or "$INTERPOSER_TOKEN"
        self.stays = path is None
        """Whether it need not be looked at again."""
        self.told: str | None = None
        """What the broker was told last."""
        self._seen: tuple[int, ...] | None = None
        self._value = value

    def now(self) -> str:
        if self.stays:
            return self._value
        try:
            found = os.stat(self._path)
            seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if seen != self._seen:
                self._value = self._read(plain=stat.S_ISREG(found.st_mode))
                # File times are as coarse as the kernel's tick: what was just written may be written again unnoticed.
                self._seen = seen if time.time() - found.st_mtime > SETTLED_S else None
        except OSError:
            self._seen, self._value = None, ""
        return self._value

    def _read(self, *, plain: bool) -> str:
        # A pipe is read once, at the start; one that takes the file's place would have us wait for its writer.
        if not plain and self.told is not None:
            return ""
        self.stays = not plain
        with open(self._path, "rb") as file:
            return file.read(TOKEN_BYTES).decode("utf-8", "replace").strip()

    def news(self) -> bytes:
        """The line that tells the broker of the token, if it is another one than it was told."""
        token = self.now()
        if token == self.told:
            return b""
        self.told = token
        if not (token.isascii() and token.isprintable()) or '"' in token or "\\" in token:
            import json  # slow to import, and no token of an issuer needs it

            quoted = json.dumps(token)
        else:
            quoted = f'"{token}"'
        line = f'{{"jsonrpc":"2.0","method":"notifications/interposer/token","params":{{"token":{quoted}}}}}\n'
        return line.encode()


class _Copier:
    """Copies bytes both ways. One chunk is held in each direction at most; what is not taken is not read."""

    def __init__(self, broker: _socket.socket, early: bytes, token: _Token | None) -> None:
        broker.setblocking(False)
        self._broker = broker
        self._token = token
        self._looked = -LOOK_S
        self._news = b""
        self._amid = False
        """Whether the broker has the beginning of a message, and not its end."""
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
            self._tell()
            self._watch()
            events = dict(self._poll.poll(self._patience_ms()))
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

    def _patience_ms(self) -> float | None:
        if self._deadline is not None:
            return max(self._deadline - time.monotonic(), 0) * 1000
        return None if self._token is None else max(self._looked + LOOK_S - time.monotonic(), 0) * 1000

    def _tell(self, *, fresh: bool = False) -> None:
        """Tell the broker of a new token where a message ends: before what was read just now (`fresh`), and behind
        what was waiting already, for that may hold an earlier token."""
        now = time.monotonic()
        if self._token is not None and (fresh or now >= self._looked + LOOK_S):
            self._looked = now
            self._news = self._token.news() or self._news
            if self._token.stays:
                self._token = None
        if not self._news or self._client_ended:
            return
        waiting = bytes(self._to_broker)
        found = waiting.find if fresh else waiting.rfind
        end = 0 if fresh and not self._amid else found(b"\n") + 1
        if end or not self._amid:
            self._to_broker = memoryview(waiting[:end] + self._news + waiting[end:])
            self._news = b""

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
            self._tell(fresh=True)
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
            sent = self._broker.send(self._to_broker)
            self._amid = self._to_broker[sent - 1] != 10
            self._to_broker = self._to_broker[sent:]
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
