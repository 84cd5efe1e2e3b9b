"""The broker that stands before `interposer run` comes: whose it is, and what it says that it is made of.

One of our own uid is protected from the agent like one that the run starts itself, so it has to say what it stands on;
one that cannot be asked is not joined. One of another user's is protected by that, and nothing of its is ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interposer import ownership
from interposer.boundary import targets
from interposer.boundary.reachable import tcp_listeners, unix_listeners
from interposer.model import JsonObject

from .admin_client import AdminClient, AdminError, BrokerUnavailable, home, sockets
from .supervision import BrokerFailed

_MEND = "stop it, and the run starts one of its own; or restart it, and name the --config that it is started with"


@dataclass(frozen=True, slots=True)
class Joined:
    """A broker that answers."""

    address: str
    uid: int | None
    """None where no process of ours listens, and who does cannot be told: TCP."""
    report: JsonObject | None = None
    """As `boundary/targets` tells it; None where the broker is another user's."""


def joined(address: str, *, named: bool, states: Iterable[Path]) -> Joined:
    """Who answers at an address. `named`: somebody wrote it down (a variable, a configuration). `states`: the folders
    in which a broker of ours may keep its state. Raises `BrokerFailed`."""
    if address.startswith("tcp://"):
        if address.rpartition(":")[2] in _our_ports():
            raise BrokerFailed(
                f"{address} may be a broker of yours, which cannot be asked over TCP what it stands on; set "
                "$INTERPOSER_SOCKET to its Unix socket",
                2,
            )
        return Joined(address, None)
    path = os.path.abspath(address.removeprefix("unix:"))
    try:
        pid, uid = targets.listener(path)
    except OSError as error:
        raise BrokerFailed(f"{path}: {error.strerror or error}", 5) from None
    ours = os.geteuid()
    report = _asked(pid, uid, path, states)
    if report is not None or uid not in (0, ours):
        if report is None:
            _require_theirs(path, uid, named)
        return Joined(address, uid, report)
    if uid == ours:
        raise BrokerFailed(
            f"the broker at {path} (process {pid}) is yours and does not say what it stands on, so the agent could "
            f"change it: {_MEND}",
            2,
        )
    return Joined(address, uid)


def _our_ports() -> set[str]:
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    found = [each for table in tables if table.exists() for each in tcp_listeners(table.read_text(), os.geteuid())]
    return {each.address.rpartition(":")[2] for each in found}


def _asked(pid: int, uid: int, path: str, states: Iterable[Path]) -> JsonObject | None:
    """What the process that listens says as to its operators; None where it is not ours to ask."""
    if uid not in (0, os.geteuid()):
        return None
    # systemd listens for whom it starts: then the kernel names systemd, and one of ours that runs may be that broker.
    passed = pid == 1
    beside = Path(path).with_name("admin.sock")
    places = [beside, *(found for state in (*states, home()) for found in sockets(state)), *_administrations()]
    for place in dict.fromkeys(places):
        try:
            other = targets.listener(str(place))
            if other != (pid, uid) and not (passed and other[1] == os.geteuid()):
                continue
            with AdminClient(place) as client:
                if client.peer() != other:
                    continue
                report = client.request("boundary/targets")
        except (OSError, AdminError, BrokerUnavailable):
            continue
        if (report.get("pid"), report.get("uid")) == other and {"path", "cwd"} <= set(report):
            return report
    return None


def _administrations() -> list[Path]:
    """The administration sockets of this host, wherever their state is."""
    found = unix_listeners(Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape"))
    return [Path(each.address) for each in found if each.address.endswith("/admin.sock")]


def _require_theirs(path: str, uid: int, named: bool) -> None:
    """Another user's broker is one that was meant, at a place that only that user could take."""
    if not named:
        raise BrokerFailed(
            f"{path} is answered by uid {uid}, which is neither you nor root; is that the broker's own user? "
            "Then set $INTERPOSER_SOCKET to it",
            2,
        )
    fault = ownership.fault(os.path.dirname(path), uid=uid)
    if fault:
        raise BrokerFailed(f"{path} is answered by uid {uid}, and could be by others: {fault}", 2)
