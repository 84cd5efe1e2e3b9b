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
from dataclasses import replace
from pathlib import Path

from interposer import config
from interposer.boundary.sandbox import NEVER_WRITABLE, Sandbox, aliases, beneath, threatened
from interposer.errors import ConfigurationError, Problem
from interposer.model import JsonObject
from interposer.settings import Settings, settings

from .linked import LIBRARY, Guarded, kept_by, second_names
from .linked import two_names as _two_names

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ELSEWHERE = "or run the agent in another directory"
SEARCHED = ("PATH", "LD_LIBRARY_PATH", "NODE_PATH", "PYTHONPATH")
"""Variables that name folders in which programs look for code."""
_OWN_VARIABLES = ("INTERPOSER_CONFIG", "INTERPOSER_HOME", "CREDENTIALS_DIRECTORY")


def enclosure(
    chosen: Settings,
    *,
    temporary: str,
    write: Sequence[str],
    read_only: bool,
    environment: Mapping[str, str],
    report: JsonObject | None = None,
) -> Sandbox:
    """`report` is what a broker of ours says that stands already (`boundary/targets`). Raises `ConfigurationError` with
    everything that stands in the way."""
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
    guards = [*_code(), *_brokers(chosen, writable, environment)]
    if report is None:
        search = searched(environment, writable)[0]
        guards += _run_by(chosen, {**environment, **search})
        problems += _searched_by(chosen, writable, mounts)
    else:
        theirs = of(report)
        search = {"PATH": str(report["path"])}
        guards += [*_reported(report), *_brokers(theirs, writable, environment)]
        guards += _run_by(theirs, {**environment, **search})
        problems += [*_searched_by(theirs, writable, mounts), *_path_of(report, writable, mounts)]
    for guarded in guards:
        problems += _problems(guarded, writable, mounts)
        if guarded.whole and guarded.what in _HIDDEN:
            real = os.path.realpath(guarded.path)
            hidden |= {real, *aliases(real, mounts)}
    # Last: it looks at every file in the writable places, which by now are none of the great ones.
    problems = problems or second_names(guards, list(map(os.path.realpath, asked)))
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    return Sandbox(tuple(writable), tuple(sorted(hidden)), (*Sandbox().devices, *_terminals()))


def of(report: JsonObject) -> Settings:
    """What a broker that stands was started with. Raises `ConfigurationError`."""
    named = report["configuration"]
    if named is None:
        return Settings(config.Config(version=1), Path("/"), config.STARTER, _home_of(report))
    return replace(settings(str(named), None, []), home=_home_of(report))


def _home_of(report: JsonObject) -> Path:
    """Where all brokers of a home keep their state: further ones have a folder of their own in it."""
    folder = Path(str(report["cwd"]), str(report["folder"]))
    return folder.parent.parent if folder.parent.name == "slots" else folder


def handed_down(chosen: Sequence[Settings], environment: Mapping[str, str]) -> dict[str, str]:
    """What the agent gets of our environment: all but what is the brokers' own."""
    sources = [source for each in chosen for source in each.sources().values()]
    own = {*_OWN_VARIABLES, *(source.removeprefix("env:") for source in sources if source.startswith("env:"))}
    return {name: value for name, value in environment.items() if name not in own}


_STATE, _CREDENTIAL = "the broker's state", "a credential"
_HIDDEN = (_STATE, _CREDENTIAL)


def _brokers(chosen: Settings, writable: Sequence[str], environment: Mapping[str, str]) -> Iterator[Guarded]:
    """What one broker keeps, and what it does as it says."""
    yield from _hidden(chosen, writable, environment)
    yield from _told_by(chosen)


def _reported(report: JsonObject) -> Iterator[Guarded]:
    """What a broker that stands says itself that it is made of: as it runs, not as its configuration reads by now."""
    remedy = f"stop that broker, {_ELSEWHERE}"
    if report.get("given"):
        yield Guarded(os.path.join(str(report["cwd"]), str(report["given"])), _CREDENTIAL, remedy, whole=True)
    for place in report["places"]:
        secret = "read" in place["do"]
        what = _CREDENTIAL if secret else f"the {place['target']} of the broker that stands"
        path = os.path.join(str(report["cwd"]), str(place["path"]))
        yield Guarded(path, what, remedy, whole=secret or bool(place["deep"]))


def _hidden(chosen: Settings, writable: Sequence[str], environment: Mapping[str, str]) -> Iterator[Guarded]:
    yield Guarded(str(chosen.home), _STATE, f"set INTERPOSER_HOME to another place, {_ELSEWHERE}", whole=True)
    remedy = f"move it out, {_ELSEWHERE}"
    given = environment.get("CREDENTIALS_DIRECTORY")
    if given:
        yield Guarded(os.path.abspath(given), _CREDENTIAL, remedy, whole=True)
    for source in chosen.sources().values():
        if source.startswith("command:"):
            yield from (Guarded(path, _CREDENTIAL, remedy, whole=True) for path in _private_words(source))
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
        yield Guarded(chosen.policy, "the policy", remedy)
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
            yield Guarded(entry, LIBRARY, remedy)


def _private_words(source: str) -> Iterator[str]:
    """The files that are named to a credential's command and are for nobody else: with them, everybody could run it."""
    for word in shlex.split(source.removeprefix("command:"))[1:]:
        try:
            found = os.stat(word)
        except (OSError, ValueError):
            continue
        if os.path.isabs(word) and stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077:
            yield word


def _run_by(chosen: Settings, environment: Mapping[str, str]) -> Iterator[Guarded]:
    """Programs that the broker starts outside of the sandbox, with credentials, and where they start."""
    remedy = f"install it elsewhere, {_ELSEWHERE}"
    for name, found in chosen.upstreams.items():
        folder = os.path.join(chosen.base, found.cwd or "")
        yield Guarded(folder, f"where upstream {name} runs (programs such as npx take code from there)", remedy)
        own = {**environment, **found.env}
        yield from (Guarded(path, f"run by upstream {name}", remedy) for path in _files(found.command, folder, own))
        smaller = "name a smaller place by --write"
        for path in kept_by(found.command, own):
            yield Guarded(path, f"where upstream {name} takes code from ({found.command[0]})", smaller, whole=True)
    for source in chosen.sources().values():
        if source.startswith("command:"):
            words = shlex.split(source.removeprefix("command:"))
            yield from (Guarded(path, "run to get a credential", remedy) for path in _files(words, "/", environment))


def _files(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The program, and every file that is named to it."""
    found = shutil.which(command[0], path=environment.get("PATH")) if command else None
    if found:
        yield os.path.abspath(found)
    for word in command:
        path = os.path.join(folder, word)
        if os.path.isfile(path):
            yield path


def _problems(guarded: Guarded, writable: Sequence[str], mounts: str) -> Iterator[Problem]:
    real = os.path.realpath(guarded.path)
    if guarded.whole and guarded.what in _HIDDEN and os.path.isdir(real):
        for name in _two_names(real):
            text = f"is {guarded.what}, with a second name (hard link), which cannot be hidden; copy it"
            yield Problem(name, 0, 0, text)
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


def _searched_by(chosen: Settings, writable: Sequence[str], mounts: str) -> Iterator[Problem]:
    """Where upstreams look for programs by their own configuration."""
    for name, found in chosen.upstreams.items():
        for variable in SEARCHED:
            for entry in _open_entries(found.env.get(variable), writable, mounts):
                text = f"upstream {name} has {entry or 'an empty entry'} in {variable}, where the agent could write"
                yield Problem(str(chosen.file or "interposer"), 0, 0, f"{text}; remove it, {_ELSEWHERE}")


def _path_of(report: JsonObject, writable: Sequence[str], mounts: str) -> Iterator[Problem]:
    for entry in _open_entries(str(report["path"]), writable, mounts):
        text = f"the broker that stands has {entry or 'an empty entry'} in its PATH, where the agent could write"
        yield Problem(f"process {report['pid']}", 0, 0, f"{text}; start it with another PATH, {_ELSEWHERE}")


def searched(environment: Mapping[str, str], writable: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables by which our broker and its upstreams find code, without what the agent could write; and a line
    for each entry that was taken out."""
    mounts, kept, said = _mountinfo(), dict[str, str](), list[str]()
    for variable in SEARCHED:
        value = environment.get(variable)
        if not value:
            continue
        taken = _open_entries(value, writable, mounts)
        kept[variable] = ":".join(entry for entry in value.split(":") if entry not in taken)
        if taken:
            named = ", ".join(entry or "an empty entry" for entry in dict.fromkeys(taken))
            said.append(f"the broker's {variable} is without {named}: the agent could put a program there")
    return kept, said


def _open_entries(value: str | None, writable: Sequence[str], mounts: str) -> list[str]:
    """Entries of a search path in which the agent could put something, or that say different things at different
    places."""
    entries = value.split(":") if value else []
    return [each for each in entries if not os.path.isabs(each) or _exposed(each, writable, mounts)]


def _exposed(path: str, writable: Sequence[str], mounts: str) -> bool:
    try:
        names = (path, *aliases(os.path.realpath(path), mounts))
        return any(threatened(name, [*writable, "/dev/shm"], passable=True) is not None for name in names)  # noqa: S108
    except OSError:
        return True


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
