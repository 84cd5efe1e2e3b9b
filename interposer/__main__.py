"""`python -m interposer`, and the `interposer` command."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from interposer.boundary.launch import Launched
    from interposer.errors import Unsafe


def main() -> None:
    """What agents spawn must start at once, so it does not wait for the command line to be imported."""
    if sys.argv[1:2] == ["connect"] and not {"-h", "--help"} & set(sys.argv[2:]):
        from interposer.shim import main as connect

        sys.exit(connect(sys.argv[2:]))
    broker = sys.argv[1:2] in (["stdio"], ["serve"]) and not {"-h", "--help"} & set(_own(sys.argv[2:]))
    launched = _launched() if broker else None
    if sys.argv[1:2] in (["run"], ["doctor"]):
        _isolated()
    if launched is not None and sys.argv[1] == "stdio":
        from interposer.spawned import stdio, words

        found = words(sys.argv[2:])
        if found is not None:
            options, command = found
            config, policy = options.get("--config"), options.get("--policy")
            sys.exit(stdio(config, policy, command, options.get("--token-file"), launched=launched))
    from interposer.cli import main as run

    run(launched)


def _own(words: list[str]) -> list[str]:
    """Without the upstream's command."""
    return words[: words.index("--")] if "--" in words else words


def _launched() -> Launched:
    """From here on this is the broker's own process (boundary/launch.py)."""
    from interposer.boundary.launch import launch
    from interposer.errors import Unsafe

    try:
        return launch()
    except Unsafe as refused:
        _refused(refused)


def _isolated() -> None:
    """What goes near a broker outside of the sandbox takes no code from the working directory either."""
    from interposer.boundary.launch import isolate
    from interposer.errors import Unsafe

    try:
        isolate()
    except Unsafe as refused:
        _refused(refused)


def _refused(refused: Unsafe) -> NoReturn:
    for problem in refused.problems:
        sys.stderr.write(f"interposer: {problem}\n")
    sys.exit(refused.exit_code)


def _require_installed() -> None:
    """This file is started by its path when the broker starts itself anew (`launch`), without a working directory or
    variables to find the package by."""
    from importlib.util import find_spec
    from os.path import dirname, realpath

    found = find_spec("interposer")
    places = found.submodule_search_locations if found else None
    if not places or realpath(places[0]) != realpath(dirname(__file__)):
        sys.stderr.write(
            f"interposer: an isolated Python (-I) does not find {dirname(__file__)}, and the broker runs in no other "
            f"one; install it: {sys.executable} -m pip install {dirname(dirname(realpath(__file__)))}\n"
        )
        sys.exit(78)


if __name__ == "__main__":
    if not __package__:
        _require_installed()
    main()
