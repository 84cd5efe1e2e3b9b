"""The brokers that `doctor` looks at: those that run here, the one that answers on a socket, or one started for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from interposer import config, parts
from interposer.boundary import targets
from interposer.boundary.selfattack import LEVELS, Finding, NotTried
from interposer.errors import ConfigurationError
from interposer.model import JsonObject
from interposer.settings import Settings, settings

from .admin_client import AdminClient, AdminError, BrokerUnavailable, brokers, sockets
from .stage import end, itself

START_S = 30.0
PREFIX = "interposer-canary-"
_UPSTREAM = """\
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answers = {
        "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                       "serverInfo": {"name": "canary", "version": "1"}},
        "tools/list": {"tools": [{"name": "nothing", "inputSchema": {"type": "object"}}]},
    }
    if "id" in asked:
        found = answers.get(asked["method"])
        end = {"error": {"code": -32601, "message": "no"}} if found is None else {"result": found}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **end}), flush=True)
"""


class RefusedToStart(Exception):
    """The broker that was started for the check ended at once; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Patient:
    """One broker under examination."""

    report: JsonObject
    """As `boundary/targets` tells it."""
    how: str
    """How it was found."""
    status: JsonObject | None = None
    """As `broker/status` tells it; None where we may not ask."""
    skills: JsonObject | None = None
    canary: JsonObject | None = None
    started: bool = False
    """Whether it was started for the check."""
    given: tuple[Finding, ...] = field(default=())
    """What is known without an attack."""

    @property
    def uid(self) -> int:
        return int(self.report["uid"])

    @property
    def job(self) -> JsonObject:
        told = {name: self.report[name] for name in ("processes", "places", "operator")}
        return {**told, "canary": self.canary, "self": True}

    @property
    def agents(self) -> str | None:
        """The socket that agents connect to."""
        found: str | None = self.report.get("agents")
        return found


def chosen_by(file: str | None) -> Settings:
    """The configuration that was named or is found; an unnamed one that we may not read counts as none. That of the
    working directory has to be named: a broker that is started by it runs what an agent may have written there."""
    try:
        return settings(file, None, [], here=False)
    except ConfigurationError:
        if file:
            raise
    return Settings(config.Config(version=1), Path.cwd(), config.STARTER, config.home())


@contextlib.contextmanager
def patients(chosen: Settings, socket: str | None) -> Iterator[list[Patient]]:
    """Raises `NotTried` and `RefusedToStart`."""
    # Its operators learn the most, and a socket that is named may stand in the broker's home.
    found = _asked(chosen, chosen.home if socket is None else Path(socket).absolute().parent)
    if found:
        yield found
        return
    socket = socket or _agents_socket(chosen)
    if socket is not None:
        yield [_seen(socket, chosen)]
        return
    with _started(chosen) as only:
        yield [only]


def _asked(chosen: Settings, under: Path) -> list[Patient]:
    """Every broker that tells us, as its operators, what it is made of."""
    try:
        reached = brokers(under)
    except BrokerUnavailable:
        return []
    found = []
    for client in reached:
        with client:
            found.append(_told(client, chosen, f"it told so over {client.path}"))
    return found


def _told(client: AdminClient, chosen: Settings, how: str, canary: JsonObject | None = None) -> Patient:
    pid, uid = client.peer()
    _require_here(str(client.path), pid)
    try:
        report, status = client.request("boundary/targets"), client.request("broker/status")
    except (AdminError, BrokerUnavailable) as error:
        raise NotTried(f"the broker does not say what it is made of ({error}); is it of an older version?") from None
    skills: JsonObject | None = None
    with contextlib.suppress(AdminError, BrokerUnavailable):
        skills = client.request("skills/list", wait_s=20.0)
    _require_itself(report, client.path, pid, uid)
    given = tuple(
        Finding("places", name, None, "the broker does not tell of any")
        for name in ("processes", "places")
        if not report.get(name)
    )
    try:
        report = _with_ours(report, parts.targets(chosen, client.path.parent, int(report["pid"])))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NotTried(f"{client.path}: what it says of itself cannot be followed ({error!r})") from None
    return Patient(report, how, status, skills, canary, given=given)


def _require_here(path: str, pid: int) -> None:
    """Raises `NotTried` for a broker whose processes we cannot see."""
    why = targets.elsewhere(pid)
    if why:
        raise NotTried(f"{path}: {why}; run doctor where the broker runs, with its PID namespace")


def _require_itself(report: JsonObject, path: Path, pid: int, uid: int) -> None:
    """Anybody who owns the folder can answer there and tell of other processes: only the one that listens, or that it
    watches over, may be spoken of. Raises `NotTried`."""
    said = report.get("pid")
    try:
        same = isinstance(said, int) and (
            (said == pid or targets.watcher(said) == pid)
            and report.get("uid") == uid == targets.uid_of(pid) == targets.uid_of(said)
        )
    except OSError:
        same = False
    if not same:
        raise NotTried(
            f"{path}: process {pid} of uid {uid} answers there, and says that it is process {said} of uid "
            f"{report.get('uid')}; it is no broker to believe, and nothing is proven"
        )


def _with_ours(report: JsonObject, seen: JsonObject) -> JsonObject:
    """What the broker tells of, and what we know of: nobody attacks less because it was left out."""
    found = {**seen, **report}
    for name, key in (("processes", "pid"), ("places", "path"), ("operator", "socket")):
        told = list(report.get(name) or [])
        known = [[one[key], one.get("do"), one.get("deep")] for one in told]
        found[name] = told + [one for one in seen[name] if [one[key], one.get("do"), one.get("deep")] not in known]
    found["callers"] = sorted({*map(int, report.get("callers") or []), *seen["callers"]})
    found["claim"] = max(filter(None, (report.get("claim"), seen["claim"])), default=None, key=LEVELS.index)
    return found


def _agents_socket(chosen: Settings) -> str | None:
    """Where the daemon of this configuration, or the one that agents are told of, listens."""
    listen = chosen.config.listen.socket.path
    named = [os.environ.get("INTERPOSER_SOCKET"), str(chosen.base / listen) if listen else None]
    for path in (*named, str(chosen.home / "broker.sock")):
        if path and _is_socket(path):
            return path
    return None


def _is_socket(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)
    return False


def _seen(path: str, chosen: Settings) -> Patient:
    """A broker that we may not ask: what anybody can see of it."""
    try:
        pid, uid = targets.listener(path)
    except OSError as error:
        raise NotTried(f"{path}: {error.strerror or error}; is the broker running?") from None
    _require_here(path, pid)
    if pid == 1:
        raise NotTried(f"{path} was opened by process {pid} (socket activation); run doctor as root or as the broker")
    how = f"it listens on {path}; we (uid {os.geteuid()}) are not its operator"
    folder = _folder(chosen, path)
    if folder is not None:
        return Patient({**parts.targets(chosen, folder, pid), "agents": path}, how)
    report: JsonObject = {
        "pid": pid,
        "uid": uid,
        "processes": targets.processes(pid, targets.watcher(pid)),
        "places": [targets.Place(f"place of the socket {path}", path, ("replace",)).shown()],
        "operator": [],
        "agents": path,
        "callers": [],
        "claim": None,
    }
    unknown = Finding("places", "policy, record, credential", None, "not known to us; name them by --config FILE")
    return Patient(report, how, given=(unknown,))


def _folder(chosen: Settings, path: str) -> Path | None:
    """Where the broker on this socket keeps its state, if our configuration is its: it names the socket, or the state
    that the socket stands in."""
    listen, beside = chosen.config.listen.socket.path, Path(path).absolute().parent
    if chosen.file is None:
        return None
    if listen is None:
        return beside if chosen.config.state is None or chosen.home.absolute() == beside else None
    same = os.path.realpath(chosen.base / listen) == os.path.realpath(path)
    return chosen.home if same and chosen.config.state else None


@contextlib.contextmanager
def _started(chosen: Settings) -> Iterator[Patient]:
    """A broker for the time of the check, with a credential that is worth nothing where none is configured."""
    root = Path(tempfile.mkdtemp(prefix="interposer-doctor-"))
    try:
        configured = bool(chosen.file and chosen.upstreams)
        file, canary = (chosen.file, None) if configured else _built_in(root)
        home = chosen.home if configured and chosen.config.state else root / "home"
        how = "none was running, so one was started for this check"
        words = [*itself(), "stdio", "--config", str(file)]
        with _running(words, root, home) as process, _admin(process, home, root) as client:
            _await_upstream(client, configured)
            told = _told(
                client, replace(chosen, home=home), how if configured else f"{how}, with a built-in upstream", canary
            )
            yield replace(told, started=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _built_in(root: Path) -> tuple[Path, JsonObject]:
    key = PREFIX + secrets.token_hex(16)
    credential, upstream, file = root / "credential", root / "upstream.py", root / "interposer.yaml"
    credential.write_text(key)
    credential.chmod(0o400)
    upstream.write_text(_UPSTREAM)
    command = [sys.executable, "-I", "-S", str(upstream)]
    held = {"env": "CANARY", "source": f"file:{credential}"}
    file.write_text(json.dumps({"version": 1, "upstreams": {"canary": {"command": command, "credential": held}}}))
    for path in (upstream, file):
        path.chmod(0o600)
    return file, {"prefix": PREFIX, "length": len(key), "sha256": hashlib.sha256(key.encode()).hexdigest()}


@contextlib.contextmanager
def _running(words: list[str], root: Path, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
            words,
            env={**os.environ, "INTERPOSER_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def _admin(process: subprocess.Popen[bytes], home: Path, root: Path) -> AdminClient:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RefusedToStart((root / "log").read_text(errors="replace").strip())
        for path in sockets(home):
            with contextlib.suppress(BrokerUnavailable):
                return AdminClient(path)
        time.sleep(0.02)
    raise NotTried("the broker that was started does not answer on its administration socket")


def _await_upstream(client: AdminClient, configured: bool) -> None:
    """Asking for the skills waits for every upstream to have answered, or to have failed."""
    with contextlib.suppress(AdminError, BrokerUnavailable):
        client.request("skills/list", wait_s=60.0 if configured else START_S)
