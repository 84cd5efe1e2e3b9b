"""Second ways to what the broker runs: hard links in a place that the agent may write, and the caches of launchers.

uv and pnpm link the files of a cache into each environment, so a project's virtual environment and the broker's own
may hold the same file: what the agent writes into one of its names is in all of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interposer.errors import Problem

LOOKED_AT = 1_000_000
"""The most files that are looked at in writable places."""
_SHOWN = 3
LIBRARY = "where the broker's code is looked for"

_NPM = ("{npm_config_cache}", "{NPM_CONFIG_CACHE}", "~/.npm", "~/.npmrc")
_UV = (
    "{UV_CACHE_DIR}",
    "{UV_TOOL_DIR}",
    "{UV_PYTHON_INSTALL_DIR}",
    "{XDG_CACHE_HOME}/uv",
    "{XDG_DATA_HOME}/uv",
    "{XDG_CONFIG_HOME}/uv",
    "~/.cache/uv",
    "~/.local/share/uv",
    "~/.config/uv",
)
_PIPX = ("{PIPX_HOME}", "{XDG_DATA_HOME}/pipx", "~/.local/share/pipx", "~/.local/pipx", "~/.cache/pipx")
_BUN = ("{BUN_INSTALL}", "{BUN_INSTALL_CACHE_DIR}", "~/.bun")
_PNPM = ("{PNPM_HOME}", "{XDG_CACHE_HOME}/pnpm", "{XDG_DATA_HOME}/pnpm", "~/.cache/pnpm", "~/.local/share/pnpm")
_DENO = ("{DENO_DIR}", "{XDG_CACHE_HOME}/deno", "~/.cache/deno", "~/.deno")
_KEPT = {
    "npx": _NPM,
    "npm": _NPM,
    "uvx": _UV,
    "uv": _UV,
    "pipx": _PIPX,
    "bunx": _BUN,
    "bun": _BUN,
    "pnpm": (*_PNPM, "~/.npmrc"),
    "pnpx": (*_PNPM, "~/.npmrc"),
    "deno": _DENO,
}
"""Where programs that fetch what they run keep it; what is in braces is a variable."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A place that the agent must not be able to change."""

    path: str
    what: str
    remedy: str
    whole: bool = False
    """Whether nothing beneath it may be writable either."""


def kept_by(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Where the launchers in a command keep the code that they run."""
    home = environment.get("HOME") or str(Path.home())
    patterns = [each for word in command for each in _KEPT.get(os.path.basename(word), ())]
    for pattern in dict.fromkeys(patterns):
        name, _, rest = pattern.removeprefix("{").partition("}")
        if pattern.startswith("~"):
            yield home + pattern[1:]
        elif environment.get(name):
            yield environment[name] + rest


def second_names(guards: Iterable[Guarded], writable: Iterable[str]) -> list[Problem]:
    """Files that the broker builds on and that have a name in a place that the agent may write."""
    found = dict[tuple[int, int], str]()
    looked_at = 0
    for top in writable:
        for path, status in _files(top):
            looked_at += 1
            if status.st_nlink > 1 and (status.st_uid == os.geteuid() or status.st_mode & 0o022):
                found[status.st_dev, status.st_ino] = path
            if looked_at > LOOKED_AT:
                text = f"holds more than {LOOKED_AT} files, too many to look for links to the broker's; name a smaller"
                return [Problem(top, 0, 0, f"{text} place by --write, or run the agent in another directory")]
    if not found:
        return []
    problems = dict[str, Problem]()
    for guarded in {os.path.realpath(each.path): each for each in guards}.values():
        real = os.path.realpath(guarded.path)
        if os.path.isdir(real) and not guarded.whole and guarded.what != LIBRARY:
            continue
        for path, status in _files(real):
            other = found.get((status.st_dev, status.st_ino))
            if other is not None and other != path and len(problems) < _SHOWN:
                text = f"belongs to {guarded.what}, and {other}, which the agent may write, is the same file"
                remedy = "it is a hard link: install one of them with copies of its own (uv: --link-mode=copy)"
                problems[path] = Problem(path, 0, 0, f"{text}; {remedy}")
    return list(problems.values())


def two_names(folder: str) -> list[str]:
    """Files with more than one name beneath a folder."""
    return [path for path, status in _files(folder) if status.st_nlink > 1][:_SHOWN]


def _files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """A file, or every regular file beneath a folder; links are not followed."""
    try:
        status = os.lstat(top)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        yield top, status
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    left = [top]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path, entry.stat(follow_symlinks=False)
        except OSError:
            continue
