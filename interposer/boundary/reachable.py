"""What an agent in the sandbox can still ask to act for it: services outside that answer whoever has its uid.

Landlock (to ABI 7) does not stop a connect() to a socket that has a path, nor one to a TCP port. Whatever such a
service does for its callers, it does for the agent, without the sandbox. Nothing here is stopped; it is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTENING = 0x10000  # __SO_ACCEPTCON, the flags of /proc/net/unix
_TCP_LISTEN = "0A"

DANGERS: tuple[tuple[str, str], ...] = (
    (r"/systemd/(private|io\.systemd\.)", "systemd: starts any program outside of the sandbox"),
    (r"/(bus|system_bus_socket)$|/dbus[-/]", "D-Bus: services on it start programs and give out keyrings"),
    (r"/(docker|podman|containerd|crio|buildkitd)[^/]*\.sock$", "containers: mounts any file, often as root"),
    (r"/(lxd|incus)/unix\.socket$", "containers: mounts any file, often as root"),
    (r"/ssh-[^/]+/agent\.|/ssh-agent|/keyring/|/S\.gpg-agent|/gnupg/", "keys: signs and logs in as you"),
    (r"/(tmux-\d+|screen)/|/S-[^/]+/\d+\.", "terminal: types into your other shells"),
    (r"/vscode-|/code-[^/]*\.sock|/jetbrains|/nvim\.|/emacs\d*/", "editor: opens files and runs commands"),
    (r"/\.X11-unix/|/wayland-\d+$", "display: sees and types what you do"),
    (r"/(cups|libvirt|virtlogd|gvfs|kdeinit|dconf|snapd)", "desktop or system service"),
)
"""Pattern of a socket's path, and what whoever connects can have done."""

STARTUP_FILES = (
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".config/fish/config.fish",
    ".config/autostart",
    ".config/systemd/user",
    ".config/git/config",
    ".gitconfig",
    ".ssh/authorized_keys",
    ".ssh/config",
    ".ssh/rc",
    ".xprofile",
    ".pam_environment",
)
"""Under the home: what runs, or decides what runs, when the user next does something outside."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """One thing that could act for the agent."""

    kind: str
    """`socket`, `port` or `file`."""
    address: str
    owner: str
    """The process behind it, where it can be seen: `pid name`."""
    danger: str
    """What it can do for a caller; empty where it is not one that we know."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits for callers."""

    address: str
    inode: int


def reachable(
    writable: Iterable[str] = (), except_for: Iterable[str] = (), home: Path | None = None
) -> list[Reachable]:
    """The dangerous ones first. `except_for` are paths of sockets that are meant to be reached."""
    unix = [
        found
        for found in unix_listeners(_read("/proc/net/unix"))
        if found.address not in set(except_for) and os.access(found.address, os.W_OK)
    ]
    uid = os.getuid()
    ports = [each for name in ("tcp", "tcp6") for each in tcp_listeners(_read(f"/proc/net/{name}"), uid)]
    owners = _owners({each.inode for each in (*unix, *ports)})
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    found = {
        Reachable("socket", each.address, owners.get(each.inode, ""), danger_of(each.address, agent)) for each in unix
    }
    found |= {Reachable("port", each.address, owners.get(each.inode, ""), "") for each in ports}
    found |= set(startup_files(writable, home or Path.home()))
    return sorted(found, key=lambda each: (not each.danger, each.kind, each.address))


def unix_listeners(table: str) -> list[Listener]:
    """Listening sockets with a path, of /proc/net/unix. Abstract ones, whose name begins with @, are kept in by the
    sandbox."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7].startswith("/") and int(fields[3], 16) & _LISTENING:
            found.append(Listener(fields[7], int(fields[6])))
    return found


def tcp_listeners(table: str, uid: int) -> list[Listener]:
    """Listening ports of one uid that this host can reach, of /proc/net/tcp and tcp6."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _TCP_LISTEN and int(fields[7]) == uid:
            address, _, port = fields[1].partition(":")
            found.append(Listener(f"{_host(address)}:{int(port, 16)}", int(fields[9])))
    return found


def danger_of(path: str, ssh_agent: str = "") -> str:
    """What whoever connects to this socket can have done; empty where we do not know it."""
    if path and path == ssh_agent:
        return "keys: signs and logs in as you"
    return next((said for pattern, said in DANGERS if re.search(pattern, path)), "")


def startup_files(writable: Iterable[str], home: Path) -> Iterator[Reachable]:
    """What the agent may write, and somebody runs later without the sandbox."""
    places = tuple(place.rstrip("/") + "/" for place in writable)
    watched = [*(str(home / name) for name in STARTUP_FILES), *map(str, Path("/var/spool/cron").glob("**/*"))]
    for path in watched:
        if f"{os.path.realpath(path)}/".startswith(places):
            yield Reachable("file", path, "", "runs outside of the sandbox when you next log in or open a shell")


def _host(address: str) -> str:
    """The kernel writes the words of an address in the machine's byte order, which is little-endian."""
    raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    if len(raw) == 4:
        return ".".join(map(str, raw))
    return "[::1]" if raw == bytes(15) + b"\1" else "[::]" if not any(raw) else f"[{raw.hex(':', 2)}]"


def _owners(inodes: set[int]) -> dict[int, str]:
    """Which process holds a socket, for those that we may look into."""
    found = dict[int, str]()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                    found[int(target[8:-1])] = f"{pid} {_read(f'/proc/{pid}/comm').strip()}"
        except OSError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
