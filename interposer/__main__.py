"""`python -m interposer`, and the `interposer` command."""

from __future__ import annotations

import sys


def main() -> None:
    """What agents spawn must start at once, so it does not wait for the command line to be imported."""
    if sys.argv[1:2] == ["connect"] and not {"-h", "--help"} & set(sys.argv[2:]):
        from .shim import main as connect

        sys.exit(connect(sys.argv[2:]))
    if sys.argv[1:2] == ["stdio"]:
        from .spawned import stdio, words

        found = words(sys.argv[2:])
        if found is not None:
            options, command = found
            sys.exit(stdio(options.get("--config"), options.get("--policy"), command))
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
