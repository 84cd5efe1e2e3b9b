"""What systemd does between a unit file and `execve`, in miniature; run as root, and becomes the service.

    python -I service_manager.py PLAN.json

The plan: `uid`; `socket` (a path, listened on here, mode 0660) and its `socket_gid`; `credentials`, the directory that
systemd would have made; `system_calls`, the names that are allowed; `environment`; `command`. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import sys
from typing import Any

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_FIRST_SOCKET = 3


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    _listen(plan["socket"], plan["socket_gid"])
    os.setgroups([])
    os.setgid(plan["uid"])
    os.setuid(plan["uid"])
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    environment = {**plan["environment"], "CREDENTIALS_DIRECTORY": plan["credentials"]}
    environment.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="interposer.socket")
    _confine(plan["system_calls"])
    os.execve(plan["command"][0], plan["command"], environment)


def _listen(path: str, gid: int) -> None:
    os.umask(0o117)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    os.chown(path, 0, gid)
    listening.listen(128)
    kept = listening.detach()
    if kept == _FIRST_SOCKET:
        os.set_inheritable(kept, True)
    else:
        os.dup2(kept, _FIRST_SOCKET)
        os.close(kept)


def _confine(system_calls: list[str]) -> None:
    """NoNewPrivileges=, SystemCallFilter=, and MemoryDenyWriteExecute= by the kernel's own means (Linux 6.3)."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp: Any = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    for name in system_calls:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(rules, ctypes.c_uint32(_ALLOW), number, 0)
    if libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")
    if seccomp.seccomp_load(rules):
        raise OSError("the filter was not loaded")


main()
