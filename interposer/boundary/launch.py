"""How a broker process comes to be: isolated, hardened, and born after everything that somebody may have opened.

The command that is started becomes the *keeper*: it holds no configuration and no credential, passes signals on and
ends as the broker ends. The broker is its child, with a memory that nobody of the same uid ever had a chance to open:
a thief who opened /proc/PID/mem before the first instruction of ours holds the keeper's. Imports little, and is called
before anything else is imported: what the keeper does not need must not be in it.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from interposer.errors import Problem, Unsafe

from . import hardening

_LOADED_BY_THE_LINKER = ("LD_PRELOAD", "LD_AUDIT")
"""Libraries that run in every program; `-I` does not stop them."""
_MARK = "launched"
"""Among the -X options of a process that was started anew: it is not started anew again."""
_FIRST_SOCKET = 3
"""sd_listen_fds(3): SD_LISTEN_FDS_START."""
_SI_KERNEL = 0x80
"""sigaction(2): sent by the kernel, which sends what is typed at a terminal to the whole foreground group."""
_PASSED_ON = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGTSTP,
        signal.SIGCONT,
    }
)
_TYPED = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})


@dataclass(frozen=True, slots=True)
class Launched:
    """What the broker has from its start."""

    starter_pid: int
    """Who started the command: on stdio, the agent."""
    sockets: tuple[tuple[int, str], ...] = ()
    """Listening sockets that were passed in, by descriptor and name (sd_listen_fds(3))."""


def launch() -> Launched:
    """Returns in the broker's own process only. Raises `Unsafe` (exit code 78) when a step has no effect.

    Call it while nothing else has been imported and no thread started.
    """
    isolate()
    hardening.harden()
    if hardening.status("Threads") != 1:
        raise Unsafe([Problem("launch", 0, 0, "something started a thread before the broker; remove it")])
    launched = Launched(os.getppid(), _sockets())
    keeper = os.getpid()
    # From before the fork on, so that no signal falls between the two processes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
    child = os.fork()
    if child:
        _keep(child)
    hardening.die_with(keeper)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    hardening.refuse_tracer()
    return launched


def isolate() -> None:
    """Start anew unless neither Python nor the linker runs what the environment or the working directory says."""
    loaded = [name for name in _LOADED_BY_THE_LINKER if name in os.environ]
    open_to_debuggers = getattr(sys, "is_remote_debug_enabled", bool)()
    if sys.flags.isolated and not loaded and not open_to_debuggers:
        return
    if _MARK in sys._xoptions:
        raise Unsafe([Problem(sys.executable, 0, 0, "does not start isolated (-I); is it a wrapper around Python?")])
    if not sys.executable:
        raise Unsafe([Problem("launch", 0, 0, "Python does not know its own path; start it by its full path")])
    for name in loaded:
        sys.stderr.write(f"interposer: {name} is not passed on: it would run in the broker\n")
    sys.stderr.flush()
    environment = {name: value for name, value in os.environ.items() if name not in loaded}
    os.execve(sys.executable, [sys.executable, *_flags(), _entry(), *sys.argv[1:]], environment)  # noqa: S606 - ourselves


def _flags() -> list[str]:
    flags = ["-I", "-X", _MARK]
    if sys.version_info >= (3, 14):
        flags += ["-X", "disable-remote-debug"]  # PEP 768
    if sys.dont_write_bytecode:
        flags.append("-B")
    return flags


def _entry() -> str:
    """`__main__.py` by its path: unlike `-m`, it starts where the package cannot be imported, and can say so."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__main__.py")


def _sockets() -> tuple[tuple[int, str], ...]:
    """The sockets that were passed to this very process; its upstreams must not take them for theirs."""
    pid, count, names = (os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return ()
    descriptors = range(_FIRST_SOCKET, _FIRST_SOCKET + int(count))
    given = names.split(":") if names else []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return tuple((descriptor, given[n] if n < len(given) else "unknown") for n, descriptor in enumerate(descriptors))


def _keep(child: int) -> NoReturn:
    """The keeper: its descriptors are the broker's alone from now on, standard error excepted."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    while True:
        heard = signal.sigwaitinfo(_PASSED_ON | {signal.SIGCHLD})
        if heard.si_signo == signal.SIGCHLD:
            _end_with(child)
            continue
        typed = heard.si_signo in _TYPED and heard.si_code == _SI_KERNEL
        if not typed:
            # SIGTSTP has no effect in a process group that no shell waits for (orphaned, setpgid(2)).
            os.kill(child, signal.SIGSTOP if heard.si_signo == signal.SIGTSTP else heard.si_signo)
        if heard.si_signo == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)


def _end_with(child: int) -> None:
    """Collect what has ended; when that is the broker, end in the same way."""
    while True:
        try:
            # Any process: as the first one of a container we are given orphans.
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(1)
        if pid == 0:
            return
        if pid != child:
            continue
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            _end_by(-code)
        os._exit(code)


def _end_by(number: int) -> NoReturn:
    """By the same signal, so that whoever waits for us sees what happened. No core: its limit is zero."""
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container cannot be ended by its own signals
