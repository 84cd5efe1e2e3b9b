"""What could still act for a sandboxed agent is found and named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from interposer.boundary.reachable import (
    Listener,
    danger_of,
    reachable,
    startup_files,
    tcp_listeners,
    unix_listeners,
)

UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 21501 /run/user/1000/bus
0000000000000000: 00000003 00000000 00000000 0001 03 21502 /run/user/1000/bus
0000000000000000: 00000002 00000000 00010000 0001 01 21503 @/tmp/.X11-unix/X0
0000000000000000: 00000002 00000000 00010000 0001 01 21504 /home/ann/a folder/x.sock
0000000000000000: 00000002 00000000 00000000 0002 01 21505
0000000000000000: 00000002 00000000 00010000 0005 01 21506 /run/udev/control
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100 0 0 10 0
   2: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 79 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 1000 0 80 1
   1: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 1000 0 81 1
   2: B80D0120000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 0:0 00:0 0 1000 0 82 1
"""


def test_listening_sockets_with_a_path_are_read() -> None:
    """Not those that are connected, not abstract ones, which the sandbox keeps in; a path may hold spaces."""
    assert unix_listeners(UNIX) == [
        Listener("/run/user/1000/bus", 21501),
        Listener("/home/ann/a folder/x.sock", 21504),
        Listener("/run/udev/control", 21506),
    ]
    assert unix_listeners("") == []


def test_listening_ports_of_the_uid_are_read() -> None:
    """Of our uid only, and only those that listen; the kernel writes addresses backwards."""
    assert tcp_listeners(TCP, 1000) == [Listener("127.0.0.1:8080", 77)]
    assert tcp_listeners(TCP, 0) == [Listener("0.0.0.0:22", 78)]
    assert [each.address for each in tcp_listeners(TCP6, 1000)] == [
        "[::1]:80",
        "[::]:81",
        "[2001:0db8:0000:0000:0000:0000:0000:0001]:82",
    ]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/run/user/1000/systemd/private", "systemd"),
        ("/run/user/1000/bus", "D-Bus"),
        ("/run/dbus/system_bus_socket", "D-Bus"),
        ("/var/run/docker.sock", "containers"),
        ("/run/user/1000/podman/podman.sock", "containers"),
        ("/run/containerd/containerd.sock", "containers"),
        ("/tmp/ssh-XXabc/agent.1234", "keys"),
        ("/run/user/1000/gnupg/S.gpg-agent", "keys"),
        ("/run/user/1000/keyring/ssh", "keys"),
        ("/tmp/tmux-1000/default", "terminal"),
        ("/run/screen/S-ann/123.pts-0", "terminal"),
        ("/run/user/1000/vscode-ipc-12.sock", "editor"),
        ("/tmp/.X11-unix/X0", "display"),
        ("/run/user/1000/wayland-0", "display"),
        ("/home/ann/project/app.sock", ""),
    ],
)
def test_well_known_services_are_marked(path: str, said: str) -> None:
    """What starts programs, signs, types or mounts for its callers is told apart from the rest."""
    assert danger_of(path).split(":")[0] == said


def test_the_ssh_agent_is_known_by_its_variable() -> None:
    """Wherever it listens."""
    assert danger_of("/home/ann/odd", "/home/ann/odd").startswith("keys")


def test_startup_files_are_named_where_the_agent_may_write_them(tmp_path: Path) -> None:
    """Only those beneath a writable place, whether they are there yet or not."""
    (tmp_path / "work").mkdir()
    assert list(startup_files([str(tmp_path / "work")], tmp_path)) == []
    found = {each.address for each in startup_files([str(tmp_path)], tmp_path)}
    assert {str(tmp_path / ".bashrc"), str(tmp_path / ".config/systemd/user")} <= found
    assert [each.address for each in startup_files([str(tmp_path / ".bashrc")], tmp_path)] == [
        str(tmp_path / ".bashrc")
    ]


def test_what_listens_here_is_found_with_its_process(tmp_path: Path) -> None:
    """A socket and a port of our own are in the list; one that is meant to be reached is not."""
    with socket.socket(socket.AF_UNIX) as line, socket.socket(socket.AF_UNIX) as meant, socket.socket() as port:
        for each, name in ((line, "docker.sock"), (meant, "broker.sock")):
            each.bind(str(tmp_path / name))
            each.listen()
        port.bind(("127.0.0.1", 0))
        port.listen()
        address = f"127.0.0.1:{port.getsockname()[1]}"
        found = {each.address: each for each in reachable((), [str(tmp_path / "broker.sock")], tmp_path)}
    me = f"{os.getpid()} {Path('/proc/self/comm').read_text().strip()}"
    assert found[str(tmp_path / "docker.sock")].owner == me
    assert found[str(tmp_path / "docker.sock")].danger
    assert str(tmp_path / "broker.sock") not in found
    assert (found[address].kind, found[address].owner) == ("port", me)


def test_the_dangerous_come_first(tmp_path: Path) -> None:
    """A list that is cut short shows the worst."""
    with socket.socket(socket.AF_UNIX) as harmless, socket.socket(socket.AF_UNIX) as dangerous:
        for each, name in ((harmless, "a.sock"), (dangerous, "docker.sock")):
            each.bind(str(tmp_path / name))
            each.listen()
        marks = [bool(each.danger) for each in reachable((), (), tmp_path)]
    assert marks == sorted(marks, reverse=True)
