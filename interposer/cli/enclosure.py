"""What the sandbox of one run is: what is writable, what is hidden, and whether the broker's own lies within reach.

Nothing is weakened silently: a configuration, a policy or code that the agent could rewrite refuses the run, and the
text says what to move.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interposer import config
from interposer.boundary.sandbox import NEVER_WRITABLE, Sandbox, aliases, beneath, threatened
from interposer.errors import ConfigurationError, Problem
from interposer.settings import Settings

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ELSEWHERE = "or run the agent in another directory"
_OWN_VARIABLES = ("INTERPOSER_CONFIG", "INTERPOSER_HOME", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A place that the agent must not be able to change."""

    path: str
    what: str
    remedy: str
    whole: bool = False
    """Whether nothing beneath it may be writable either."""


def enclosure(
    chosen: Settings, *, temporary: str, write: Sequence[str], read_only: bool, environment: Mapping[str, str]
) -> Sandbox:
    """Raises `ConfigurationError` with everything that stands in the way."""
    problems = list[Problem]()
    asked = [*write] if read_only else [os.getcwd(), *write]
    writable = list(dict.fromkeys([*map(os.path.realpath, asked), os.path.realpath(temporary)]))
    for place in writable:
        if place in NEVER_WRITABLE or any(beneath(place, top) for top in ("/proc", "/sys")):
            problems.append(Problem(place, 0, 0, f"is never writable in a sandbox; name a smaller place, {_ELSEWHERE}"))
        elif not os.path.exists(place):
            problems.append(Problem(place, 0, 0, "does not exist; create it, or do not name it by --write"))
    mounts = _mountinfo()
    hidden = set[str]()
    for guarded in [*_hidden(chosen, writable, environment), *_told_by(chosen), *_code(), *_run_by(chosen)]:
        problems += _problems(guarded, writable, mounts)
        if guarded.whole and guarded.what in _HIDDEN:
            real = os.path.realpath(guarded.path)
            hidden |= {real, *aliases(real, mounts)}
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    return Sandbox(tuple(writable), tuple(sorted(hidden)), (*Sandbox().devices, *_terminals()))


def handed_down(chosen: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """What the agent gets of our environment: all but what is the broker's own."""
    sources = chosen.sources().values()
    own = {*_OWN_VARIABLES, *(source.removeprefix("env:") for source in sources if source.startswith("env:"))}
    return {name: value for name, value in environment.items() if name not in own}


_STATE, _CREDENTIAL = "the broker's state", "a credential"
_HIDDEN = (_STATE, _CREDENTIAL)


def _hidden(chosen: Settings, writable: Sequence[str], environment: Mapping[str, str]) -> Iterator[Guarded]:
    yield Guarded(str(chosen.home), _STATE, f"set INTERPOSER_HOME to another place, {_ELSEWHERE}", whole=True)
    remedy = f"move it out, {_ELSEWHERE}"
    given = environment.get("CREDENTIALS_DIRECTORY")
    if given:
        yield Guarded(os.path.abspath(given), _CREDENTIAL, remedy, whole=True)
    for source in chosen.sources().values():
        if not source.startswith("file:"):
            continue
        path = source.removeprefix("file:")
        yield Guarded(path, _CREDENTIAL, remedy, whole=True)
        folder = os.path.dirname(os.path.realpath(path))
        if _private(folder) and not any(
            place == folder or beneath(place, folder) for place in [os.path.realpath(Path.home()), *writable, PACKAGE]
        ):
            yield Guarded(folder, _CREDENTIAL, remedy, whole=True)


def _told_by(chosen: Settings) -> Iterator[Guarded]:
    """What the broker does as it says."""
    remedy = f"move it, for example to ~/.config/interposer/, {_ELSEWHERE}"
    if chosen.file:
        yield Guarded(str(chosen.file), "the configuration", remedy)
    if chosen.policy != config.STARTER:
        yield Guarded(os.path.abspath(chosen.policy), "the policy", remedy)
    found = chosen.config
    if found.revoked:
        yield Guarded(str(chosen.base / found.revoked), "the list of what is revoked", remedy)
    for issuer in found.issuers:
        if issuer.keys.file:
            yield Guarded(str(chosen.base / issuer.keys.file), "an issuer's keys", remedy)
    if found.listen.socket.path:
        yield Guarded(str(chosen.base / found.listen.socket.path), "the broker's socket", remedy)


def _code() -> Iterator[Guarded]:
    """What the broker is made of. Started by `python -m`, our own first entry is the working directory, which the
    broker's, that starts isolated, is not."""
    remedy = f"install interposer elsewhere (pipx install interposer, uv tool install interposer), {_ELSEWHERE}"
    yield Guarded(PACKAGE, "the broker's code", remedy, whole=True)
    yield Guarded(sys.executable, "the broker's interpreter", remedy)
    yield Guarded(os.path.join(sys.prefix, "pyvenv.cfg"), "the broker's interpreter", remedy)
    for entry in sys.path[0 if sys.flags.safe_path else 1 :]:
        if os.path.isabs(entry) and os.path.exists(entry):
            yield Guarded(entry, "where the broker's code is looked for", remedy)


def _run_by(chosen: Settings) -> Iterator[Guarded]:
    """Programs that the broker starts outside of the sandbox, with credentials, and where they start."""
    remedy = f"install it elsewhere, {_ELSEWHERE}"
    for name, found in chosen.upstreams.items():
        folder = os.path.join(chosen.base, found.cwd or "")
        yield Guarded(folder, f"where upstream {name} runs (programs such as npx take code from there)", remedy)
        yield from (Guarded(path, f"run by upstream {name}", remedy) for path in _files(found.command, folder))
    for source in chosen.sources().values():
        if source.startswith("command:"):
            words = shlex.split(source.removeprefix("command:"))
            yield from (Guarded(path, "run to get a credential", remedy) for path in _files(words, str(chosen.base)))


def _files(command: Sequence[str], folder: str) -> Iterator[str]:
    """The program, and every file that is named to it."""
    found = shutil.which(command[0]) if command else None
    if found:
        yield os.path.abspath(found)
    for word in command:
        path = os.path.join(folder, word)
        if os.path.isfile(path):
            yield path


def _problems(guarded: Guarded, writable: Sequence[str], mounts: str) -> Iterator[Problem]:
    real = os.path.realpath(guarded.path)
    for path in (guarded.path, *aliases(real, mounts)):
        try:
            place = threatened(path, [*writable, "/dev/shm"])  # noqa: S108
        except OSError as error:
            why = f"cannot be looked at: {os.strerror(error.errno or 0)}"
            yield Problem(guarded.path, 0, 0, f"is {guarded.what}, and {error.filename} {why}")
            return
        inside = [each for each in writable if guarded.whole and beneath(each, real)]
        if place or inside:
            told = f"it lies beneath {place}, which is" if place else f"{inside[0]} in it is"
            text = f"is {guarded.what}, and the agent could change it: {told} writable in the sandbox"
            yield Problem(guarded.path, 0, 0, f"{text}; {guarded.remedy}")
            return
    if guarded.what == _CREDENTIAL and os.path.isfile(real) and os.stat(real).st_nlink > 1:
        yield Problem(
            guarded.path, 0, 0, "is a credential with a second name (hard link), which cannot be hidden; copy it"
        )


def _private(folder: str) -> bool:
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return not stat.S_IMODE(found.st_mode) & 0o077


def _terminals() -> list[str]:
    """The terminal that we were started at, by its own name."""
    return list(dict.fromkeys(os.ttyname(fd) for fd in (0, 1, 2) if os.isatty(fd)))


def _mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
